"""`parvis monitor`: who is there and what they are doing, live in a terminal or once for a script."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from parvis.cli.options import json_option, with_config
from parvis.config import Config

if TYPE_CHECKING:
    from parvis.observe.cards import Card, CardBoard

# Everybody broadcasts every six seconds at least.
_LISTEN = 7.0
_REFRESH = 0.5
_RESERVED_LINES = 5  # heading, head of the table, and the line below


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
        if once or as_json or not sys.stdout.isatty():
            time.sleep(seconds)
            _print_once(board, as_json)
        else:
            _watch(board, f"{config.broker_hosts} {transport.namespace}".strip())
    except KeyboardInterrupt:
        pass  # how a live view ends
    finally:
        transport.disconnect()


def _print_once(board: CardBoard, as_json: bool) -> None:
    from rich.console import Console

    from parvis.cli.monitor_table import card_table

    cards = board.cards()
    if as_json:
        import orjson

        content = {"services": [card.to_json() for card in cards], "ignored": board.ignored}
        click.echo(orjson.dumps(content).decode())
        return
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(card_table(cards, None))
    console.print(_summary(board, cards), highlight=False, markup=False)


def _watch(board: CardBoard, where: str) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from parvis.cli.monitor_table import card_table

    console = Console()

    def picture() -> Group:
        cards = board.cards()
        head = Text(f"parvis monitor  {where}", style="bold", no_wrap=True, overflow="ellipsis")
        table = card_table(cards, max(1, console.size.height - _RESERVED_LINES))
        return Group(head, table, Text(f"{_summary(board, cards)}   Ctrl-C ends", style="dim", no_wrap=True))

    with Live(picture(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH)
            live.update(picture(), refresh=True)


def _summary(board: CardBoard, cards: Sequence[Card]) -> str:
    services = len({card.service for card in cards})
    ignored = f", {board.ignored} broadcasts that are no status" if board.ignored else ""
    return f"{_counted(len(cards), 'instance')} of {_counted(services, 'service')}{ignored}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
