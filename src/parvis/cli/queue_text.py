"""Figures of queues and messages as lines for a terminal, and for programs that read what `zocalo` prints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from parvis.observe.harmless import harmless
from parvis.observe.message_text import heading, sections
from parvis.observe.wording import age_text, size_text

if TYPE_CHECKING:
    from parvis.observe.queue_figures import PeekedMessage, QueueFigures, QueueTraffic

_UUID: Final = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_NAME: Final = 60


def short_name(name: str) -> str:
    """The name of a queue in a line: of a UUID the first part, and nothing that a terminal might obey."""
    return harmless(_UUID.sub(r"\1…", name), _NAME)


def status_line(product: str, kind: str, figures: Sequence[QueueFigures]) -> str:
    """The line above the queues or topics, as the monitor of `zocalo` words it."""
    mine = [one for one in figures if one.kind == kind]
    if kind == "topic":
        return f"{product} status: {len(mine)} topics"
    return f"{product} status: {len(mine)} queues containing {sum(one.held or 0 for one in mine)} messages"


def figures_table(figures: Iterable[QueueFigures]) -> Table:
    """A row for each queue or topic."""
    rows = list(figures)
    ages = any(one.oldest for one in rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("NAME", no_wrap=True, overflow="ellipsis")
    for name in ("HELD", "IN FLIGHT", "CLIENTS", "IN", "OUT", "SIZE", *(["OLDEST"] if ages else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for one in rows:
        style = "red" if one.dead_letters and one.held else ""
        cells = [
            _figure(one.held, style or "blue"),
            _figure(one.in_flight),
            _figure(one.clients, "yellow"),
            _figure(one.enqueued, "green"),
            _figure(one.dequeued, "green"),
            Text(size_text(one.size) if one.size else ""),
        ]
        if ages:
            cells.append(Text(age_text(one.oldest) if one.oldest and one.held else ""))
        table.add_row(Text(short_name(one.name), style=style), *cells)
    return table


def monitor_lines(product: str, traffic: Sequence[QueueTraffic], interval: float) -> Iterator[str]:
    """One picture of all queues and topics in the lines that the monitor of `zocalo` prints."""
    rows = [(short_name(one.figures.absolute), one) for one in traffic if one.relevance > 0]
    width = max([*(len(name) for name, _ in rows), len("topic/queue name")])
    for kind in ("queue", "topic"):
        yield status_line(product, kind, [one.figures for one in traffic])
        yield from (_row(name.ljust(width), one) for name, one in rows if one.figures.kind == kind)
        yield ""
    head = f"{'topic/queue name'.ljust(width)}  m.in/{interval:g}s >[ m.held | clients | m.dispatchd ]>"
    yield from ("What do the numbers mean:", f"{head} m.out/{interval:g}s")


def message_lines(message: PeekedMessage, *, full: bool) -> Iterator[Text]:
    """A message, headed by a rule."""
    yield Text(f"── {heading(message)} ", style="bold")
    for section in sections(message, full=full):
        yield Text(f"  {section.title}", style="blue")
        for line in section.lines:
            yield Text(f"    {line}")


def _row(name: str, one: QueueTraffic) -> str:
    figures = one.figures
    inner = f"{_blank(figures.held):>6} | {_blank(figures.clients):>5} | {_blank(figures.in_flight):>5}"
    return f"{name}  {_blank(one.came):>6} >[ {inner} ]> {_blank(one.went):<6}".rstrip()


def _blank(count: int | None) -> str:
    return str(count) if count else ""


def _figure(count: int | None, style: str = "") -> Text:
    return Text("?" if count is None else str(count), style=style if count else "dim")
