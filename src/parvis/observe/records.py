"""The store of what happened: log records and hops, in an SQLite file.

One process writes, any may read. It is bounded by age and by size. Log records are thrown away by the
shelf, a fraction of all at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import sqlite3
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final, Self

from parvis.observe import hop_table, log_table
from parvis.observe.log_record import LogQuery, LogRecord
from parvis.sqlite import writing

__all__ = [
    "LogQuery",
    "LogRecord",
    "Records",
    "RecordsDamaged",
    "RecordsError",
    "RecordsFull",
    "RecordsWriter",
]

FILE: Final = "records.sqlite"
_LOCK: Final = "writer.lock"
_LOCK_PATIENCE: Final = 0.2  # seconds; who only asks whether it is held has it for a moment

_FORMAT: Final = 0x50525301
"""SQLite's `user_version` of our files: `PRS` and the number of the format."""
_FORMATS: Final = range(_FORMAT & ~0xFF, (_FORMAT | 0xFF) + 1)

_SCHEMA: Final = (*log_table.SCHEMA, *hop_table.SCHEMA)

_DAY: Final = 86_400.0
_MEGABYTE: Final = 1_000_000
_SHELVES_BY_AGE: Final = 15
_SHELVES_BY_SIZE: Final = 80  # bytes of text; with its index a shelf takes about twice as much
_STEP: Final = 0.05  # seconds in which a part is thrown away, while nothing can be written
_LARGEST_LOG: Final = 64_000_000  # bytes that the write-ahead log keeps of the disk
_PATIENCE: Final = 10.0  # seconds that a writer waits for a reader that recovers the log of the file

_NO_ROOM: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class RecordsError(Exception):
    """The records cannot be read or written: says which file, why, and what to do."""


class RecordsFull(RecordsError):
    """There is no room on the disk: the same can be written when there is."""


class RecordsDamaged(RecordsError):
    """A file is damaged, or no file of ours.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self.path = path


class RecordsMissing(RecordsError):
    """There are no records."""


class Records:
    """The records, for reading. Any number of processes may read while one writes.

    Methods may be called from any thread, one at a time.

    Args:
        directory: Where they are.

    Attributes:
        path: The file.

    Raises:
        RecordsMissing: There are none.
        RecordsError: They cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._lock = threading.RLock()
        if not self.path.is_file():
            raise self._missing()
        with self._explained("open"):
            self._database = self._open()
        try:
            with self._explained("open"):
                self._make_ready(int(self._database.execute("PRAGMA user_version").fetchone()[0]))
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(
            address, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )

    def _make_ready(self, found: int) -> None:
        """Make sure that the file, with the format `found`, is one of ours."""
        if not found:
            raise self._missing()
        self._check_format(found)

    def _check_format(self, found: int) -> None:
        if found == _FORMAT:
            return
        if found in _FORMATS:
            raise RecordsError(
                f"{self.path} is of another version of Parvis: name another directory"
                " (parvis.records.directory), or move it away"
            )
        raise RecordsDamaged(self.path, f"{self.path} holds no records of Parvis: move it away")

    def _missing(self) -> RecordsError:
        where = self.path.parent
        return RecordsMissing(f"there are no records in {where}: `parvis collect` or `parvis up` takes them")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextlib.contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """One state of the records, that of the first look, whatever is written meanwhile.

        Raises:
            RecordsError: They cannot be read.
        """
        with self._lock, self._explained("read"):
            self._database.execute("BEGIN")
            try:
                yield self._database
            finally:
                if self._database.in_transaction:
                    self._database.execute("COMMIT")

    def search(self, query: LogQuery) -> list[LogRecord]:
        """Return the log records that answer to a query, in its order. Raises as `reading`."""
        with self.reading() as database:
            return log_table.search(database, query)

    def last_row(self) -> int:
        """Return the row of the log record that arrived last, 0 if there is none. Raises as `reading`."""
        with self.reading() as database:
            return log_table.last_arrival(database)

    def known_until(self) -> float:
        """Return up to when it is known what happened, in seconds since 1970: now, while somebody writes."""
        if _is_held(self.path.parent):
            return time.time()
        times: list[float] = []
        for file in (self.path, self.path.with_name(f"{FILE}-wal")):
            with contextlib.suppress(OSError):
                status = file.stat()
                times += [status.st_mtime] if status.st_size else []  # who only reads makes an empty log
        return min(max(times, default=time.time()), time.time())

    @contextlib.contextmanager
    def _explained(self, verb: str) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(verb, error) from error

    def _error(self, verb: str, error: Exception) -> RecordsError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if getattr(error, "sqlite_errorcode", None) in _NO_ROOM:
            return RecordsFull(f"cannot {verb} {self.path}: {error} (the disk is full: make room on it)")
        if code in _DAMAGED:
            return RecordsDamaged(
                self.path,
                f"cannot {verb} {self.path}: {error} (it is damaged: move it away, and new ones are begun)",
            )
        return RecordsError(f"cannot {verb} {self.path}: {error}")


class RecordsWriter(Records):
    """The records, for writing: one process at a time.

    Args:
        directory: Where they are; made if absent, for its owner only.
        days: Age from which on they are thrown away.
        megabytes: Size that the file is kept under, more or less.

    Raises:
        RecordsError: They are being written by another process, or cannot be written.
    """

    def __init__(self, directory: Path, *, days: float = 30, megabytes: float = 2000) -> None:
        self._keep = days * _DAY
        self._most_bytes = int(megabytes * _MEGABYTE)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = _hold(directory)
            (directory / FILE).touch(mode=0o600)
        except OSError as error:
            raise RecordsError(f"cannot write to {error.filename or directory}: {error.strerror}") from None
        try:
            super().__init__(directory)
        except BaseException:
            os.close(self._held)
            raise

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(f"PRAGMA journal_size_limit = {_LARGEST_LOG}")
            # What is thrown away need not be overwritten: that takes ten times as long.
            database.execute("PRAGMA secure_delete = OFF")
        except BaseException:
            database.close()
            raise
        return database

    def _make_ready(self, found: int) -> None:
        tables = int(self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if found or tables:
            self._check_format(found)
            return
        with self.writing() as database:
            for statement in _SCHEMA:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_FORMAT}")

    def close(self) -> None:
        """Close the file, and let another process write."""
        super().close()
        os.close(self._held)

    @contextlib.contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """A transaction: all of it or, if something is raised, nothing.

        Raises:
            RecordsFull: There is no room on the disk.
            RecordsError: They cannot be written.
        """
        with self._lock, self._explained("write"), writing(self._database):
            yield self._database

    def add_logs(self, database: sqlite3.Connection, records: Sequence[LogRecord]) -> None:
        """Add log records, in the order of their arrival, inside `writing`."""
        log_table.add(
            database,
            records,
            keep=self._keep,
            most_bytes=self._most_bytes // _SHELVES_BY_SIZE,
            most_seconds=self._keep / _SHELVES_BY_AGE,
        )

    def announce(self, address: str) -> None:
        """Have others find out, by `collector_address`, where log records are taken by UDP."""
        _tell(self._held, f"{os.getpid()} {address}")

    def trim(self) -> bool:
        """Throw away a part of what is too old or too much; return whether there may be more of it.

        Raises: as `writing`.
        """
        with self.writing() as database:
            before = time.time() - self._keep
            is_too_big = self._used(database) > self._most_bytes
            shelves = log_table.shelves(database)
            if shelves and shelves[0].newest < before:
                log_table.remove_shelf(database, shelves[0])
                return True
            oldest = hop_table.oldest(database)
            if is_too_big and len(shelves) > 1 and (oldest is None or shelves[0].newest < oldest):
                log_table.remove_shelf(database, shelves[0])
                return True
            if oldest is None or not (is_too_big or oldest < before):
                return False
            if is_too_big:
                before = shelves[0].newest if len(shelves) > 1 else math.inf
            _remove_recipes(database, before)
            return True

    def _used(self, database: sqlite3.Connection) -> int:
        page, pages, free = (
            int(database.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        return page * (pages - free)


def _remove_recipes(database: sqlite3.Connection, before: float) -> None:
    """Throw away recipes in which nothing has happened since `before`, for as long as a step may take."""
    end = time.monotonic() + _STEP
    while (oldest := hop_table.oldest(database)) is not None and oldest < before and time.monotonic() < end:
        hop_table.remove_oldest(database)


def collector_address(directory: Path) -> str | None:
    """Return where the process that writes these records takes log records by UDP; None if there is none."""
    if not _is_held(directory):
        return None
    _, _, address = (directory / _LOCK).read_text("ascii", "replace").partition(" ")
    return address or None


def _is_held(directory: Path) -> bool:
    """Whether a process writes these records, as far as we may know."""
    try:
        lock = os.open(directory / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _hold(directory: Path) -> int:
    """Make sure that no other process writes; return the descriptor that says so while it is open."""
    held = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + _LOCK_PATIENCE
    while not _locked(held):
        if time.monotonic() > end:
            who = os.read(held, 20).decode("ascii", "replace").partition(" ")[0]
            os.close(held)
            raise RecordsError(
                f"another process ({who}) writes the records in {directory}: stop it, or name another"
                " directory (parvis.records.directory)"
            )
        time.sleep(_LOCK_PATIENCE / 20)
    _tell(held, str(os.getpid()))
    return held


def _locked(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _tell(held: int, text: str) -> None:
    os.ftruncate(held, 0)
    os.pwrite(held, text.encode("ascii"), 0)
