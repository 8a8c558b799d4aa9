"""`parvis queue`: figures of queues, a look into them, and moving what is in them."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from parvis.cli.moments import FiniteRange
from parvis.cli.options import BROKER_PATIENCE, json_option, with_config
from parvis.cli.printing import print_json
from parvis.config import Config

if TYPE_CHECKING:
    from parvis.observe.drain import Moved
    from parvis.observe.queue_figures import QueueFigures, QueueSource

_INTERVAL = 5.0


@click.group()
def queue() -> None:
    """Show queues, look into them, and move what is in them."""


@queue.command(
    "list",
    epilog="""\b
Examples:
  parvis queue list                what there is to see
  parvis queue list --all          every queue and topic
  parvis queue list --json | jq '.queues[] | select(.held > 100)'
""",
)
@click.option("--all", "every", is_flag=True, help="Show queues and topics that are empty and unused, too.")
@json_option
@with_config()
def list_queues(every: bool, as_json: bool, config: Config) -> None:
    """Show the figures of queues and topics, those that hold most first.

    They are the broker's own: messages held (those in flight included), in flight (handed out and not
    acknowledged yet), clients, and messages in and out since it started.
    """
    with _source(config) as source:
        figures = sorted(source.figures(), key=lambda one: (-(one.held or 0), one.name))
        product = source.product
    queues = [one for one in figures if one.kind == "queue"]
    topics = [one for one in figures if one.kind == "topic"]
    if as_json:
        content = {"queues": queues, "topics": topics}
        print_json({"broker": product} | {key: [one.to_json() for one in content[key]] for key in content})
        return
    _print_figures(product, "queue", queues, every=every)
    click.echo()
    _print_figures(product, "topic", topics, every=every)


@queue.command(
    epilog="""\b
Examples:
  parvis queue peek per_image_analysis            the first ten
  parvis queue peek per_image_analysis -n 1 --full
  parvis queue peek DLQ.zocalo.dispatcher --skip 100
"""
)
@click.argument("name", metavar="QUEUE")
@click.option("-n", "--number", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@click.option("--skip", type=click.IntRange(0, 999), default=0, help="Leave out so many at the head.")
@click.option("--full", is_flag=True, help="Leave nothing out, and show the recipe, too.")
@click.option(
    "--at-a-price",
    is_flag=True,
    help="Do it even where RabbitMQ counts a look as a failed delivery, and gives messages up for it.",
)
@json_option
@with_config()
def peek(
    name: str, number: int, skip: int, full: bool, at_a_price: bool, as_json: bool, config: Config
) -> None:
    """Look at messages of a queue and leave them there, in their order.

    QUEUE is a name with or without the namespace. On RabbitMQ, messages are marked as redelivered by it.
    """
    from parvis.observe.queue_figures import find_queue

    if number + skip > 1000:
        raise click.UsageError("Only the first 1000 messages of a queue can be looked at.")
    with _source(config) as source:
        try:
            found = find_queue(source.figures(), name, getattr(config.broker, "prefix", ""))
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        messages = source.peek(found.absolute, number, skip, at_a_price=at_a_price)
    if as_json:
        from parvis.observe.message_text import to_json

        print_json([to_json(message) for message in messages])
        return
    from rich.console import Console

    from parvis.cli.queue_text import message_lines, short_name

    console = Console(soft_wrap=True, highlight=False, markup=False)
    held = "" if found.held is None else f" of {found.held}"
    console.print(f"{short_name(found.absolute)}: {len(messages)}{held} messages", style="bold")
    for message in messages:
        for line in message_lines(message, full=full):
            console.print(line)


@queue.command(
    epilog="""\b
Examples:
  parvis queue monitor                      watch; end with q
  parvis queue monitor --interval 1
  parvis queue monitor --plain > queues.log
  parvis queue monitor --once --json
"""
)
@click.option(
    "--interval",
    type=FiniteRange(0.5, 3600),
    default=_INTERVAL,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, print what there is and what changed, and end.")
@click.option("--plain", is_flag=True, help="Print lines at each look in place of a live view.")
@json_option
@with_config()
def monitor(interval: float, once: bool, plain: bool, as_json: bool, config: Config) -> None:
    """Watch queues and topics: in, held, in flight, clients, out, the age of the oldest message.

    Where there is no terminal it does as with --once.
    """
    from parvis.monitor.terminal import show, why_not_live

    reason = why_not_live()
    if not (once or plain or as_json) and reason is None:
        from parvis.monitor.queues import QueueMonitor

        with _source(config) as source:
            show(QueueMonitor(source, config, interval))
        return
    if reason is not None and sys.stdout.isatty():
        click.echo(f"No live view: {reason}.", err=True)
    with _source(config) as source:
        _watch(source, interval, for_ever=(plain or as_json) and not once, as_json=as_json)


@queue.command(
    epilog="""\b
Examples:
  parvis queue drain per_image_analysis elsewhere
  parvis queue drain DLQ.zocalo.per_image_analysis . --wait 0.1
  parvis queue drain broken . --wait 0 --stop 5
"""
)
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DEST")
@click.option(
    "--wait",
    type=FiniteRange(0, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Pause between two messages.",
)
@click.option(
    "--stop",
    type=FiniteRange(0, 1_000_000),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="End after so long without a message; 0 for never.",
)
@json_option
@with_config()
def drain(source: str, destination: str, wait: float, stop: float, as_json: bool, config: Config) -> None:
    """Move messages from queue SRC to queue DEST, one by one, each in a transaction.

    DEST "." moves each to where it belongs: a dead letter to the queue that it died in, to be tried anew, and
    any other message of a recipe to the queue of its node. Names are within the namespace; those of dead
    letters (DLQ...., dlq....) and with the namespace are whole names.
    """
    from parvis.observe.drain import BY_HEADER, place
    from parvis.observe.drain import drain as move

    transport = config.transport()
    try:
        here = place(source, transport.namespace)
        there = None if destination == BY_HEADER else place(destination, transport.namespace)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if here == there:
        raise click.UsageError("SRC and DEST are the same queue.")
    transport.connect(BROKER_PATIENCE)
    done = 0

    def told(moved: Moved) -> None:
        nonlocal done
        done = moved.number
        if not as_json:
            _print_moved(moved, by_header=there is None)

    if not as_json:
        click.echo(f"Reading messages from {source}")
        where = f"to {destination}" if there else "to automatically determined destinations"
        click.echo(f"Writing messages {where}")
    try:
        move(transport, here, there, told=told, wait=wait, stop=stop)
    except KeyboardInterrupt:
        if not as_json:
            click.echo(f"{done} message(s) drained, interrupted")
        raise
    finally:
        if as_json:
            print_json({"source": source, "destination": destination, "moved": done})
        transport.disconnect()
    if not as_json:
        click.echo(f"{done} message(s) drained, no message seen for {stop} seconds")


@contextmanager
def _source(config: Config) -> Generator[QueueSource]:
    from parvis.observe.queue_figures import open_queue_source

    source = open_queue_source(config)
    try:
        yield source
    finally:
        source.close()


def _watch(source: QueueSource, interval: float, *, for_ever: bool, as_json: bool) -> None:
    from parvis.cli.queue_text import monitor_lines
    from parvis.observe.queue_figures import QueueHistory

    history = QueueHistory()
    history.take(source.figures())
    looks = 0
    while for_ever or looks < 1:
        looks += 1
        time.sleep(interval)
        traffic = history.take(source.figures())
        if as_json:
            print_json({"broker": source.product, "queues": [one.to_json() for one in traffic]})
        else:
            click.echo("\n".join(monitor_lines(source.product, traffic, interval)))


def _print_figures(product: str, kind: str, figures: list[QueueFigures], *, every: bool) -> None:
    from rich.console import Console

    from parvis.cli.queue_text import figures_table, status_line

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200
    console.print(status_line(product, kind, figures), style="bold")
    shown = [one for one in figures if every or one.held or one.clients]
    if shown:
        console.print(figures_table(shown))
    if len(shown) < len(figures):
        console.print(f"{len(figures) - len(shown)} more, empty and unused: --all shows them", style="dim")


def _print_moved(moved: Moved, *, by_header: bool) -> None:
    from parvis.cli.queue_text import short_name
    from parvis.observe.wording import moment_text
    from parvis.transport.base import whole_number

    click.echo()
    stamp = whole_number(moved.message.headers.get("timestamp"))
    if stamp is not None:
        click.echo(f"Message date: {moment_text(stamp / 1000)}")
    recipe = _recipe_id(moved)
    if recipe:
        click.echo(f"Recipe ID:    {recipe}")
    if by_header:
        click.echo(f"Target Queue: {short_name(moved.target.name)}")
    click.echo(f"   {moved.number} message(s) drained in {moved.seconds:.1f} seconds")


def _recipe_id(moved: Moved) -> str:
    from parvis.observe.harmless import harmless
    from parvis.recipe.envelope import envelope_of

    envelope = envelope_of(moved.message.headers, moved.message.body)
    return harmless(envelope.recipe_id or "") if envelope else ""
