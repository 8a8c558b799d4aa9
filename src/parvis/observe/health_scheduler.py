"""Check of the scheduler that long jobs go to: Slurm by its REST interface or `sinfo`, or Grid Engine."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from parvis.observe.health import Finding
from parvis.observe.health_settings import SCHEDULER, texts
from parvis.observe.wording import counted

if TYPE_CHECKING:
    from parvis.config import Config, SlurmSettings

_PATIENCE: Final = 10.0
_LARGEST_ANSWER: Final = 1024 * 1024
_VERSION: Final = "v0.0.40"
_DOWN: Final = ("down", "drain", "fail", "unk", "error")


class SchedulerTrouble(Exception):
    """A scheduler does not answer, or not as it should."""


def scheduler(config: Config) -> Iterable[Finding]:
    """The scheduler answers, and has machines that work."""
    rest = [(name, settings) for name in ("slurm", "iris") if (settings := getattr(config, name)) is not None]
    asked = texts(config, SCHEDULER)
    if not rest and not asked:
        yield Finding("skipped", f"neither the plugin slurm nor {SCHEDULER} is configured")
    for name, settings in rest:
        yield _guarded(f"{name} (REST)", lambda settings=settings: _ping(settings))
    for name in asked:
        match name.casefold():
            case "slurm":
                yield _guarded("slurm", _sinfo)
            case "gridengine":
                yield _guarded("gridengine", _qstat)
            case _:
                yield Finding("error", f"{SCHEDULER}: {name!r} is neither slurm nor gridengine", name)


def _guarded(name: str, look: Any) -> Finding:
    try:
        finding: Finding = look()
    except SchedulerTrouble as error:
        return Finding("error", str(error), name, "See whether the scheduler runs and lets us ask.")
    return Finding(finding.level, finding.message, name, finding.advice, finding.details)


def _ping(settings: SlurmSettings) -> Finding:
    if urlsplit(settings.url).scheme not in {"http", "https"}:
        raise SchedulerTrouble("the url of the plugin must begin with http:// or https://")
    url = f"{settings.url.rstrip('/')}/slurm/{settings.api_version or _VERSION}/ping"
    request = urllib.request.Request(url, headers=_login(settings))  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:  # noqa: S310 - as above
            content: Any = json.loads(answer.read(_LARGEST_ANSWER))
    except urllib.error.HTTPError as error:
        hint = ": the user or the token is no good" if error.code in {401, 403} else ""
        raise SchedulerTrouble(f"{url} answers {error.code}{hint}") from None
    except (OSError, ValueError) as error:
        raise SchedulerTrouble(f"{url}: {getattr(error, 'reason', None) or error}") from None
    pings: Any = cast("dict[str, Any]", content).get("pings") if isinstance(content, dict) else None
    found = [cast("dict[str, Any]", one) for one in cast("list[Any]", pings or []) if isinstance(one, dict)]
    up = [one for one in found if one.get("responding") is True or one.get("pinged") == "UP"]
    hosts = ", ".join(str(one.get("hostname", "?")) for one in found)
    if not up:
        raise SchedulerTrouble(f"{url}: no controller is up ({hosts or 'none is named'})")
    level = "ok" if len(up) == len(found) else "warning"
    return Finding(level, f"{len(up)} of {len(found)} controllers are up ({hosts})")


def _login(settings: SlurmSettings) -> dict[str, str]:
    headers = {"Accept": "application/json"}
    if settings.user:
        headers["X-SLURM-USER-NAME"] = settings.user
    token = settings.user_token
    if token:
        file = Path(token).expanduser()
        try:
            token = file.read_text(encoding="utf-8").strip() if file.is_file() else token
        except (OSError, UnicodeDecodeError):
            raise SchedulerTrouble("the file that user_token names cannot be read") from None
        headers["X-SLURM-USER-TOKEN"] = token
    return headers


def _sinfo() -> Finding:
    rows = [line.split() for line in _ask(["sinfo", "--noheader", "--format=%R %D %T"]).splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[1].isdecimal()]
    if not rows:
        raise SchedulerTrouble("sinfo shows no partition")
    total = sum(int(row[1]) for row in rows)
    down = sum(int(row[1]) for row in rows if row[2].casefold().startswith(_DOWN) or row[2].endswith("*"))
    partitions = len({row[0] for row in rows})
    return _machines(total, down, counted(partitions, "partition"), "sinfo -R says why.")


def _qstat() -> Finding:
    lines = _ask(["qstat", "-g", "c"]).splitlines()
    # CLUSTER QUEUE, CQLOAD, USED, RES, AVAIL, TOTAL, aoACDS, cdsuE: the last are those that do not work.
    rows = [row for line in lines if len(row := line.split()) >= 8 and row[-1].isdecimal()]
    if not rows:
        raise SchedulerTrouble("qstat shows no queue")
    total, down = sum(int(row[-3]) for row in rows), sum(int(row[-1]) for row in rows)
    return _machines(total, down, counted(len(rows), "queue"), "qstat -f -explain E says why.")


def _machines(total: int, down: int, where: str, advice: str) -> Finding:
    if down >= total:
        return Finding("error", f"{where}, and nothing of {total} works", advice=advice)
    if down:
        return Finding("warning", f"{where}, {down} of {total} do not work", advice=advice)
    return Finding("ok", f"{where}, {total} nodes or slots")


def _ask(command: Sequence[str]) -> str:
    """Return what a program says.

    Raises:
        SchedulerTrouble: It is not there, failed, or did not end in time.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise SchedulerTrouble(f"there is no program {command[0]} on the path") from None
    except subprocess.TimeoutExpired:
        raise SchedulerTrouble(f"{command[0]} did not end within {_PATIENCE:g} s") from None
    except OSError as error:
        raise SchedulerTrouble(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise SchedulerTrouble(f"{command[0]} failed: {said or f'exit code {done.returncode}'}")
    return done.stdout.decode(errors="replace")
