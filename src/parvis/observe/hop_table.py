"""Hops in the records: tables of hops, of their counts, and of what was started.

Counts are kept up as hops come in, so that the story of a recipe is told as quickly after a hundred thousand
hops as after ten. All functions that write are to be called in a transaction.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, Final, cast

import orjson

from parvis.observe.hop_tally import (
    EdgeKey,
    EdgeTally,
    Held,
    NodeTally,
    Tally,
    held_after,
    is_given_up,
    latest_of,
)
from parvis.observe.hops import (
    Hop,
    Report,
    Started,
    read_hops,
    sent_from_json,
    sent_to_json,
    started_from_json,
    started_to_bytes,
)
from parvis.observe.story import State, Story
from parvis.observe.storyteller import Evidence, tell
from parvis.recipe.envelope import MalformedMessage, as_object

_log = logging.getLogger("parvis.collector")

SCHEMA: Final = (
    """
CREATE TABLE hop_recipe (
    number INTEGER PRIMARY KEY AUTOINCREMENT, recipe_id TEXT NOT NULL UNIQUE, begun REAL NOT NULL,
    last REAL NOT NULL, recipes TEXT NOT NULL DEFAULT '', dcid TEXT NOT NULL DEFAULT '',
    user TEXT NOT NULL DEFAULT ''
)
""",
    "CREATE INDEX hop_recipe_last ON hop_recipe (last)",
    """
CREATE TABLE hop (
    number INTEGER PRIMARY KEY, recipe INTEGER NOT NULL, node INTEGER NOT NULL, queue TEXT NOT NULL,
    identity TEXT NOT NULL, result TEXT NOT NULL, service TEXT NOT NULL, host TEXT NOT NULL,
    sent_at REAL NOT NULL, begun REAL NOT NULL, seconds REAL NOT NULL, tries INTEGER NOT NULL,
    came_from INTEGER, sent TEXT NOT NULL, reason TEXT NOT NULL, trace TEXT NOT NULL,
    reinjected INTEGER NOT NULL, due REAL, given_up INTEGER NOT NULL
)
""",
    "CREATE UNIQUE INDEX hop_once ON hop (recipe, node, identity, tries, begun, result, host)",
    "CREATE INDEX hop_arrived ON hop (recipe, number)",
    "CREATE INDEX hop_begun ON hop (recipe, begun)",
    "CREATE INDEX hop_due ON hop (recipe, due) WHERE due IS NOT NULL",
    "CREATE INDEX hop_given_up ON hop (recipe) WHERE given_up",
    """
CREATE TABLE hop_node (
    recipe INTEGER NOT NULL, node INTEGER NOT NULL, queue TEXT NOT NULL, service TEXT NOT NULL,
    hops INTEGER NOT NULL, seen INTEGER NOT NULL, ended INTEGER NOT NULL, given_up INTEGER NOT NULL,
    dead INTEGER NOT NULL, again INTEGER NOT NULL, duplicates INTEGER NOT NULL, microseconds INTEGER NOT NULL,
    longest REAL NOT NULL, first REAL NOT NULL, last REAL NOT NULL, sent_on REAL NOT NULL,
    PRIMARY KEY (recipe, node)
) WITHOUT ROWID
""",
    """
CREATE TABLE hop_edge (
    recipe INTEGER NOT NULL, source INTEGER NOT NULL, target INTEGER NOT NULL, queue TEXT NOT NULL,
    kind TEXT NOT NULL, count INTEGER NOT NULL, first REAL NOT NULL, last REAL NOT NULL,
    PRIMARY KEY (recipe, source, target, queue, kind)
) WITHOUT ROWID
""",
    """
CREATE TABLE hop_started (
    recipe INTEGER NOT NULL, identity TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (recipe, identity)
) WITHOUT ROWID
""",
    "CREATE TABLE hop_queue (queue TEXT PRIMARY KEY) WITHOUT ROWID",
)

_FIELDS: Final = tuple(field.name for field in fields(Hop) if field.name != "recipe_id")
_HOP: Final = ", ".join(_FIELDS)
_ADD: Final = f"INSERT OR IGNORE INTO hop (recipe, {_HOP}, due, given_up) VALUES ({', '.join('?' * 18)})"  # noqa: S608 - no value in it
_HOPS: Final = f"SELECT {_HOP} FROM hop WHERE recipe = ?"  # noqa: S608
_SAVE_NODE: Final = f"INSERT OR REPLACE INTO hop_node VALUES ({', '.join('?' * 16)})"  # noqa: S608
_SAVE_EDGE: Final = f"INSERT OR REPLACE INTO hop_edge VALUES ({', '.join('?' * 8)})"  # noqa: S608
_OF_ONE: Final = ("hop_node", "hop_edge", "hop_started")
_PORTION: Final = 20_000
_MOST_FAILURES: Final = 200
_MOST_LOOKED_AT: Final = 2_000
_LONGEST_NAME: Final = 200
_EACH: Final = 2  # of the first, the last, the slowest


@dataclass(frozen=True, slots=True)
class RecipeLine:
    """A recipe in a list.

    Attributes:
        recipes: What is run: names, separated by commas.
        dcid: The data collection or processing job, as text; perhaps empty.
        user: On whose behalf; perhaps empty.
        story: How it stands.
    """

    recipes: str
    dcid: str
    user: str
    story: Story


def take(database: sqlite3.Connection, body: bytes) -> None:
    """Add what a message from the queue of hops says; what cannot be read or kept is logged and dropped."""
    try:
        report = read_hops(body)
    except MalformedMessage as error:
        _log.warning("%s", error)
        return
    database.execute("SAVEPOINT report")
    try:
        add(database, report)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        _log.warning("a report of hops cannot be kept: %s: %s", type(error).__name__, str(error)[:200])
        database.execute("ROLLBACK TO report")
    database.execute("RELEASE report")


def add(database: sqlite3.Connection, report: Report) -> None:
    """Add hops, and recipes that were started; what is known already changes nothing."""
    by_recipe: dict[str, list[Hop]] = {}
    for hop in report.hops:
        by_recipe.setdefault(hop.recipe_id, []).append(hop)
    for recipe_id, hops in by_recipe.items():
        begun, last = min(hop.begun for hop in hops), max(hop.ended for hop in hops)
        _add_hops(database, _recipe(database, recipe_id, begun, last), hops)
    for started in report.started:
        _add_started(database, started)


def find(database: sqlite3.Connection, prefix: str, most: int = 10) -> list[str]:
    """Return the recipe IDs that begin with `prefix`, at most `most`; only one if one is just that."""
    query = "SELECT recipe_id FROM hop_recipe WHERE recipe_id >= ? AND recipe_id < ? ORDER BY 1 LIMIT ?"
    found = [str(row[0]) for row in database.execute(query, (prefix, f"{prefix}\U0010ffff", most))]
    return [prefix] if prefix in found else found


def story(database: sqlite3.Connection, recipe_id: str, now: float, stuck_after: float) -> Story:
    """Tell the story of a recipe; one that nobody has reported anything of has one, too.

    Args:
        database: The records.
        recipe_id: The recipe ID.
        now: Seconds since 1970.
        stuck_after: Seconds without a hop after which what is outstanding is stuck.
    """
    number = _number(database, recipe_id)
    if number is None:
        return tell(Evidence(recipe_id, Tally()), now, stuck_after)
    return _story(database, number, recipe_id, now, stuck_after, queues(database))


def recipes(
    database: sqlite3.Connection,
    now: float,
    stuck_after: float,
    *,
    limit: int = 100,
    states: Iterable[State] = (),
    user: str = "",
    since: float = 0,
) -> list[RecipeLine]:
    """Return recipes, those first in which something happened last.

    Args:
        database: The records.
        now, stuck_after: As for `story`.
        limit: How many at most.
        states: Only those that stand so; empty for all.
        user: Only those of whom this is part of the name.
        since: Only those in which something has happened since then, in seconds since 1970.
    """
    reporting = queues(database)
    wanted = set(states)
    rows = database.execute(
        "SELECT number, recipe_id, recipes, dcid, user FROM hop_recipe WHERE last >= ? AND instr(user, ?)"
        " ORDER BY last DESC, number DESC LIMIT ?",
        (since, user, _MOST_LOOKED_AT if wanted else limit),
    ).fetchall()
    lines: list[RecipeLine] = []
    for number, recipe_id, names, dcid, owner in rows:
        told = _story(database, number, recipe_id, now, stuck_after, reporting)
        if not wanted or told.state in wanted:
            lines.append(RecipeLine(names, dcid, owner, told))
        if len(lines) == limit:
            break
    return lines


def started(database: sqlite3.Connection, recipe_id: str) -> list[Started]:
    """Return what a recipe was started with, each time."""
    number = _number(database, recipe_id)
    return [] if number is None else _started(database, number)


def timeline(database: sqlite3.Connection, recipe_id: str, most: int | None = None) -> list[Hop]:
    """Return hops of a recipe in the order of time.

    Args:
        database: The records.
        recipe_id: The recipe ID.
        most: If there are more, only some of each node: the first, the last and the slowest few, and those
            that were not done; None for all of them, however many there are.
    """
    number = _number(database, recipe_id)
    if number is None:
        return []
    nodes = database.execute("SELECT node, hops FROM hop_node WHERE recipe = ?", (number,)).fetchall()
    if most is None or sum(hops for _, hops in nodes) <= most:
        rows = database.execute(f"{_HOPS} ORDER BY begun", (number,))
        return [_hop(recipe_id, row) for row in rows]
    kept: dict[Hop, None] = {}
    for node, _ in nodes:
        for order in ("begun", "begun DESC", "seconds DESC"):
            query = f"{_HOPS} AND node = ? ORDER BY {order} LIMIT ?"
            kept |= dict.fromkeys(
                _hop(recipe_id, row) for row in database.execute(query, (number, node, _EACH))
            )
        query = f"{_HOPS} AND node = ? AND result NOT IN ('done', 'duplicate') ORDER BY begun LIMIT ?"
        kept |= dict.fromkeys(_hop(recipe_id, row) for row in database.execute(query, (number, node, most)))
    return sorted(kept, key=lambda hop: (hop.begun, hop.node, hop.identity))


def arrived(
    database: sqlite3.Connection, recipe_id: str, after: int | None, most: int = 1000
) -> tuple[list[Hop], int]:
    """Return hops of a recipe in the order of their arrival, and what to ask for the next ones.

    Args:
        database: The records.
        recipe_id: The recipe ID.
        after: What the last call returned; 0 for the first of all, None for the last that there are now.
        most: How many at most.
    """
    recipe = _number(database, recipe_id)
    if recipe is None:
        return [], after or 0
    order = "DESC" if after is None else ""
    query = f"SELECT number, {_HOP} FROM hop WHERE recipe = ? AND number > ? ORDER BY number {order} LIMIT ?"  # noqa: S608
    rows = sorted(database.execute(query, (recipe, after or 0, most)))
    return [_hop(recipe_id, row[1:]) for row in rows], max([after or 0, *(row[0] for row in rows)])


def oldest(database: sqlite3.Connection) -> float | None:
    """Return when something last happened in the recipe in which nothing has happened for longest."""
    (last,) = database.execute("SELECT min(last) FROM hop_recipe").fetchone()
    return last


def remove_oldest(database: sqlite3.Connection) -> None:
    """Throw away that recipe or, if it has very many hops, a part of it."""
    row = database.execute("SELECT number FROM hop_recipe ORDER BY last LIMIT 1").fetchone()
    if row is None:
        return
    portion = "SELECT number FROM hop WHERE recipe = ? LIMIT ?"
    removed = database.execute(f"DELETE FROM hop WHERE number IN ({portion})", (row[0], _PORTION)).rowcount  # noqa: S608
    if removed < _PORTION:
        for table in _OF_ONE:
            database.execute(f"DELETE FROM {table} WHERE recipe = ?", row)  # noqa: S608 - a name of ours
        database.execute("DELETE FROM hop_recipe WHERE number = ?", row)


def _number(database: sqlite3.Connection, recipe_id: str) -> int | None:
    row = database.execute("SELECT number FROM hop_recipe WHERE recipe_id = ?", (recipe_id,)).fetchone()
    return None if row is None else int(row[0])


def _recipe(database: sqlite3.Connection, recipe_id: str, begun: float, last: float) -> int:
    (number,) = database.execute(
        "INSERT INTO hop_recipe (recipe_id, begun, last) VALUES (?, ?, ?) ON CONFLICT (recipe_id) DO UPDATE"
        " SET begun = min(begun, excluded.begun), last = max(last, excluded.last) RETURNING number",
        (recipe_id, begun, last),
    ).fetchone()
    return int(number)


def _add_hops(database: sqlite3.Connection, recipe: int, hops: Sequence[Hop]) -> None:
    tally = _tally(database, recipe)
    nodes: set[int] = set()
    edges: set[EdgeKey] = set()
    for hop in hops:
        cursor = database.execute(_ADD, (recipe, *_row(hop)))
        if cursor.rowcount == 0:
            continue
        query = f"{_HOPS} AND node = ? AND identity = ? AND number != ?"
        others = database.execute(query, (recipe, hop.node, hop.identity, cursor.lastrowid)).fetchall()
        edges |= tally.add(hop, [_hop(hop.recipe_id, other) for other in others])
        nodes.add(hop.node)
    if not nodes:
        return
    database.executemany(_SAVE_NODE, [(recipe, node, *astuple(tally.nodes[node])) for node in nodes])
    database.executemany(_SAVE_EDGE, [(recipe, *key, *astuple(tally.edges[key])) for key in edges])
    add_queues(database, {hop.queue for hop in hops})


def add_queues(database: sqlite3.Connection, names: Iterable[str]) -> None:
    """Add queues whose services report what they handle."""
    database.executemany("INSERT OR IGNORE INTO hop_queue VALUES (?)", [(name,) for name in names])


def _add_started(database: sqlite3.Connection, started: Started) -> None:
    number = _recipe(database, started.recipe_id, started.at, started.at)
    content = started_to_bytes(started)
    database.execute(
        "INSERT OR IGNORE INTO hop_started VALUES (?, ?, ?)", (number, started.identity, content)
    )
    names, dcid = _subject(started)
    database.execute(
        "UPDATE hop_recipe SET recipes = ?, dcid = ?, user = ? WHERE number = ?",
        (names, dcid, started.user, number),
    )


def _subject(started: Started) -> tuple[str, str]:
    message = as_object(started.message)
    names: Any = message.get("recipes")
    named = ", ".join(map(str, cast("list[Any]", names))) if isinstance(names, list) else ""
    known = as_object(message.get("parameters"))
    subject = known.get("ispyb_dcid", known.get("ispyb_process", ""))
    return (named or "a custom recipe")[:_LONGEST_NAME], str(subject)[:_LONGEST_NAME]


def _story(
    database: sqlite3.Connection,
    recipe: int,
    recipe_id: str,
    now: float,
    stuck_after: float,
    reporting: Mapping[str, None],
) -> Story:
    tally = _tally(database, recipe)
    evidence = Evidence(
        recipe_id,
        tally,
        started=_started(database, recipe),
        held=list(_held(database, recipe, recipe_id, now)),
        failures=_failures(database, recipe, recipe_id) if _has_failures(tally) else (),
    )
    return tell(evidence, now, stuck_after, reporting)


def _has_failures(tally: Tally) -> bool:
    return any(node.given_up for node in tally.nodes.values())


def _tally(database: sqlite3.Connection, recipe: int) -> Tally:
    names = ", ".join(field.name for field in fields(NodeTally))
    nodes = database.execute(f"SELECT node, {names} FROM hop_node WHERE recipe = ?", (recipe,))  # noqa: S608
    edges = database.execute(
        "SELECT source, target, queue, kind, count, first, last FROM hop_edge WHERE recipe = ?", (recipe,)
    )
    return Tally(
        {row[0]: NodeTally(*row[1:]) for row in nodes},
        {EdgeKey(*row[:4]): EdgeTally(*row[4:]) for row in edges},
    )


def _started(database: sqlite3.Connection, recipe: int) -> list[Started]:
    rows = database.execute("SELECT content FROM hop_started WHERE recipe = ?", (recipe,))
    return [started_from_json(orjson.loads(row[0])) for row in rows]


def _held(database: sqlite3.Connection, recipe: int, recipe_id: str, now: float) -> Iterator[Held]:
    for row in database.execute(f"{_HOPS} AND due > ?", (recipe, now)):
        yield from held_after(_hop(recipe_id, row), now)


def _failures(database: sqlite3.Connection, recipe: int, recipe_id: str) -> list[Hop]:
    """The last handling of what was given up, the first of them."""
    query = f"{_HOPS} AND given_up ORDER BY begun LIMIT ?"
    failures: dict[Hop, None] = {}
    for row in database.execute(query, (recipe, _MOST_FAILURES)).fetchall():
        failed = _hop(recipe_id, row)
        query = f"{_HOPS} AND node = ? AND identity = ?"
        others = database.execute(query, (recipe, failed.node, failed.identity))
        (last,) = latest_of(_hop(recipe_id, other) for other in others)
        if is_given_up(last):
            failures[last] = None
    return list(failures)


def queues(database: sqlite3.Connection) -> dict[str, None]:
    """Return the queues whose services have ever reported anything."""
    return dict.fromkeys(str(row[0]) for row in database.execute("SELECT queue FROM hop_queue"))


def _row(hop: Hop) -> tuple[Any, ...]:
    delays = [sent.delay for sent in hop.sent if sent.delay > 0]
    return (
        hop.node,
        hop.queue,
        hop.identity,
        hop.result,
        hop.service,
        hop.host,
        hop.sent_at,
        hop.begun,
        hop.seconds,
        hop.tries,
        hop.came_from,
        orjson.dumps(sent_to_json(hop.sent)).decode(),
        hop.reason,
        hop.trace,
        hop.reinjected,
        hop.ended + max(delays) if delays else None,
        is_given_up(hop),
    )


def _hop(recipe_id: str, row: Sequence[Any]) -> Hop:
    *before, sent, reason, trace, reinjected = row
    values: list[Any] = [*before, sent_from_json(orjson.loads(sent)), reason, trace, reinjected]
    return Hop(recipe_id, **dict(zip(_FIELDS, values, strict=True)))
