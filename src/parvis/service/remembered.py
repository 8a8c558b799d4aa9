"""Which messages were handled lately, so that one that comes twice is handled once."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from parvis.config import STATE_DIRECTORY, Config
from parvis.sqlite import writing

_log = logging.getLogger("parvis.host")
_MOST = 100_000  # identities in the memory of a process
_PATIENCE = 1.0  # seconds to wait for another process that writes
_PRUNE_EVERY = 60.0
_SCHEMA = "CREATE TABLE IF NOT EXISTS handled (identity TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID"


def file_of(config: Config, namespace: str, queue: str) -> Path | None:
    """Return where the service of a queue remembers what is done; None if in its memory alone."""
    if not config.storage.get(STATE_DIRECTORY):
        return None
    return config.state_directory / "handled" / f"{namespace}.{queue}.sqlite"


def remembered_in(file: Path | None, identity: str) -> float | None:
    """Return when a message was handled, in s since 1970, as a file says; None if it does not say so."""
    if file is None or not file.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            row = database.execute("SELECT at FROM handled WHERE identity = ?", (identity,)).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else float(row[0])


class Remembered:
    """Identities of the messages that a service has handled, for a time.

    In the memory of the process, and in a file that all instances on a machine share, if there is one. Where
    the file cannot be read or written, that is logged, and a message may be handled twice.

    Args:
        seconds: For how long.
        file: An SQLite file; it is made if it is not there. None for the memory alone.
    """

    def __init__(self, seconds: float, file: Path | None = None) -> None:
        self._seconds = seconds
        self._handled: OrderedDict[str, float] = OrderedDict()
        self._in_flight: set[str] = set()
        self._file = file
        self._database = None if file is None else self._open(file)
        self._pruned = 0.0

    def knows(self, identity: str) -> bool:
        """Whether a message with this identity was handled; also if that is in a transaction before ours."""
        if identity in self._in_flight:
            return True
        at = self._handled.get(identity)
        if at is not None and time.time() - at < self._seconds:
            return True
        return self._database is not None and self._is_on_file(self._database, identity)

    def expect(self, identity: str) -> None:
        """A message was handled, and its transaction is not confirmed yet."""
        if identity:
            self._in_flight.add(identity)

    def forget(self, identities: Iterable[str]) -> None:
        """Messages are to be handled again: their transaction failed."""
        self._in_flight.difference_update(identities)

    def record(self, identities: Iterable[str]) -> None:
        """Messages were handled, which the broker has confirmed."""
        now = time.time()
        known = [identity for identity in identities if identity]
        self._in_flight.difference_update(known)
        for identity in known:
            self._handled[identity] = now
            self._handled.move_to_end(identity)
        while len(self._handled) > _MOST:
            self._handled.popitem(last=False)
        if self._database is not None and known:
            self._write(self._database, known, now)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()

    def _open(self, file: Path) -> sqlite3.Connection | None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Opened on the thread that makes the host, used on the one that runs it.
            database = sqlite3.connect(file, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            database.execute("PRAGMA journal_mode = WAL")
            # What a power cut takes away is a message that might be handled twice, which it might anyway.
            database.execute("PRAGMA synchronous = OFF")
            database.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            _log.warning("%s cannot be used to recognise messages that come twice: %s", file, error)
            return None
        return database

    def _is_on_file(self, database: sqlite3.Connection, identity: str) -> bool:
        since = time.time() - self._seconds
        try:
            query = "SELECT 1 FROM handled WHERE identity = ? AND at > ?"
            return database.execute(query, (identity, since)).fetchone() is not None
        except sqlite3.Error as error:
            _log.warning("%s cannot be read: %s", self._file, error)
            return False

    def _write(self, database: sqlite3.Connection, identities: list[str], now: float) -> None:
        try:
            with writing(database):
                rows = [(identity, now) for identity in identities]
                database.executemany("INSERT OR REPLACE INTO handled VALUES (?, ?)", rows)
                if now - self._pruned > _PRUNE_EVERY:
                    database.execute("DELETE FROM handled WHERE at < ?", (now - self._seconds,))
                    self._pruned = now
        except sqlite3.Error as error:
            _log.warning("%s cannot be written: %s", self._file, error)
