"""Since when something is not well, and what became well again: a small file that outlives the command."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parvis.observe.health import CheckResult, Level
from parvis.sqlite import writing

if TYPE_CHECKING:
    from parvis.config import Config

_FILE: Final = "health.sqlite"
_WAIT: Final = 5.0  # seconds for others to finish writing
_REMEMBERED: Final = 30 * 86_400.0  # seconds for which it is kept that something became well

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS states (
    site TEXT, name TEXT, subject TEXT, level TEXT, message TEXT, since REAL, seen REAL, cleared REAL,
    PRIMARY KEY (site, name, subject)
)
"""


class HistoryError(Exception):
    """The history cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Something that was not well, and is.

    Attributes:
        check, subject, level, message: What it was, as it was last.
        since, at: From when to when, in s since 1970.
    """

    check: str
    subject: str
    level: Level
    message: str
    since: float
    at: float

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Remembered:
    """Results that know since when, and what was cleared of late, the newest first."""

    results: list[CheckResult]
    cleared: list[Cleared]


class History:
    """What was not well at a site.

    Args:
        file: Where it is kept.
        site: Whose: several sites may share a file.
    """

    def __init__(self, file: Path, site: str) -> None:
        self._file = file
        self._site = site

    @classmethod
    def of(cls, config: Config) -> History:
        """Return the history of what is configured. Raises ConfigError."""
        namespace = getattr(config.broker, "prefix", "") or getattr(config.broker, "vhost", "")
        return cls(config.state_directory / _FILE, f"{config.broker_hosts} {namespace}")

    def take(
        self, results: Sequence[CheckResult], *, now: float | None = None, write: bool = True
    ) -> Remembered:
        """Compare results with those of before, and remember them.

        What a check that is among the results does not speak of any more is well, unless it was skipped or
        failed as a whole.

        Args:
            results: Of one run.
            now: The moment, in s since 1970; by default now.
            write: Whether to remember them.

        Raises:
            HistoryError: The file cannot be read or written.
        """
        moment = time.time() if now is None else now
        try:
            if not write and not self._file.is_file():
                return Remembered(list(results), [])
            with closing(self._open(write)) as database:
                known = self._known(database)
                if write:
                    with writing(database):
                        self._note(database, known, results, moment)
                return self._remembered(known, results, moment)
        except (sqlite3.Error, OSError) as error:
            raise HistoryError(f"{self._file}: {error}") from None

    def _open(self, write: bool) -> sqlite3.Connection:
        if not write:
            return sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT)
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = sqlite3.connect(self._file, timeout=_WAIT, isolation_level=None)
        database.execute(_TABLE)
        return database

    def _known(self, database: sqlite3.Connection) -> dict[tuple[str, str], _State]:
        rows = database.execute(
            "SELECT name, subject, level, message, since, cleared FROM states WHERE site = ?", [self._site]
        )
        return {(row[0], row[1]): _State(*row[2:]) for row in rows}

    def _note(
        self,
        database: sqlite3.Connection,
        known: dict[tuple[str, str], _State],
        results: Sequence[CheckResult],
        now: float,
    ) -> None:
        for key in _cleared_now(known, results):
            database.execute(
                "UPDATE states SET cleared = ? WHERE site = ? AND name = ? AND subject = ?",
                [now, self._site, *key],
            )
        for one in results:
            finding = one.finding
            if one.is_bad:
                since = _since(known, one, now)
                row = (self._site, one.check, finding.subject, finding.level, finding.message, since, now)
                database.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", row)
        database.execute("DELETE FROM states WHERE cleared < ?", [now - _REMEMBERED])

    def _remembered(
        self, known: dict[tuple[str, str], _State], results: Sequence[CheckResult], now: float
    ) -> Remembered:
        freshly = _cleared_now(known, results)
        checks = {one.check for one in results}
        bad = {(one.check, one.finding.subject) for one in results if one.is_bad}
        ends = {key: now if key in freshly else state.cleared for key, state in known.items()}
        cleared = [
            Cleared(*key, known[key].level, known[key].message, known[key].since, at)
            for key, at in ends.items()
            if at is not None and now - at < _REMEMBERED and key[0] in checks and key not in bad
        ]
        cleared.sort(key=lambda one: -one.at)
        timed = [replace(one, since=_since(known, one, now)) if one.is_bad else one for one in results]
        return Remembered(timed, cleared)


@dataclass(frozen=True, slots=True)
class _State:
    level: Level
    message: str
    since: float
    cleared: float | None


def _since(known: dict[tuple[str, str], _State], result: CheckResult, now: float) -> float:
    state = known.get((result.check, result.finding.subject))
    return now if state is None or state.cleared is not None else state.since


def _cleared_now(
    known: dict[tuple[str, str], _State], results: Iterable[CheckResult]
) -> set[tuple[str, str]]:
    """What was bad, and of which the checks that have run say nothing bad any more.

    Of a check that failed as a whole, or was skipped, nothing is known.
    """
    results = list(results)
    checks = {one.check for one in results} - {
        one.check for one in results if one.finding.level in {"error", "skipped"} and not one.finding.subject
    }
    bad = {(one.check, one.finding.subject) for one in results if one.is_bad}
    return {key for key, one in known.items() if one.cleared is None and key[0] in checks and key not in bad}
