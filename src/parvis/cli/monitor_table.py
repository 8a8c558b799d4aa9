"""The cards of services as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from parvis.observe.cards import LATE, Card, short_host

_COLOURS = {"processing": "green", "timer event": "green", "error": "bold red", "starting": "yellow"}


# Heading, least and greatest width.
_COLUMNS = (
    ("STATE", 10, 24),
    ("SERVICE", 14, 24),
    ("HOST", 10, 26),
    ("TAG", 4, 10),
    ("BUSY", 4, 4),
    ("MEM", 6, 9),
    ("FLOW", 8, 30),
    ("VERSION", 12, 16),
)
_OPTIONAL = {"TAG", "FLOW"}
_FIGURES = {"BUSY", "MEM"}


def card_table(cards: Sequence[Card], lines: int | None) -> Table:
    """A row for each instance, by service; if there are more than `lines`, one for each service."""
    rows = list(_rows(cards) if lines is None or len(cards) <= lines else _group_rows(cards))
    if lines is not None and len(rows) > lines:
        left_out = Text(f"... {len(rows) - lines + 1} more services")
        rows = [*rows[: lines - 1], (Text(""), left_out, *[Text("")] * (len(_COLUMNS) - 2))]
    # What nobody has anything to say for takes no room.
    shown = [
        number
        for number, (name, _, _) in enumerate(_COLUMNS)
        if name not in _OPTIONAL or any(row[number] for row in rows)
    ]
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for name, least, most in (_COLUMNS[number] for number in shown):
        table.add_column(
            name,
            justify="right" if name in _FIGURES else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=least,
            max_width=most,
        )
    for row in rows:
        table.add_row(*(row[number] for number in shown))
    return table


def _rows(cards: Iterable[Card]) -> Iterable[tuple[Text, ...]]:
    before = None
    for card in cards:
        yield (
            _state(card),
            Text("" if card.service == before else card.service or "-"),
            _host(card),
            Text(card.tag),
            _percent(card.utilisation),
            _megabytes(card.memory),
            _flow([card]),
            Text(card.version),
        )
        before = card.service


def _group_rows(cards: Sequence[Card]) -> Iterable[tuple[Text, ...]]:
    for service, group in groupby(cards, key=lambda card: card.service):
        members = list(group)
        states = sorted((card.state for card in members), key=lambda state: (state == "idle", state))
        busy = [card.utilisation for card in members if card.utilisation is not None]
        memory = [card.memory for card in members if card.memory is not None]
        yield (
            Text(
                ", ".join(f"{len(list(same))} {state}" for state, same in groupby(states)),
                style=_COLOURS["error"] if "error" in states else "",
            ),
            Text(service or "-"),
            _host(members[0]) if len(members) == 1 else Text(f"{len(members)} instances"),
            Text(", ".join(sorted({card.tag for card in members} - {""}))),
            _percent(sum(busy) / len(busy) if busy else None),
            _megabytes(sum(memory) if memory else None),
            _flow(members),
            Text(", ".join(sorted({card.version for card in members}))),
        )


def _host(card: Card) -> Text:
    return Text(short_host(card.host))


def _flow(cards: Sequence[Card]) -> Text:
    names = sorted({name for card in cards for name in card.flow})
    sums = {name: sum(card.flow.get(name, 0) for card in cards) for name in names}
    return Text(" ".join(f"{name}:{figure:g}" for name, figure in sums.items() if figure))


def _state(card: Card) -> Text:
    age = card.age()
    if age > LATE:
        return Text(f"last seen {age:.0f} s ago", style="bold red" if age > 60 else "red")
    return Text(card.state, style=_COLOURS.get(card.state, ""))


def _percent(share: float | None) -> Text:
    return Text("" if share is None else f"{share:.0%}")


def _megabytes(figure: float | None) -> Text:
    return Text("" if figure is None else f"{figure:.0f} MB")
