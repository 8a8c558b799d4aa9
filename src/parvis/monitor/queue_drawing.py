"""How queues, and messages in them, are drawn as lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from parvis.monitor.look import BAD, CHOSEN, DIM, GOOD, NOTE, PLAIN, STRONG, WARN, fitted, trend
from parvis.observe.harmless import harmless
from parvis.observe.message_text import summary
from parvis.observe.queue_figures import PeekedMessage, QueueTraffic
from parvis.observe.wording import short_age, size_text

_NAME: Final = 60
_OLD: Final = 3600.0


def count_text(count: float | None) -> str:
    """A count in five cells at most: `12345`, `123k`, `1.2M`; `?` where the broker does not tell."""
    if count is None:
        return "?"
    if count < 100_000:
        return f"{count:.0f}"
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if count >= size:
            return f"{count / size:.1f}{unit}" if count < 10 * size else f"{count / size:.0f}{unit}"
    return f"{count:.0f}"


def rate_text(rate: float | None) -> str:
    """Messages a second; nothing for none."""
    if not rate:
        return ""
    return f"{rate:.1f}" if rate < 100 else count_text(rate)


@dataclass(frozen=True, slots=True)
class Row:
    """A queue or topic in a list.

    Attributes:
        traffic: Its figures.
        oldest: Age of its oldest message, in s, if that is known.
    """

    traffic: QueueTraffic
    oldest: float | None

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.traffic.figures.kind, self.traffic.figures.absolute


def _held(row: Row, _: int) -> tuple[str, Style]:
    figures = row.traffic.figures
    bad = figures.dead_letters and figures.held
    return count_text(figures.held) if figures.kind == "queue" else "", BAD if bad else NOTE


def _graph(row: Row, width: int) -> tuple[str, Style]:
    return trend([float(one) for one in row.traffic.trend], width), NOTE


def _in_flight(row: Row, _: int) -> tuple[str, Style]:
    return _or_nothing(row.traffic.figures.in_flight), WARN


def _clients(row: Row, _: int) -> tuple[str, Style]:
    figures = row.traffic.figures
    idle = figures.held and figures.clients == 0 and not figures.dead_letters
    return ("none", BAD) if idle else (_or_nothing(figures.clients), WARN)


def _oldest(row: Row, _: int) -> tuple[str, Style]:
    if not row.traffic.figures.held or row.oldest is None:
        return "", DIM
    return short_age(row.oldest), WARN if row.oldest >= _OLD else PLAIN


def _or_nothing(count: int | None) -> str:
    return "" if count == 0 else count_text(count)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head, its width, and what stands in it."""

    head: str
    width: int
    content: Callable[[Row, int], tuple[str, Style]]


_COLUMNS: Final = (
    Column("HELD", 5, _held),
    Column("TREND", 8, _graph),
    Column("FLIGHT", 6, _in_flight),
    Column("CLNT", 4, _clients),
    Column("IN", 5, lambda row, _: (_or_nothing(row.traffic.figures.enqueued), DIM)),
    Column("OUT", 5, lambda row, _: (_or_nothing(row.traffic.figures.dequeued), DIM)),
    Column("IN/S", 5, lambda row, _: (rate_text(row.traffic.rate_in), GOOD)),
    Column("OUT/S", 5, lambda row, _: (rate_text(row.traffic.rate_out), GOOD)),
    Column("OLDEST", 6, _oldest),
)


def columns_for(width: int) -> tuple[int, Sequence[Column]]:
    """The width of the name, and the columns, in a line of `width` cells."""
    wide = [
        Column("CLIENTS", 7, one.content)
        if one.head == "CLNT"
        else Column(one.head, min(30, 8 + (width - 100) // 4), one.content)
        if one.head == "TREND"
        else Column(one.head, one.width + 2, one.content)
        for one in _COLUMNS
    ]
    columns = wide if width >= 110 else list(_COLUMNS)
    name = width - 2 - sum(one.width + 1 for one in columns)
    return min(_NAME, max(8, name)), columns


def heading(width: int) -> Text:
    """The heads of the columns."""
    name, columns = columns_for(width)
    text = Text("  " + fitted("NAME", name), STRONG, no_wrap=True)
    for one in columns:
        text.append(" " + fitted(one.head, one.width, right=True))
    return text


def queue_line(row: Row, width: int, chosen: bool) -> list[Segment]:
    """A queue or topic. `†` stands before queues of dead letters, `T` before topics."""
    figures = row.traffic.figures
    name_width, columns = columns_for(width)
    idle = row.traffic.relevance <= 0
    sign = "T" if figures.kind == "topic" else "†" if figures.dead_letters else " "
    bad = bool(figures.dead_letters and figures.held)
    style = BAD if bad else DIM if idle else PLAIN
    name = fitted(harmless(figures.name) or "?", name_width)
    segments = [Segment(f"{sign} ", BAD if bad else DIM), Segment(name, CHOSEN if chosen else style)]
    for one in columns:
        text, look = one.content(row, one.width)
        segments += [Segment(" "), Segment(fitted(text, one.width, right=True), DIM if idle else look)]
    return segments


def message_heading() -> Text:
    """The heads of the columns of messages."""
    return Text(f"{'PLACE':>6} {'AGE':>6} {'SIZE':>7}   MESSAGE", STRONG, no_wrap=True)


def message_line(message: PeekedMessage, width: int, chosen: bool) -> list[Segment]:
    """A message: place, age, size, `↻` if it was handed out before, and what it says."""
    age = None if message.sent is None else max(0.0, time.time() - message.sent)
    style = CHOSEN if chosen else PLAIN
    return [
        Segment(f"{message.place:>6} ", DIM),
        Segment(f"{short_age(age):>6} {size_text(message.size):>7} ", PLAIN),
        Segment("↻ " if message.redelivered else "  ", WARN),
        Segment(fitted(summary(message), max(1, width - 24)), style),
    ]
