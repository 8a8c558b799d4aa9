"""Log records on shelves: tables that are filled one after another, and thrown away whole.

The number of a row is its time in microseconds, so that table and index are both in the order of time. The
full-text index holds beside the words all that is asked for by name: sources, recipe, and for each level
those that are less urgent. So one merge of sorted lists answers any question, and ends when enough is found.

Rows are not removed one by one: a full-text index grows by that, until it is written anew.
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, cast

import orjson

from parvis.observe.log_record import DEBUG, LogQuery, LogRecord

SCHEMA: Final = (
    """
CREATE TABLE shelf (
    number INTEGER PRIMARY KEY, begun REAL NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
    arrival INTEGER NOT NULL, bytes INTEGER NOT NULL
)
""",
)

_SHELF: Final = (
    """
CREATE TABLE log_{0} (
    id INTEGER PRIMARY KEY, arrival INTEGER NOT NULL, level INTEGER NOT NULL, facility TEXT NOT NULL,
    service TEXT NOT NULL, host TEXT NOT NULL, recipe TEXT NOT NULL, message TEXT NOT NULL,
    full TEXT NOT NULL, fields BLOB NOT NULL
)
""",
    "CREATE INDEX log_arrival_{0} ON log_{0} (arrival)",
    """
CREATE VIRTUAL TABLE log_index_{0} USING fts5 (
    text, source, recipe, level, content = '', tokenize = 'unicode61'
)
""",
)
_EMPTY: Final = ("DROP TABLE log_index_{0}", "DROP TABLE log_{0}", "DELETE FROM shelf WHERE number = {0}")

_COLUMNS: Final = (
    "id",
    "arrival",
    "level",
    "facility",
    "service",
    "host",
    "recipe",
    "message",
    "full",
    "fields",
)
_ADD: Final = f"INSERT INTO log_{{0}} VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - no value in it
_INDEX: Final = "INSERT INTO log_index_{0} (rowid, text, source, recipe, level) VALUES (?, ?, ?, ?, ?)"
_NOTE: Final = """
INSERT INTO shelf VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET low = min(low, excluded.low),
    high = max(high, excluded.high), arrival = excluded.arrival, bytes = bytes + excluded.bytes
"""
_SHELVES: Final = "SELECT number, begun, low, high, arrival, bytes FROM shelf ORDER BY number"

_SECOND: Final = 1_000_000
_MOST_AHEAD: Final = 600.0
_LATEST: Final = 2**62
_NEIGHBOURS: Final = 32
_ROW: Final = 100  # bytes of a row beside its texts


@dataclass(frozen=True, slots=True)
class Shelf:
    """What is known of a shelf.

    Attributes:
        number: Its number.
        begun: When it was begun.
        low, high: The least and the greatest row.
        arrival: The row of the record that arrived last.
        bytes: Bytes of text.
    """

    number: int
    begun: float
    low: int
    high: int
    arrival: int
    bytes: int

    @property
    def newest(self) -> float:
        """Time of its newest record."""
        return self.high / _SECOND


def shelves(database: sqlite3.Connection) -> list[Shelf]:
    """Return the shelves, oldest first."""
    return [Shelf(*row) for row in database.execute(_SHELVES)]


def remove_shelf(database: sqlite3.Connection, shelf: Shelf) -> None:
    """Throw a shelf away with all that is on it. To be called in a transaction."""
    for statement in _EMPTY:
        database.execute(statement.format(shelf.number))


def add(
    database: sqlite3.Connection,
    records: Sequence[LogRecord],
    *,
    keep: float,
    most_bytes: int,
    most_seconds: float,
) -> None:
    """Add records, in the order of their arrival. To be called in a transaction.

    Args:
        database: The connection.
        records: The records. One from before `keep` seconds ago, or from the future, gets the present time:
            nobody could find it where it says to be.
        keep: Seconds that records are kept.
        most_bytes: Bytes of text on a shelf, from which on the next is taken.
        most_seconds: Age of a shelf, from which on the next is taken.
    """
    if not records:
        return
    now = time.time()
    known = shelves(database)
    last = known[-1] if known else Shelf(0, 0.0, 0, 0, 0, most_bytes)
    begun, number = last.begun, last.number
    if last.bytes >= most_bytes or not last.begun <= now < last.begun + most_seconds:
        begun, number = now, last.number + 1
        for statement in _SHELF:
            database.execute(statement.format(number))
    rows: dict[int, tuple[Any, ...]] = {}
    free = _FreeIds(database, number, rows, now)
    for arrival, record in enumerate(records, last.arrival + 1):
        is_credible = now - keep <= record.time <= now + _MOST_AHEAD
        id_ = free.at(record.time if is_credible else now)
        rows[id_] = (id_, arrival, *_row(record))
    # The index takes rows faster in order.
    ordered = [rows[id_] for id_ in sorted(rows)]
    database.executemany(_ADD.format(number), ordered)
    database.executemany(_INDEX.format(number), map(_indexed, ordered))
    size = sum(_ROW + len(row[7]) + len(row[8]) + len(row[9]) for row in ordered)
    arrived = last.arrival + len(records)
    database.execute(_NOTE, (number, begun, ordered[0][0], ordered[-1][0], arrived, size))


class _FreeIds:
    """Finds each row a number: its time, or one next to it."""

    def __init__(
        self, database: sqlite3.Connection, number: int, taken: dict[int, tuple[Any, ...]], now: float
    ) -> None:
        self._database = database
        self._exists = f"SELECT 1 FROM log_{number} WHERE id = ?"  # noqa: S608 - a number of ours
        self._taken = taken
        self._next = int(now * _SECOND)

    def at(self, moment: float) -> int:
        wanted = int(moment * _SECOND)
        for id_ in range(wanted, wanted + _NEIGHBOURS):
            if self._is_free(id_):
                return id_
        # Many say that they were made at the very same moment: these were made now.
        while not self._is_free(self._next):
            self._next += 1
        return self._next

    def _is_free(self, id_: int) -> bool:
        return id_ not in self._taken and self._database.execute(self._exists, (id_,)).fetchone() is None


def search(database: sqlite3.Connection, query: LogQuery) -> list[LogRecord]:
    """Return the records that answer to a query, in its order. To be called in a transaction."""
    if query.after is not None:
        key, reverse = itemgetter(1), False
    else:
        key, reverse = itemgetter(0), query.order == "newest"
    found = [_on_shelf(database, shelf, query) for shelf in shelves(database)]
    rows = itertools.islice(heapq.merge(*found, key=key, reverse=reverse), query.limit)
    return [_record(row) for row in rows]


def last_arrival(database: sqlite3.Connection) -> int:
    """Return the row of the record that arrived last; 0 if there is none."""
    return max((shelf.arrival for shelf in shelves(database)), default=0)


def _on_shelf(database: sqlite3.Connection, shelf: Shelf, query: LogQuery) -> Iterator[tuple[Any, ...]]:
    first = 0
    if query.after is not None:
        if shelf.arrival <= query.after:
            return
        # The search need not look before the first of those that arrived later.
        later = f"SELECT min(id) FROM log_{shelf.number} WHERE arrival > ?"  # noqa: S608 - a number of ours
        first = database.execute(later, (query.after,)).fetchone()[0]
    statement, values = selection(shelf.number, query, first)
    if values[-3] <= shelf.high and values[-2] >= shelf.low:
        yield from database.execute(statement, values)


def selection(number: int, query: LogQuery, first: int = 0) -> tuple[str, list[Any]]:
    """Return the statement that answers a query on a shelf, and its values, which end with the least row to
    look at, the greatest, and the limit.

    Args:
        number: The shelf.
        query: The query.
        first: The least row to look at, whatever the query says.
    """
    low = max(first, 0 if query.since is None else _row_at(query.since))
    high = _LATEST if query.until is None else _row_at(query.until)
    values: list[Any] = []
    match = _match(query)
    if match:
        # The order of a CROSS JOIN is as written: the index leads.
        where = f"log_index_{number} AS i CROSS JOIN log_{number} AS log ON log.id = i.rowid"
        where, key = f"{where} WHERE log_index_{number} MATCH ?", "i.rowid"
        values.append(match)
    else:
        where, key = f"log_{number} AS log WHERE true", "log.id"
    order = f"{key} {'DESC' if query.order == 'newest' else 'ASC'}"
    if query.after is not None:
        where, order = f"{where} AND log.arrival > ?", "log.arrival"
        values.append(query.after)
    columns = ", ".join(f"log.{name}" for name in _COLUMNS)
    text = f"SELECT {columns} FROM {where} AND {key} BETWEEN ? AND ? ORDER BY {order} LIMIT ?"  # noqa: S608 - as above
    return text, [*values, low, high, query.limit]


def _row_at(moment: float) -> int:
    return int(min(max(moment, 0.0) * _SECOND, _LATEST))


def _match(query: LogQuery) -> str:
    """The question to the full-text index; empty if it need not be asked."""
    parts: list[str] = []
    if query.recipe is not None:
        parts.append(f"recipe : {_phrase(query.recipe)} *")
    if query.sources:
        parts.append(f"source : ({' OR '.join(map(_phrase, query.sources))})")
    if query.level is not None and query.level < DEBUG:
        parts.append(f"level : {query.level}")
    if query.text is not None:
        text = query.text.rstrip()
        star = " *" if text.endswith("*") else ""
        parts.append(f"{{text recipe}} : {_phrase(text)}{star}")
    return " AND ".join(f"({part})" for part in parts)


def _phrase(text: str) -> str:
    return '"{}"'.format(_storable(text).replace("\0", " ").replace('"', '""'))


def _row(record: LogRecord) -> tuple[Any, ...]:
    names = (record.facility, record.service, record.host, record.recipe_id, record.message, record.full)
    return (record.level, *map(_storable, names), orjson.dumps(record.fields, option=orjson.OPT_NON_STR_KEYS))


def _storable(text: str) -> str:
    """The text without halves of characters, which cannot be stored."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _indexed(row: Sequence[Any]) -> tuple[Any, ...]:
    """What the index is told of a row."""
    id_, _, level, facility, service, _, recipe, message, full, _ = row
    text = full if full.startswith(message) else f"{message}\n{full}"
    levels = " ".join(map(str, range(level, DEBUG)))
    return id_, text, f"{facility}\n{service}", recipe, levels


def _record(row: Sequence[Any]) -> LogRecord:
    id_, arrival, level, facility, service, host, recipe, message, full, fields = row
    more = cast("dict[str, Any]", orjson.loads(fields))
    return LogRecord(id_ / _SECOND, level, facility, message, full, host, service, recipe, more, arrival)
