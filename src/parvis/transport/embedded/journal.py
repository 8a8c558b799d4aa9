"""The journal: persistent messages in an SQLite file, so that they outlive the broker.

Changes are collected and written together: `take` what has come together, `write` it in one SQLite
transaction, in any thread, and only then let anybody know. A file belongs to one broker at a time.
"""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from parvis.transport.embedded.message import Message

RESERVE: Final = 8 * 1024 * 1024
"""Bytes of the disk that are kept for acknowledgements when it is too full for new messages."""

_FORMAT: Final = 0x50415202
"""SQLite's `user_version` of our files: `PAR` and the number of the format."""
_FORMATS: Final = range(_FORMAT & ~0xFF, (_FORMAT | 0xFF) + 1)

_SCHEMA: Final = (
    """
CREATE TABLE message (
    number INTEGER PRIMARY KEY, place INTEGER NOT NULL, id TEXT NOT NULL, destination TEXT NOT NULL,
    timestamp INTEGER NOT NULL, priority INTEGER NOT NULL, expires INTEGER NOT NULL, due INTEGER NOT NULL,
    redeliveries INTEGER NOT NULL, headers BLOB NOT NULL, body BLOB NOT NULL
)
""",
    """
CREATE TABLE delivered (
    destination TEXT NOT NULL, priority INTEGER NOT NULL, place INTEGER NOT NULL,
    PRIMARY KEY (destination, priority)
) WITHOUT ROWID
""",
)
_ADD: Final = "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE: Final = "UPDATE message SET place = ?, timestamp = ?, due = ?, redeliveries = ? WHERE number = ?"
_REMOVE: Final = "DELETE FROM message WHERE number = ?"
_MARK: Final = """
INSERT INTO delivered VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET place = max(place, excluded.place)
"""
_LOAD: Final = """
SELECT number, place, id, destination, timestamp, priority, expires, due, redeliveries,
    length(headers) + length(body)
FROM message ORDER BY place
"""
_TEXT: Final = "SELECT headers, body FROM message WHERE number = ?"

_NO_ROOM: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}

Level = tuple[str, int]
"""A queue, by its full name, and a priority."""


class JournalError(Exception):
    """The journal cannot be opened, read or written: says which file, why, and what to do."""


class JournalFull(JournalError):
    """There is no room on the disk: the same can be written when there is."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that are written together: rows for the statements, and the messages that are new."""

    added: list[Message]
    add: list[tuple[Any, ...]]
    update: list[tuple[int, ...]]
    remove: list[tuple[int]]
    mark: list[tuple[str, int, int]]
    unmark: bool


class Journal:
    """Persistent messages in an SQLite file.

    Args:
        path: the file, made if absent, readable by its owner only.
        sync: wait until the disk has what is written; without, a power failure may cost the last of it.

    Attributes:
        unwritten: bytes of messages that are not written yet.

    Raises:
        JournalError: it is in use by another broker, no journal, damaged, or may not be written.
    """

    def __init__(self, path: Path, sync: bool = True) -> None:
        self.path = path
        self._add: dict[Message, None] = {}
        self._update: dict[Message, None] = {}
        self._remove: list[tuple[int]] = []
        self._mark: dict[Level, int] = {}
        self._unmark = False
        self._marked = False  # there are marks in the file, or will be
        self.unwritten = 0
        try:
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise self._error("open", error) from error
        try:
            self._open(sync)
            self._room = self._find_room()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise self._error("open", error) from error
        except JournalError:
            self.close()
            raise

    def _open(self, sync: bool) -> None:
        execute = self._connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        # FULL: also a power failure loses nothing that was confirmed
        execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
        execute("BEGIN IMMEDIATE")
        found = int(execute("PRAGMA user_version").fetchone()[0])
        tables = int(execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if not found and not tables:
            for statement in _SCHEMA:
                execute(statement)
            execute(f"PRAGMA user_version = {_FORMAT}")
        elif found != _FORMAT and found in _FORMATS:
            raise JournalError(
                f"{self.path} is the journal of another version of this broker: let that version deliver what"
                " is in it, or name another file"
            )
        elif found != _FORMAT:
            raise JournalError(
                f"{self.path} is an SQLite file, but no journal of this broker: name another file"
            )
        execute("COMMIT")

    def _error(self, verb: str, error: Exception) -> JournalError:
        hint = ""
        if "locked" in str(error):
            hint = " (another broker is using it)"
        elif "not a database" in str(error) or "malformed" in str(error):
            hint = " (it is damaged or something else: name another file)"
        elif getattr(error, "sqlite_errorcode", None) in _NO_ROOM:
            return JournalFull(
                f"Cannot {verb} the journal {self.path}: {error} (the disk is full: make room on it)"
            )
        return JournalError(f"Cannot {verb} the journal {self.path}: {error}{hint}")

    # Reading

    def load(self) -> Iterator[Message]:
        """All messages without their text, in the order of their arrival."""
        try:
            for row in self._connection.execute(_LOAD):
                number, place, id_, destination, timestamp, priority, expires, due, redeliveries, size = row
                message = Message(number, id_, destination, {}, b"", timestamp)
                message.priority, message.expires, message.persistent = priority, expires, True
                message.place, message.due, message.redeliveries = place, due, redeliveries
                message.stored = True
                message.unload(size)
                yield message
        except sqlite3.Error as error:
            raise self._error("read", error) from error

    def text(self, message: Message) -> tuple[dict[str, str], bytes] | None:
        """Headers and body of a message; None if it is not here any more."""
        try:
            row = self._connection.execute(_TEXT, (message.number,)).fetchone()
            return None if row is None else (orjson.loads(row[0]), row[1])
        except (sqlite3.Error, ValueError) as error:
            raise self._error("read", error) from error

    def lost(self, message: Message) -> JournalError:
        """What to say when a message that must be here is not."""
        return JournalError(
            f"Message {message.id} is not in the journal {self.path} any more: somebody else has changed it"
        )

    def delivered(self) -> dict[Level, int]:
        """How far queues had been delivered, by place, when the broker that wrote it was killed."""
        try:
            rows = self._connection.execute("SELECT * FROM delivered").fetchall()
        except sqlite3.Error as error:
            raise self._error("read", error) from error
        self._marked = bool(rows)
        return {(destination, priority): place for destination, priority, place in rows}

    # Changing

    def add(self, message: Message) -> None:
        """Keep a message."""
        self._add[message] = None
        self.unwritten += message.size

    def update(self, message: Message) -> None:
        """Note where a message is in its queue, when it is due and how often it was delivered."""
        if message not in self._add:
            self._update[message] = None

    def remove(self, message: Message) -> None:
        """A message is done with."""
        self._update.pop(message, None)
        if message in self._add:
            del self._add[message]
            self.unwritten -= message.size
        else:
            self._remove.append((message.number,))

    def mark(self, message: Message) -> None:
        """A message is delivered to somebody who has not acknowledged it."""
        self._marked = True
        level = message.destination, message.priority
        if message.place > self._mark.get(level, 0):
            self._mark[level] = message.place

    def unmark(self) -> None:
        """Nobody holds any message."""
        self._mark = {}
        self._unmark, self._marked = self._marked, False

    @property
    def pending(self) -> bool:
        """Whether there are changes to take."""
        return bool(self._add or self._update or self._remove or self._mark or self._unmark)

    def take(self) -> Batch:
        """The changes since the last call; they must be written in the order they were taken."""
        added = list(self._add)
        batch = Batch(
            added,
            [_row(message) for message in added],
            [(m.place, m.timestamp, m.due, m.redeliveries, m.number) for m in self._update],
            self._remove,
            [(destination, priority, place) for (destination, priority), place in self._mark.items()],
            self._unmark,
        )
        self._add, self._update, self._remove, self._mark = {}, {}, [], {}
        self._unmark = False
        return batch

    def write(self, batch: Batch) -> None:
        """Write changes so that they survive. All or nothing.

        Raises:
            JournalFull: there is no room; the same batch can be written later.
            JournalError: they could not be written.
        """
        try:
            with self._connection:
                execute, many = self._connection.execute, self._connection.executemany
                execute("BEGIN IMMEDIATE")
                if batch.unmark:
                    execute("DELETE FROM delivered")
                many(_ADD, batch.add)
                many(_UPDATE, batch.update)
                many(_REMOVE, batch.remove)
                many(_MARK, batch.mark)
        except sqlite3.Error as error:
            raise self._error("write", error) from error
        self.look_for_room()

    def written(self, batch: Batch) -> None:
        """A batch was written: the texts of its messages are safe."""
        for message in batch.added:
            message.stored = True
            self.unwritten -= message.size

    # The disk

    def has_room(self, message: Message) -> bool:
        """Whether there is room for one more message, and a reserve behind it."""
        return self._room > RESERVE + 2 * (self.unwritten + message.size)

    def look_for_room(self) -> None:
        """See how much room there is on the disk."""
        self._room = self._find_room()

    def _find_room(self) -> int:
        """Bytes that can be written, first to the write-ahead log and then to the file itself."""
        disk = os.statvfs(self.path)
        free = disk.f_bavail * disk.f_frsize
        largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        log = self.path.with_name(f"{self.path.name}-wal")
        logged = log.stat().st_size if log.exists() else 0
        size = self.path.stat().st_size
        pages = int(self._connection.execute("PRAGMA freelist_count").fetchone()[0])
        page = int(self._connection.execute("PRAGMA page_size").fetchone()[0])
        if largest == resource.RLIM_INFINITY:
            return free + min(logged, pages * page)
        return min(min(free, largest - size) + pages * page, min(free, largest - logged) + logged)

    def close(self) -> None:
        """Close the file, without writing what is pending."""
        self._connection.close()


def _row(message: Message) -> tuple[Any, ...]:
    return (
        *(message.number, message.place, message.id, message.destination, message.timestamp),
        *(message.priority, message.expires, message.due, message.redeliveries),
        *(orjson.dumps(message.headers), message.body),
    )
