"""`parvis monitor`: who is there and what they are doing, live in a terminal or once for a script."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from queue import Full, Queue
from typing import TYPE_CHECKING

import click

from parvis.cli.moments import FiniteRange
from parvis.cli.options import BROKER_PATIENCE, json_option, with_config
from parvis.cli.printing import print_json
from parvis.config import Config

if TYPE_CHECKING:
    from parvis.observe.cards import Card, CardBoard
    from parvis.transport.base import Message, Transport

# Everybody broadcasts every six seconds at least.
_LISTEN = 7.0
_LONGEST_RAW = 10_000
_MOST_RAW = 10_000
_NOT_LIVE = "No live view, the services once instead: "


@click.command(
    epilog="""\b
Examples:
  parvis monitor                      watch; ? shows the keys, q ends it
  parvis monitor -s PerImageAnalysis  only this service
  parvis monitor -s none              only front ends that run no service
  parvis monitor --host 'cs05r.*'     only on these machines
  parvis monitor --once               print who is there within seven seconds
  parvis monitor --json | jq '.services[] | select(.state == "error")'
  parvis monitor --raw                print each broadcast as it comes
"""
)
@click.option("--once", is_flag=True, help="Listen for a while, print who is there, and end.")
@click.option(
    "--for",
    "seconds",
    metavar="SECONDS",
    type=FiniteRange(0.1, 3600),
    default=_LISTEN,
    show_default=True,
    help="How long --once and --json listen.",
)
@click.option(
    "-s",
    "--service",
    "services",
    metavar="SERVICE",
    multiple=True,
    help="Only this service, in any case; 'none' for instances without one. May be repeated.",
)
@click.option("--host", metavar="REGEX", help="Only instances in whose host this occurs.")
@click.option("--raw", is_flag=True, help="Print each status broadcast, one a line, until Ctrl-C.")
@json_option
@with_config(logs=True)
def monitor(
    once: bool,
    seconds: float,
    services: tuple[str, ...],
    host: str | None,
    raw: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Show all services and wrappers, whoever wrote them: state, load, memory, version."""
    from parvis.monitor.terminal import why_not_live
    from parvis.observe.cards import CardBoard
    from parvis.observe.logs import set_up_logging
    from parvis.service.status import TOPIC

    set_up_logging(config)
    wanted = _wanted(services, host)
    board = CardBoard(wanted)
    transport = config.transport()
    transport.connect(BROKER_PATIENCE)
    try:
        if raw:
            _print_raw(transport, wanted)
            return
        transport.subscribe_broadcast(TOPIC, board.take)
        obstacle = why_not_live()
        if not (once or as_json or obstacle):
            _watch(board, transport, f"{config.broker_hosts} {transport.namespace}".strip())
            return
        if obstacle and not (once or as_json) and sys.stdout.isatty():
            click.echo(f"{_NOT_LIVE}{obstacle}.", err=True)
        time.sleep(seconds)
        _print_once(board, as_json)
    except KeyboardInterrupt:
        pass  # how a view ends
    finally:
        transport.disconnect()


def _wanted(services: Sequence[str], host: str | None) -> Callable[[Card], bool]:
    names = {name.casefold() for name in services}
    names = {"" if name == "none" else name for name in names}
    try:
        pattern = re.compile(host or "")
    except re.error as error:
        raise click.UsageError(f"--host is no regular expression: {error}") from None

    def wanted(card: Card) -> bool:
        classes = card.service_class.casefold().split(", ") if card.service_class else []
        its = {card.service.casefold(), *classes} if card.service else {""}
        return (not names or not names.isdisjoint(its)) and bool(pattern.search(card.host))

    return wanted


def _print_raw(transport: Transport, wanted: Callable[[Card], bool]) -> None:
    from parvis.observe.cards import read_card
    from parvis.recipe.problem import printable
    from parvis.service.status import TOPIC

    # Printed here, so that a reader who has had enough ends this, and not a callback of the connection.
    arrived: Queue[Message] = Queue(_MOST_RAW)

    def keep(message: Message) -> None:
        with contextlib.suppress(Full):  # whoever reads this is slow
            arrived.put_nowait(message)

    transport.subscribe_broadcast(TOPIC, keep)
    while True:
        message = arrived.get()
        card = read_card(message.body, time.monotonic())
        if card is not None and wanted(card):
            click.echo(printable(message.body.decode(errors="replace"), _LONGEST_RAW))


def _print_once(board: CardBoard, as_json: bool) -> None:
    from rich.console import Console

    from parvis.cli.monitor_table import card_table

    cards = board.cards()
    if as_json:
        content = {"services": [card.to_json() for card in cards], "ignored": board.ignored}
        print_json(content)
        return
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(card_table(cards, None))
    console.print(_summary(board, cards), highlight=False, markup=False)


def _watch(board: CardBoard, transport: Transport, where: str) -> None:
    from parvis.monitor.log_view import LogLines
    from parvis.monitor.status import StatusApp
    from parvis.monitor.terminal import logs_taken, show
    from parvis.observe.log_broadcast import TOPIC

    lines = LogLines()
    transport.subscribe_broadcast(TOPIC, lines.take)
    with logs_taken(lines.say):
        show(StatusApp(board, lines, transport, where))


def _summary(board: CardBoard, cards: Sequence[Card]) -> str:
    services = len({card.service for card in cards})
    ignored = f", {board.ignored} broadcasts that are no status" if board.ignored else ""
    return f"{_counted(len(cards), 'instance')} of {_counted(services, 'service')}{ignored}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
