"""`parvis monitor`: who is there and what they are doing, live in a terminal or once for a script."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from parvis.cli.options import json_option, with_config
from parvis.config import Config

if TYPE_CHECKING:
    from rich.table import Table

    from parvis.observe.cards import Card, CardBoard

# Everybody broadcasts every six seconds at least.
_LISTEN = 7.0
_REFRESH = 0.5
_RESERVED_LINES = 5  # heading, head of the table, and the line below
_COLOURS = {"processing": "green", "timer event": "green", "error": "bold red", "starting": "yellow"}


@click.command(
    epilog="""\b
Examples:
  parvis monitor                  watch; end with Ctrl-C
  parvis monitor --once           listen for seven seconds, print who is there
  parvis monitor --json | jq '.services[] | select(.state == "error")'
"""
)
@click.option("--once", is_flag=True, help="Listen for a while, print who is there, and end.")
@click.option(
    "--for",
    "seconds",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=_LISTEN,
    show_default=True,
    help="How long --once and --json listen.",
)
@json_option
@with_config(logs=True)
def monitor(once: bool, seconds: float, as_json: bool, config: Config) -> None:
    """Show all services and wrappers, whoever wrote them: state, load, memory, version."""
    from parvis.observe.cards import CardBoard
    from parvis.observe.logs import set_up_logging
    from parvis.service.status import TOPIC

    set_up_logging(config)
    board = CardBoard()
    transport = config.transport()
    transport.connect()
    try:
        transport.subscribe_broadcast(TOPIC, board.take)
        if once or as_json:
            time.sleep(seconds)
            _print_once(board, as_json)
        else:
            _watch(board, f"{config.stomp.host} {config.stomp.prefix}")
    except KeyboardInterrupt:
        pass  # how a live view ends
    finally:
        transport.disconnect()


def _print_once(board: CardBoard, as_json: bool) -> None:
    from rich.console import Console

    cards = board.cards()
    if as_json:
        import orjson

        content = {"services": [card.to_json() for card in cards], "ignored": board.ignored}
        click.echo(orjson.dumps(content).decode())
        return
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(_table(cards, None))
    console.print(_summary(board, cards), highlight=False, markup=False)


def _watch(board: CardBoard, where: str) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console()

    def picture() -> Group:
        cards = board.cards()
        head = Text(f"parvis monitor  {where}", style="bold", no_wrap=True, overflow="ellipsis")
        table = _table(cards, console.size.height - _RESERVED_LINES)
        return Group(head, table, Text(f"{_summary(board, cards)}   Ctrl-C ends", style="dim", no_wrap=True))

    with Live(picture(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH)
            live.update(picture(), refresh=True)


def _summary(board: CardBoard, cards: Sequence[Card]) -> str:
    services = len({card.service for card in cards})
    ignored = f", {board.ignored} broadcasts that are no status" if board.ignored else ""
    return f"{len(cards)} instances of {services} services{ignored}"


def _table(cards: Sequence[Card], lines: int | None) -> Table:
    """A row for each instance, by service; if there are more than `lines`, one for each service."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    figures = sorted({name for card in cards for name in card.flow})
    table.add_column("STATE", no_wrap=True, max_width=24)
    table.add_column("SERVICE", no_wrap=True, max_width=24, overflow="ellipsis")
    table.add_column("HOST", no_wrap=True, max_width=26, overflow="ellipsis")
    if any(card.tag for card in cards):
        table.add_column("TAG", no_wrap=True, max_width=10, overflow="ellipsis")
    table.add_column("BUSY", justify="right", no_wrap=True)
    table.add_column("MEM", justify="right", no_wrap=True)
    if figures:
        table.add_column("FLOW", no_wrap=True, max_width=30, overflow="ellipsis")
    table.add_column("VERSION", no_wrap=True, max_width=16, overflow="ellipsis")
    tags, flow = any(card.tag for card in cards), bool(figures)
    rows = _rows(cards) if lines is None or len(cards) <= lines else _group_rows(cards)
    for row in list(rows)[:lines]:
        table.add_row(*(cell for name, cell in row.items() if _is_shown(name, tags, flow)))
    return table


def _is_shown(name: str, tags: bool, flow: bool) -> bool:
    return {"tag": tags, "flow": flow}.get(name, True)


def _rows(cards: Iterable[Card]) -> Iterable[dict[str, Any]]:
    from rich.text import Text

    before = None
    for card in cards:
        yield {
            "state": _state(card),
            "service": Text("" if card.service == before else card.service or "-"),
            "host": Text(card.host),
            "tag": Text(card.tag),
            "busy": _percent(card.utilisation),
            "memory": _megabytes(card.memory),
            "flow": Text(" ".join(f"{name}:{figure:g}" for name, figure in card.flow.items())),
            "version": Text(card.version),
        }
        before = card.service


def _group_rows(cards: Sequence[Card]) -> Iterable[dict[str, Any]]:
    from rich.text import Text

    for service, group in groupby(cards, key=lambda card: card.service):
        members = list(group)
        states = sorted((card.state for card in members), key=lambda state: (state == "idle", state))
        counted = ", ".join(f"{len(list(same))} {state}" for state, same in groupby(states))
        busy = [card.utilisation for card in members if card.utilisation is not None]
        memory = [card.memory for card in members if card.memory is not None]
        flow = {name: sum(card.flow.get(name, 0) for card in members) for name in members[0].flow}
        worst = next((_COLOURS[state] for state in states if state == "error"), "")
        yield {
            "state": Text(counted, style=worst),
            "service": Text(service or "-"),
            "host": Text(f"{len(members)} instances" if len(members) > 1 else members[0].host),
            "tag": Text(""),
            "busy": _percent(sum(busy) / len(busy) if busy else None),
            "memory": _megabytes(sum(memory) if memory else None),
            "flow": Text(" ".join(f"{name}:{figure:g}" for name, figure in flow.items())),
            "version": Text(", ".join(sorted({card.version for card in members}))),
        }


def _state(card: Card) -> Any:
    from rich.text import Text

    from parvis.observe.cards import LATE

    age = card.age()
    if age > LATE:
        return Text(f"last seen {age:.0f} s ago", style="bold red" if age > 60 else "red")
    return Text(card.state, style=_COLOURS.get(card.state, ""))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _megabytes(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.0f} MB"
