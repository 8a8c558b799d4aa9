"""What joins have got so far, on disk: it outlives the process that holds it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import orjson

from parvis.recipe.envelope import dump_json
from parvis.sqlite import writing
from parvis.transport.base import LONGEST_DELAY

# Longer than a join can wait: by then nothing comes any more that would have to be told from something new.
_FORGET_AFTER = 2 * LONGEST_DELAY
_KNOW_FOR = 86400.0  # seconds for which the messages of a join that has ended are known, to tell copies
_CLEAN_EVERY = 3600.0
_BUSY = 30.0  # seconds to wait for another process that writes
_VERSION = 1

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS joins (
    id INTEGER PRIMARY KEY, recipe TEXT NOT NULL, node INTEGER NOT NULL, opened REAL NOT NULL,
    opener TEXT NOT NULL, counts TEXT NOT NULL, size INTEGER NOT NULL,
    closer TEXT, delivery TEXT, closed REAL, confirmed INTEGER NOT NULL DEFAULT 0, UNIQUE (recipe, node)
);
CREATE TABLE IF NOT EXISTS arrivals (
    id INTEGER PRIMARY KEY, joined INTEGER NOT NULL REFERENCES joins (id) ON DELETE CASCADE,
    identity TEXT NOT NULL, source INTEGER NOT NULL, payload BLOB, environment BLOB, UNIQUE (joined, identity)
);
PRAGMA user_version = {_VERSION};
COMMIT;
"""


class TooMuch(Exception):
    """A join would hold more than it may."""


class JoinState:
    """The joins that wait, and for a time those that have ended, in an SQLite file.

    Args:
        path: The file; made if it is not there.

    Raises:
        OSError, sqlite3.Error: It cannot be used.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        # What is acknowledged to the broker must be on disk, even if the power fails.
        self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        self._database.execute("PRAGMA foreign_keys = ON")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"{path} was written by another version of Parvis")
        self._database.executescript(_SCHEMA)
        self._cleaned = -_CLEAN_EVERY

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextlib.contextmanager
    def join(self, recipe: str, node: int) -> Generator[OneJoin]:
        """Look at one join and change it, in one transaction: all or, if something is raised, nothing."""
        with writing(self._database):
            self._clean()
            yield OneJoin(self._database, recipe, node)

    def _clean(self) -> None:
        """Now and then let go of what is old."""
        if time.monotonic() - self._cleaned < _CLEAN_EVERY:
            return
        now, self._cleaned = time.time(), time.monotonic()
        self._database.execute("DELETE FROM joins WHERE opened < ?", (now - _FORGET_AFTER,))
        self._database.execute(
            "DELETE FROM arrivals WHERE joined IN (SELECT id FROM joins WHERE confirmed AND closed < ?)",
            (now - _KNOW_FOR,),
        )


class OneJoin:
    """One join: a node of one running recipe.

    Attributes:
        counts: How many messages have come from each node.
        opener: Identity of the first message; None if none has come.
        closer: Identity of the message with which it ended, or None if it still waits.
        delivery: The broker's identifier of that message, as it was delivered then.
        closed: When it ended, in seconds since 1970.
        is_confirmed: What was sent when it ended has left for certain.
    """

    def __init__(self, database: sqlite3.Connection, recipe: str, node: int) -> None:
        self._database = database
        self._key = (recipe, node)
        self._id: int | None = None
        self._size = 0
        self.counts: dict[int, int] = {}
        self.opener: str | None = None
        self.closer: str | None = None
        self.delivery: str | None = None
        self.closed = 0.0
        self.is_confirmed = False
        row = database.execute(
            "SELECT id, opener, counts, size, closer, delivery, closed, confirmed FROM joins"
            " WHERE recipe = ? AND node = ?",
            self._key,
        ).fetchone()
        if row is not None:
            self._id, self.opener, counts, self._size = row[:4]
            self.closer, self.delivery, self.closed, self.is_confirmed = *row[4:7], bool(row[7])
            self.counts = {int(source): count for source, count in orjson.loads(counts).items()}

    def knows(self, identity: str) -> bool:
        """Whether a message has been added before."""
        found = self._database.execute(
            "SELECT 1 FROM arrivals WHERE joined = ? AND identity = ?", (self._id, identity)
        ).fetchone()
        return found is not None

    def add(self, identity: str, source: int, payload: Any, environment: Any, most: int) -> None:
        """Add a message that has not been added before.

        Args:
            identity: Its identity.
            source: The node that it came from.
            payload: Its payload.
            environment: Its recipe environment.
            most: Bytes that the join may hold.

        Raises:
            TooMuch: It would hold more than that.
        """
        content, surroundings = dump_json(payload), dump_json(environment)
        self._size += len(content) + len(surroundings)
        if self._size > most:
            raise TooMuch
        if self._id is None:
            self._open(identity)
        self._database.execute(
            "INSERT INTO arrivals (joined, identity, source, payload, environment) VALUES (?, ?, ?, ?, ?)",
            (self._id, identity, source, content, surroundings),
        )
        self.counts[source] = self.counts.get(source, 0) + 1
        counts = dump_json(self.counts).decode()
        self._database.execute(
            "UPDATE joins SET counts = ?, size = ? WHERE id = ?", (counts, self._size, self._id)
        )

    def arrivals(self) -> Iterator[tuple[int, Any, dict[str, Any]]]:
        """Yield node, payload and recipe environment of each message, by node and in order of arrival."""
        rows = self._database.execute(
            "SELECT source, payload, environment FROM arrivals WHERE joined = ? ORDER BY source, id",
            (self._id,),
        )
        for source, payload, environment in rows:
            yield source, orjson.loads(payload), orjson.loads(environment)

    def end(self, identity: str, delivery: str) -> None:
        """Note with which message it ends."""
        self.closer, self.delivery = identity, delivery
        self._database.execute(
            "UPDATE joins SET closer = ?, delivery = ?, closed = ? WHERE id = ?",
            (identity, delivery, time.time(), self._id),
        )

    def confirm(self) -> None:
        """Note, if it has ended, that what was sent then has left; let go of what is not needed any more."""
        if self.closer is None:
            return
        self._database.execute("UPDATE joins SET confirmed = 1 WHERE id = ?", (self._id,))
        self._database.execute(
            "UPDATE arrivals SET payload = NULL, environment = NULL WHERE joined = ?", (self._id,)
        )

    def _open(self, identity: str) -> None:
        cursor = self._database.execute(
            "INSERT INTO joins (recipe, node, opened, opener, counts, size) VALUES (?, ?, ?, ?, '{}', 0)",
            (*self._key, time.time(), identity),
        )
        self._id, self.opener = cursor.lastrowid, identity
