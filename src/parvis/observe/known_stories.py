"""The stories of recipes as the records know them: as of now or, where nobody takes reports, of then.

Else a recipe would seem to be stuck for no other reason than that nobody was told how it went on.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from typing import Final

from parvis.observe import hop_table
from parvis.observe.hop_table import RecipeLine
from parvis.observe.records import Records
from parvis.observe.story import Story
from parvis.observe.wording import moment_text

_ENDED: Final = ("finished", "failed")
_LATE: Final = 2.0  # seconds; less is of no matter to anybody


def story(records: Records, database: sqlite3.Connection, recipe_id: str, stuck_after: float) -> Story:
    """Tell the story of a recipe; one that nobody has reported anything of has one, too.

    Args:
        records: Where it is.
        database: What `records.reading` gave.
        recipe_id: The recipe ID.
        stuck_after: Seconds without a hop after which what is outstanding is stuck.
    """
    return _dated(hop_table.story(database, recipe_id, records.known_until(), stuck_after), records)


def recipes(
    records: Records,
    database: sqlite3.Connection,
    stuck_after: float,
    *,
    limit: int,
    since: float = 0,
) -> list[RecipeLine]:
    """Return recipes, as `hop_table.recipes` does; other arguments as of `story`."""
    lines = hop_table.recipes(database, records.known_until(), stuck_after, limit=limit, since=since)
    return [replace(line, story=_dated(line.story, records)) for line in lines]


def staleness(records: Records) -> str:
    """Return a sentence for people if what the records tell is not of now, else nothing."""
    until = records.known_until()
    if time.time() - until < _LATE:
        return ""
    return (
        f"This is how it stood at {moment_text(until)}; since then nobody takes reports (`parvis collect`)."
    )


def _dated(told: Story, records: Records) -> Story:
    if told.state in _ENDED or not (note := staleness(records)):
        return told
    return replace(told, notes=[note, *told.notes])
