"""Which dead letters a command is about: options, looking for them, and asking before something is done."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from parvis.cli.moments import read_duration
from parvis.cli.options import BROKER_PATIENCE, json_option, with_config
from parvis.config import Config

if TYPE_CHECKING:
    from parvis.cli.options import Function
    from parvis.observe.dead_letter_search import Listing, Wanted
    from parvis.observe.dead_letters import DeadLetter
    from parvis.observe.queue_figures import QueueFigures

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "-n",
        "--namespace",
        metavar="NS",
        help="Namespace of the queues, if not that of the configuration; '' for all.",
    ),
    click.option(
        "-q",
        "--queue",
        "queues",
        metavar="QUEUE",
        multiple=True,
        help="Those that died in this queue. May be repeated.",
    ),
    click.option(
        "--reason",
        metavar="TEXT",
        default="",
        help="Those whose reason says this somewhere, in any case; /RE/ for a regular expression.",
    ),
    click.option("--service", metavar="NAME", default="", help="Those that this service gave up."),
    click.option(
        "--older",
        metavar="TIME",
        callback=read_duration,
        help="Those that died so long ago: 90s, 10m, 2h, 3d.",
    ),
    click.option("--newer", metavar="TIME", callback=read_duration, help="Those that died since then."),
    click.option(
        "--recipe", "recipe_id", metavar="ID", default="", help="Those of a recipe ID that begins like this."
    ),
    click.option(
        "--at-a-price",
        is_flag=True,
        help="Look even where RabbitMQ counts a look as a failed delivery, and gives messages up for it.",
    ),
]


@dataclass(frozen=True, slots=True)
class Selection:
    """What the options say.

    Attributes:
        wanted: Which dead letters.
        is_any: Whether no option restricts them.
        at_a_price: As of `QueueSource.peek`.
    """

    wanted: Wanted
    is_any: bool
    at_a_price: bool


def with_selection(function: Function) -> Function:
    """Give a command `selection`, `config` and `as_json`, and the options that make them."""

    @functools.wraps(function)
    def wrapper(*args: Any, config: Config, **given: Any) -> Any:
        return function(*args, config=config, selection=_selection(given, config), **given)

    decorated: Function = json_option(with_config()(wrapper))
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _selection(given: dict[str, Any], config: Config) -> Selection:
    from parvis.observe.dead_letter_search import Wanted, check_reason

    namespace = given.pop("namespace")
    rest = {name: given.pop(name) for name in ("queues", "reason", "service", "older", "newer", "recipe_id")}
    try:
        check_reason(rest["reason"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    here = getattr(config.broker, "prefix", "") if namespace is None else namespace
    return Selection(Wanted(here, **rest), not any(rest.values()), given.pop("at_a_price"))


def find_letters(config: Config, selection: Selection) -> tuple[Listing, Sequence[QueueFigures] | None]:
    """Look for dead letters; return them, and what goes on in the queues if the broker tells."""
    from parvis.observe.dead_letter_search import find
    from parvis.observe.queue_figures import NoFigures, open_queue_source
    from parvis.steer.taking import find_by_taking

    try:
        source = open_queue_source(config)
    except NoFigures:
        transport = config.transport()
        transport.connect(BROKER_PATIENCE)
        try:
            return find_by_taking(transport, selection.wanted), None
        finally:
            transport.disconnect()
    try:
        return find(source, selection.wanted, at_a_price=selection.at_a_price), source.figures()
    finally:
        source.close()


def pick(listing: Listing, names: Sequence[str]) -> list[DeadLetter]:
    """Return the dead letters that are named, or all that were found.

    Raises:
        ClickException: There is none of a name, or there are several.
    """
    from parvis.observe.dead_letter_search import chosen

    if not names:
        return list(listing.letters)
    try:
        found = [chosen(listing.letters, name) for name in names]
    except LookupError as error:
        raise click.ClickException(str(error)) from None
    return list({letter.number: letter for letter in found}.values())


def take_all(
    letters: Sequence[DeadLetter],
    act: Callable[[Sequence[DeadLetter]], list[DeadLetter]],
    more: Callable[[], Listing] | None,
) -> list[DeadLetter]:
    """Do something with dead letters, and with those behind them that come into sight when they are gone.

    Args:
        letters: The first of them.
        act: Does it; returns those that were not there any more.
        more: Looks again; None if these are all.

    Returns:
        Those that were not there any more.
    """
    done: set[str] = set()  # what dies again is not to go round and round
    missing: list[DeadLetter] = []
    while letters:
        gone = act(letters)
        missing += gone
        done.update(letter.identity for letter in letters)
        listing = more() if more is not None and len(gone) < len(letters) else None
        letters = [one for one in listing.letters if one.identity not in done] if listing else []
    return missing


def complain(listing: Listing) -> None:
    """Say what could not be looked into."""
    from parvis.recipe.problem import printable

    for queue, problem in listing.problems.items():
        click.echo(f"{printable(queue, 255)}: {printable(problem, 500)}", err=True)


def need_selection(names: Sequence[str], selection: Selection, *, everything: bool | None) -> None:
    """Refuse a command that does not say which letters it is about; without --all `everything` is None."""
    if not (names or everything) and selection.is_any:
        or_all = "or by options" if everything is None else "by options, or --all"
        raise click.UsageError(f"Say which: by number or identity, {or_all}; `parvis dlq list` shows them.")


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether to go on; end the command if not."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is nobody to ask: give --yes if you are sure.")
    if not click.confirm(question, err=True):
        raise click.exceptions.Exit(1)
