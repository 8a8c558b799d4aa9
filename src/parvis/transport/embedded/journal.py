"""The journal: persistent messages in an SQLite file, so that they outlive the broker.

Changes are collected and written together: `take` what has come together, `write` it in one SQLite
transaction, in any thread, and only then let anybody know. A file belongs to one broker at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from parvis.transport.embedded.message import Message

_FORMAT: Final = 0x50415201
"""SQLite's `user_version` of our files: `PAR` and the number of the format."""

_SCHEMA: Final = """
CREATE TABLE message (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, destination TEXT NOT NULL, headers BLOB NOT NULL,
    body BLOB NOT NULL, timestamp INTEGER NOT NULL, priority INTEGER NOT NULL, expires INTEGER NOT NULL,
    due INTEGER NOT NULL, redeliveries INTEGER NOT NULL
)
"""
_ADD: Final = "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE: Final = "UPDATE message SET due = ?, redeliveries = ? WHERE number = ?"
_REMOVE: Final = "DELETE FROM message WHERE number = ?"
_LOAD: Final = "SELECT * FROM message ORDER BY max(timestamp, due), number"


class JournalError(Exception):
    """The journal cannot be opened, read or written: says which file, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that are written together: rows for the three statements."""

    add: list[tuple[Any, ...]]
    update: list[tuple[int, int, int]]
    remove: list[tuple[int]]


class Journal:
    """Persistent messages in an SQLite file.

    Args:
        path: the file, made if absent, readable by its owner only.

    Raises:
        JournalError: it is in use by another broker, no journal, damaged, or may not be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._add: dict[int, Message] = {}
        self._update: dict[int, Message] = {}
        self._remove: list[tuple[int]] = []
        try:
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._error("open", error) from error

    def _open(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")  # also a power failure loses nothing that was confirmed
        execute("BEGIN IMMEDIATE")
        found = int(execute("PRAGMA user_version").fetchone()[0])
        tables = int(execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if not found and not tables:
            execute(_SCHEMA)
            execute(f"PRAGMA user_version = {_FORMAT}")
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
        return JournalError(f"Cannot {verb} the journal {self.path}: {error}{hint}")

    def load(self) -> Iterator[Message]:
        """All messages, in the order of their arrival, delayed ones at the time they are due."""
        try:
            for row in self._connection.execute(_LOAD):
                number, id_, destination, headers, body, timestamp, priority, expires, due, redeliveries = row
                message = Message(number, id_, destination, orjson.loads(headers), body, timestamp)
                message.priority, message.expires, message.persistent = priority, expires, True
                message.due, message.redeliveries = due, redeliveries
                yield message
        except (sqlite3.Error, ValueError) as error:
            raise self._error("read", error) from error

    def add(self, message: Message) -> None:
        """Keep a message."""
        self._add[message.number] = message

    def update(self, message: Message) -> None:
        """Note when a message is due and how often it was delivered."""
        if message.number not in self._add:
            self._update[message.number] = message

    def remove(self, message: Message) -> None:
        """A message is done with."""
        self._update.pop(message.number, None)
        if self._add.pop(message.number, None) is None:
            self._remove.append((message.number,))

    @property
    def pending(self) -> bool:
        """Whether there are changes to take."""
        return bool(self._add or self._update or self._remove)

    def take(self) -> Batch:
        """The changes since the last call; they must be written in the order they were taken."""
        batch = Batch(
            [_row(message) for message in self._add.values()],
            [(message.due, message.redeliveries, number) for number, message in self._update.items()],
            self._remove,
        )
        self._add, self._update, self._remove = {}, {}, []
        return batch

    def write(self, batch: Batch) -> None:
        """Write changes so that they survive. All or nothing.

        Raises:
            JournalError: they could not be written (a full disk, say).
        """
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(_ADD, batch.add)
                self._connection.executemany(_UPDATE, batch.update)
                self._connection.executemany(_REMOVE, batch.remove)
        except sqlite3.Error as error:
            raise self._error("write", error) from error

    def close(self) -> None:
        """Close the file, without writing what is pending."""
        self._connection.close()


def _row(message: Message) -> tuple[Any, ...]:
    return (
        *(message.number, message.id, message.destination, orjson.dumps(message.headers), message.body),
        *(message.timestamp, message.priority, message.expires, message.due, message.redeliveries),
    )
