"""Checks of a site's health: which there are, and running them so that none holds up the others.

A check is a function that takes the configuration and gives findings. Ours stand in a table; packages
contribute theirs as entry points of the group `parvis.health_checks`, by the name of the check.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from parvis.config.secret import MASK, masked
from parvis.observe.harmless import harmless

if TYPE_CHECKING:
    from parvis.config import Config

_log = logging.getLogger("parvis.health")

ENTRY_POINTS: Final = "parvis.health_checks"
#: Seconds that a check may take.
TIMEOUT: Final = 30.0

Level = Literal["ok", "skipped", "warning", "error"]
LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "skipped", "ok")

_OWN: Final = {
    "broker": "parvis.observe.health_broker:broker",
    "broker-load": "parvis.observe.health_broker:broker_load",
    "queues": "parvis.observe.health_broker:queues",
    "services": "parvis.observe.health_services:services",
    "scheduler": "parvis.observe.health_scheduler:scheduler",
    "file-systems": "parvis.observe.health_files:file_systems",
    "stores": "parvis.observe.health_files:stores",
    "drop-files": "parvis.observe.health_files:drop_files",
    "records": "parvis.observe.health_files:records",
}
_LONGEST_TEXT: Final = 600
_MOST_FINDINGS: Final = 100

T = TypeVar("T")


class UnknownCheck(ValueError):
    """There is no check of that name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found about one thing.

    Attributes:
        level: `error`: something does not work. `warning`: it will not for long, or somebody should look.
            `skipped`: there is nothing to check, `message` says why.
        message: What was found, in a line.
        subject: About what, where a check looks at several things, such as the name of a queue.
        advice: What to do, if it is not well.
        details: Further lines.
    """

    level: Level
    message: str
    subject: str = ""
    advice: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A finding, and how it came about. No text in it holds a secret, or harms a terminal.

    Attributes:
        check: Name of the check.
        finding: What it found.
        seconds: How long the check took.
        since: From when on it is not well, in s since 1970; None if it is, or if that is not known.
    """

    check: str
    finding: Finding
    seconds: float
    since: float | None = None

    @property
    def is_bad(self) -> bool:
        """Whether something is not well."""
        return self.finding.level in {"warning", "error"}

    @property
    def source(self) -> str:
        """The name of the check, and of what it looked at."""
        return f"{self.check} {self.finding.subject}".strip()

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        finding = self.finding
        return {
            "check": self.check,
            "subject": finding.subject,
            "level": finding.level,
            "message": finding.message,
            "advice": finding.advice,
            "details": list(finding.details),
            "seconds": round(self.seconds, 3),
            "since": self.since,
        }


@dataclass(frozen=True, slots=True)
class Check:
    """A check.

    Attributes:
        name: Its name.
        load: Returns the function that does it. It may take long: it runs on a thread of its own.
        package: Who contributed it; empty for ours.
    """

    name: str
    load: Callable[[], Callable[[Config], Iterable[Finding]]]
    package: str = ""

    @property
    def about(self) -> str:
        """What it looks at: the first line of its function's documentation."""
        try:
            return harmless((self.load().__doc__ or "").strip().partition("\n")[0])
        except Exception as error:  # noqa: BLE001 - somebody else's check must not cost the list of all
            return harmless(f"(cannot be loaded: {type(error).__name__}: {error})")


def find_checks(names: Sequence[str] = ()) -> list[Check]:
    """Return all checks, or those of the names.

    Raises:
        UnknownCheck: There is none of a name; says which come close.
    """
    from importlib.metadata import entry_points

    checks = {name: Check(name, lambda place=place: _own(place)) for name, place in _OWN.items()}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda found: found.name):
        package = entry.dist.name if entry.dist is not None else "?"
        checks.setdefault(entry.name, Check(entry.name, entry.load, package))
    for name in names:
        if name not in checks:
            close = get_close_matches(name, checks, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(checks)}."
            raise UnknownCheck(f"There is no check {harmless(name, 40)!r}.{hint}")
    return [check for name, check in checks.items() if not names or name in names]


def run_checks(checks: Sequence[Check], config: Config, timeout: float = TIMEOUT) -> list[CheckResult]:
    """Run checks side by side; return what they found, the worst first.

    One that raises, or takes longer than `timeout` seconds, counts as an error. The thread of a check that
    hangs is left behind.
    """
    done: SimpleQueue[list[CheckResult]] = SimpleQueue()
    for check in checks:

        def run(check: Check = check) -> None:
            done.put(_run(check, config))

        threading.Thread(target=run, name=f"check-{check.name}", daemon=True).start()
    results: list[CheckResult] = []
    waiting = {check.name for check in checks}
    deadline = time.monotonic() + timeout
    while waiting:
        try:
            found = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        waiting.discard(found[0].check)
        results += found
    results += [CheckResult(name, _hangs(timeout), timeout) for name in sorted(waiting)]
    secrets = config.secrets()
    return in_order([replace(one, finding=_clean(one.finding, secrets)) for one in results])


def in_order(results: Iterable[CheckResult]) -> list[CheckResult]:
    """Return results, the worst first, those of a check in the order in which it gave them."""
    order = {name: number for number, name in enumerate(_OWN)}
    return sorted(
        results,
        key=lambda one: (LEVELS.index(one.finding.level), order.get(one.check, len(order)), one.check),
    )


def worst(results: Iterable[CheckResult]) -> Level:
    """The worst level of all; `ok` where nothing is bad."""
    levels = {one.finding.level for one in results}
    return "error" if "error" in levels else "warning" if "warning" in levels else "ok"


def within(seconds: float, call: Callable[[], T]) -> T:
    """Call on a thread that is left behind if it does not return in time.

    Raises:
        TimeoutError: It did not. Else, whatever `call` raises.
    """
    outcome: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((True, call()))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            outcome.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        good, value = outcome.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if not good:
        raise value
    return value


def explain(error: BaseException) -> str:
    """What went wrong, in a line, for people."""
    text = " ".join(str(error).split())
    if type(error).__module__.partition(".")[0] in {"parvis", "parvis_services"} and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _own(place: str) -> Callable[[Config], Iterable[Finding]]:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _run(check: Check, config: Config) -> list[CheckResult]:
    begun = time.monotonic()
    try:
        findings = _findings(check, config)
    except BaseException as error:  # noqa: BLE001 - whatever a check raises, SystemExit as well, is a result
        _log.debug("check %s failed", check.name, exc_info=error)
        findings = [Finding("error", explain(error))]
    seconds = time.monotonic() - begun
    return [CheckResult(check.name, finding, seconds) for finding in findings]


def _findings(check: Check, config: Config) -> list[Finding]:
    findings: list[Finding] = []
    for finding in check.load()(config):
        if not isinstance(finding, Finding):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"the check gave a {type(finding).__name__} where a Finding should be")
        findings.append(finding)
    findings.sort(key=lambda one: LEVELS.index(one.level))
    left_out = len(findings) - _MOST_FINDINGS
    if left_out > 0:
        more = Finding(findings[_MOST_FINDINGS].level, f"and {left_out} more", "...")
        return [*findings[:_MOST_FINDINGS], more]
    return findings or [Finding("skipped", "the check found nothing to look at")]


def _hangs(timeout: float) -> Finding:
    return Finding("error", f"it did not end within {timeout:g} s", advice="Look at what it asks: it hangs.")


def _clean(finding: Finding, secrets: Iterable[str]) -> Finding:
    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, MASK)
        return harmless(masked("", text), _LONGEST_TEXT)

    return Finding(
        finding.level,
        clean(finding.message),
        clean(finding.subject),
        clean(finding.advice),
        tuple(clean(line) for line in finding.details[:_MOST_FINDINGS]),
    )
