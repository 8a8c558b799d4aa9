"""Checks of what is in files: room on file systems, stores that can be written to, requests that wait.

A mount may hang so that no signal ends whoever looks at it. So a child process looks, which is left behind.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parvis.config import RECORDS_COLLECTOR, RECORDS_DIRECTORY, RECORDS_HOPS
from parvis.observe.health import Finding
from parvis.observe.health_settings import (
    FILE_SYSTEMS,
    STORES,
    Least,
    least_free,
    readable_bytes,
    texts,
)
from parvis.observe.wording import age_text, counted

if TYPE_CHECKING:
    from parvis.config import Config

#: Seconds that a look at a file system may take.
PATIENCE: Final = 10.0

_LOOK_INTERVAL: Final = 0.02
_LATE: Final = 600.0
_VERY_LATE: Final = 3600.0

# Goes before each: whoever started it may have left by then.
_END_BY_ITSELF: Final = """
import signal, sys
signal.alarm(int(sys.argv[2]))
"""
# Each looks at the path that it is given and prints what it found. To open it asks a network file system
# itself, where the kernel may remember the figures.
_ROOM: Final = """
import json, os, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
found = os.fstatvfs(directory)
print(json.dumps([found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail]))
"""
_ROUND_TRIP: Final = """
import json, os, sys, tempfile, time
begun = time.monotonic()
content = os.urandom(4096)
with tempfile.NamedTemporaryFile(prefix=".parvis-health-", dir=sys.argv[1]) as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
    with open(file.name, "rb") as again:
        print(json.dumps([again.read() == content, time.monotonic() - begun]))
"""
_WAITING: Final = """
import json, os, stat, sys
def files(place):
    try:
        entries = [entry for entry in os.scandir(place) if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    found = [entry.stat(follow_symlinks=False) for entry in entries]
    return [one.st_mtime for one in found if not stat.S_ISDIR(one.st_mode)]
waiting = files(sys.argv[1])
broken = files(os.path.join(sys.argv[1], "broken"))
print(json.dumps([len(waiting), min(waiting, default=None), len(broken)]))
"""


class LookFailed(str):
    """Why a file system cannot be looked at."""

    __slots__ = ()


def file_systems(config: Config) -> Iterable[Finding]:
    """There is room on the file systems, and they answer."""
    wanted = least_free(config)
    if not wanted:
        yield Finding("skipped", f"{FILE_SYSTEMS} names none")
        return
    for path, found in look(_ROOM, wanted).items():
        yield _judge_room(path, wanted[path], found)


def stores(config: Config) -> Iterable[Finding]:
    """What is written into the stores can be read back."""
    wanted = texts(config, STORES)
    if not wanted:
        yield Finding("skipped", f"{STORES} names none")
        return
    for path, found in look(_ROUND_TRIP, wanted).items():
        yield _judge_store(path, found)


def drop_files(config: Config) -> Iterable[Finding]:
    """Requests that were stored while the broker was away are sent soon."""
    place = str(config.fallback_location)
    found = look(_WAITING, [place])[place]
    if isinstance(found, LookFailed):
        yield Finding("error", str(found), place, "Mend the directory: go stores requests there.")
        return
    waiting, oldest, broken = found
    if broken:
        advice = f"Each has a file beside it that says why: ls {place}/broken"
        yield Finding("warning", f"{counted(broken, 'file')} set aside as broken", place, advice)
    if not waiting:
        yield Finding("ok", "no request waits", place)
        return
    age = max(0.0, time.time() - oldest)
    level = "error" if age > _VERY_LATE else "warning" if age > _LATE else "ok"
    advice = "Send them: parvis pickup" if level != "ok" else ""
    yield Finding(
        level, f"{counted(waiting, 'request')} waiting, the oldest for {age_text(age)}", place, advice
    )


def records(config: Config) -> Iterable[Finding]:
    """Log records and hops are kept, and can be read."""
    from parvis.observe.records import FILE, Records, RecordsError, collector_address
    from parvis.observe.records_place import records_directory

    directory = records_directory(config)
    if not (directory / FILE).is_file():
        if not any(config.storage.get(key) for key in (RECORDS_DIRECTORY, RECORDS_HOPS)):
            elsewhere = config.storage.get(RECORDS_COLLECTOR)
            where = f"records are kept by {elsewhere}" if elsewhere else "no records are kept here"
            yield Finding("skipped", where)
            return
        yield Finding("error", "there are no records", str(directory), "Start parvis collect.")
        return
    try:
        Records(directory).close()
    except RecordsError as error:
        yield Finding("error", str(error), str(directory))
        return
    address = collector_address(directory)
    if address is None:
        yield Finding("warning", "nobody writes to the records", str(directory), "Start parvis collect.")
    else:
        yield Finding("ok", f"a collector takes log records at {address}", str(directory))


def look(script: str, paths: Iterable[str], patience: float = PATIENCE) -> dict[str, Any]:
    """Run a Python script on each path in a child process, side by side.

    Returns:
        By path the JSON that it printed, or a `LookFailed`: it failed, or did not end within `patience`
        seconds. Then the child is killed, and not waited for.
    """
    children = {path: _child(script, str(Path(path).expanduser()), patience) for path in paths}
    deadline = time.monotonic() + patience
    while any(child.poll() is None for child in children.values()) and time.monotonic() < deadline:
        time.sleep(_LOOK_INTERVAL)
    return {path: _outcome(child, patience) for path, child in children.items()}


def _child(script: str, path: str, patience: float) -> subprocess.Popen[bytes]:
    limit = str(math.ceil(patience) + 1)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _END_BY_ITSELF + script, path, limit],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    )


def _outcome(child: subprocess.Popen[bytes], patience: float) -> Any:
    if child.poll() is None:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.2)
        return LookFailed(f"no answer within {patience:g} s: it hangs")
    out, err = child.communicate()
    if child.returncode:
        said = err.decode(errors="replace").strip().rpartition("\n")[2]
        reason = re.sub(r"^\w+: (\[Errno \d+\] )?", "", said)
        return LookFailed(reason or f"the look at it failed with exit code {child.returncode}")
    return json.loads(out)


def _judge_room(path: str, least: Least, found: Any) -> Finding:
    if isinstance(found, LookFailed):
        return Finding("error", str(found), path, "See whether it is mounted and its server answers.")
    total, free = found
    share = 100 * free / total if total else 0.0
    text = f"{readable_bytes(free)} of {readable_bytes(total)} are free ({share:.0f} %)"
    if least.reached(free, total):
        return Finding("ok", text, path)
    return Finding("error", f"{text}, {least} should be", path, "Remove what is not needed any more.")


def _judge_store(path: str, found: Any) -> Finding:
    if isinstance(found, LookFailed):
        return Finding("error", str(found), path, "See whether it is mounted, and who may write there.")
    same, seconds = found
    if not same:
        return Finding("error", "what was written was not what was read", path, "Take it out of use.")
    return Finding("ok", f"written and read back in {seconds:.2f} s", path)
