"""`parvis dlq`: see why messages died, keep them, change them, send them in again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parvis.cli.dlq_selection import (
    Selection,
    complain,
    confirm,
    find_letters,
    need_selection,
    pick,
    take_all,
    with_selection,
)
from parvis.cli.dlq_told import Teller
from parvis.cli.moments import FiniteRange
from parvis.cli.options import BROKER_PATIENCE
from parvis.cli.printing import print_json
from parvis.config import Config

if TYPE_CHECKING:
    from rich.text import Text

    from parvis.observe.dead_letter_search import Listing
    from parvis.observe.dead_letters import DeadLetter
    from parvis.observe.queue_figures import QueueFigures
    from parvis.steer.preview import Prospect
    from parvis.transport.base import Transport

_LOCATION = "zocalo.dlq.purge_location"

_all_option = click.option("--all", "everything", is_flag=True, help="All that there are.")
_yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_location_option = click.option(
    "--location",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"Where the files go; by default {_LOCATION} of the configuration, or ./DLQ.",
)
_wait_option = click.option(
    "--wait",
    "silence",
    type=FiniteRange(0.1, 3600),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up after so long without a message.",
)


@click.group()
def dlq() -> None:
    """See why messages died, keep them, change them, send them in again.

    Dead letters are named by the number that `parvis dlq list` shows, or by the beginning or end of their
    identity. Numbers count what the same options list: other options, other numbers.
    """


@dlq.command(
    "list",
    epilog="""\b
Examples:
  parvis dlq list
  parvis dlq list -q per_image_analysis --newer 1h --all
  parvis dlq list --reason "no such file"
  parvis dlq list --json | jq -r '.letters[].reason'
""",
)
@click.option("--all", "every", is_flag=True, help="Show every letter.")
@with_selection
def list_letters(every: bool, as_json: bool, selection: Selection, config: Config) -> None:
    """Show the dead letters by queue and reason. Nothing is taken.

    Exit code: 0 if there are none, 1 if there are some.
    """
    listing, _ = find_letters(config, selection)
    if as_json:
        print_json(
            {
                "held": listing.held,
                "problems": listing.problems,
                "letters": [letter.to_json() for letter in listing.letters],
            }
        )
    else:
        from parvis.cli.dlq_text import list_lines

        _print(list_lines(listing, is_any=selection.is_any, every=every))
    complain(listing)
    found = any(listing.held.values()) if selection.is_any else bool(listing.letters)
    sys.exit(1 if found else 0)


@dlq.command(
    epilog="""\b
Examples:
  parvis dlq show 1
  parvis dlq show 3f2a9c --full
  parvis dlq show --recipe 8e2e8e3c
"""
)
@click.argument("names", nargs=-1, metavar="[LETTER]...")
@click.option("--full", is_flag=True, help="Leave nothing out, and show the recipe, too.")
@with_selection
def show(names: tuple[str, ...], full: bool, as_json: bool, selection: Selection, config: Config) -> None:
    """Show dead letters: reason and traceback, then what they are. Nothing is taken."""
    need_selection(names, selection, everything=None)
    listing, _ = find_letters(config, selection)
    complain(listing)
    letters = pick(listing, names)
    if as_json:
        print_json([letter.to_json() for letter in letters])
    else:
        from parvis.cli.dlq_text import letter_lines

        for letter in letters:
            _print(letter_lines(letter, full=full))
    _are_none(letters, everything=False)


@dlq.command(
    epilog="""\b
Examples:
  parvis dlq export --all
  parvis dlq export -q per_image_analysis --location /tmp/letters
"""
)
@click.argument("names", nargs=-1, metavar="[LETTER]...")
@_all_option
@_location_option
@with_selection
def export(
    names: tuple[str, ...],
    everything: bool,
    location: Path | None,
    as_json: bool,
    selection: Selection,
    config: Config,
) -> None:
    """Write dead letters to files, DIR/YYYY-MM-DD/msg-..., and leave them in their queue."""
    from parvis.steer.dead_letters import export as write

    need_selection(names, selection, everything=everything)
    listing, _ = find_letters(config, selection)
    complain(listing)
    letters = pick(listing, names)
    if _are_none(letters, everything=everything):
        return
    told = Teller(as_json)
    try:
        write(letters, _place(location, config), told)
    finally:
        told.end()


@dlq.command(
    epilog="""\b
Examples:
  parvis dlq purge 4
  parvis dlq purge -q per_image_analysis --older 7d --yes
  parvis dlq purge --all --location /var/lib/zocalo/dlq
"""
)
@click.argument("names", nargs=-1, metavar="[LETTER]...")
@_all_option
@_yes_option
@_location_option
@_wait_option
@with_selection
def purge(
    names: tuple[str, ...],
    everything: bool,
    yes: bool,
    location: Path | None,
    silence: float,
    as_json: bool,
    selection: Selection,
    config: Config,
) -> None:
    """Write dead letters to files, and take them out of their queue.

    Each is taken when its file is on the disk. `parvis dlq reinject FILE` sends it in again.
    """
    from parvis.steer.dead_letters import purge as take

    need_selection(names, selection, everything=everything)
    directory = _place(location, config)
    listing, _ = find_letters(config, selection)
    complain(listing)
    letters = pick(listing, names)
    if _are_none(letters, everything=everything):
        return
    confirm(f"Take {_counted(letters, listing)} out of the queue, into files in {directory}?", yes=yes)
    told = Teller(as_json)

    def act(transport: Transport) -> list[DeadLetter]:
        return take_all(
            letters,
            lambda some: take(transport, some, directory, told, silence),
            more=None if names or not listing.has_more else lambda: find_letters(config, selection)[0],
        )

    _act(config, told, act)


@dlq.command(
    epilog="""\b
Examples:
  parvis dlq reinject 3 --dry-run                   what would it do?
  parvis dlq reinject -q per_image_analysis --reason "no such file"
  parvis dlq reinject -r DLQ/2026-11-20/msg-*       files of purge or export
  find DLQ -name 'msg-*' | parvis dlq reinject --yes -
"""
)
@click.argument("names", nargs=-1, metavar="[LETTER|FILE]...")
@_all_option
@_yes_option
@click.option("--dry-run", is_flag=True, help="Only show what it would do.")
@click.option("-r", "--remove", is_flag=True, help="Delete each file that was sent.")
@click.option(
    "-d", "--destination", metavar="DEST", help="Whole name of a queue, if not that which it died in."
)
@click.option(
    "-w",
    "--wait",
    "pause",
    type=FiniteRange(0, 3600),
    default=0.0,
    metavar="SECONDS",
    help="Pause between two.",
)
@with_selection
def reinject(
    names: tuple[str, ...],
    everything: bool,
    yes: bool,
    dry_run: bool,
    remove: bool,
    destination: str | None,
    pause: float,
    as_json: bool,
    selection: Selection,
    config: Config,
) -> None:
    """Send dead letters in again, to the queue in which they died, from their queue or from files.

    From the queue, it is one transaction with their leaving it. They are tried as often as new messages, and
    those who remember what they have done do not take them for that. What will become of them is shown first.
    """
    from parvis.cli.dlq_files import as_files, reinject_files
    from parvis.steer.dead_letters import reinject as send

    _check(destination)
    told = Teller(as_json)
    files = as_files(names, is_open=selection.is_any and not everything)
    if files is not None:
        prospects = _foresee(config, [one.letter for one in files], _figures(config), destination)
        _show_prospects(prospects, as_json=as_json and dry_run, quiet=as_json)
        if not dry_run:
            confirm(f"Send {len(files)} files in again?", yes=yes)
            reinject_files(config, files, told, destination=destination, remove=remove, pause=pause)
        return
    need_selection(names, selection, everything=everything)
    listing, figures = find_letters(config, selection)
    complain(listing)
    letters = pick(listing, names)
    if _are_none(letters, everything=everything):
        return
    prospects = _foresee(config, letters, figures, destination)
    _show_prospects(prospects, as_json=as_json and dry_run, quiet=as_json)
    if dry_run:
        return
    confirm(f"Send {_counted(letters, listing)} in again?", yes=yes)

    def act(transport: Transport) -> list[DeadLetter]:
        return take_all(
            letters,
            lambda some: send(transport, some, told, destination=destination, pause=pause),
            more=None if names or not listing.has_more else lambda: find_letters(config, selection)[0],
        )

    _act(config, told, act)


@dlq.command(
    epilog="""\b
Examples:
  parvis dlq edit 3
  EDITOR='code --wait' parvis dlq edit 3f2a9c --keep
"""
)
@click.argument("name", metavar="LETTER")
@_yes_option
@_location_option
@click.option("--keep", is_flag=True, help="Leave it a dead letter, with the change.")
@with_selection
def edit(
    name: str,
    yes: bool,
    location: Path | None,
    keep: bool,
    as_json: bool,
    selection: Selection,
    config: Config,
) -> None:
    """Change payload and parameters of a dead letter in $EDITOR, and send it in again.

    It is checked against the service that is to handle it. The letter as it was is written to a file before.
    """
    from parvis.cli.dlq_edit import change
    from parvis.steer.dead_letters import put_back, send_back

    listing, figures = find_letters(config, selection)
    complain(listing)
    (letter,) = pick(listing, [name])
    namespace = _namespace(config)
    body = change(letter, config, namespace, ask=not yes)
    if body is None:
        click.echo("Nothing is changed.", err=True)
        return
    if not keep:
        from parvis.steer.preview import with_content

        _show_prospects(
            _foresee(config, [with_content(letter, body)], figures, None), as_json=False, quiet=as_json
        )
    confirm("Put the changed letter back?" if keep else "Send it in again?", yes=yes)
    told = Teller(as_json)
    act = put_back if keep else send_back
    directory = _place(location, config)
    _act(
        config,
        told,
        lambda transport: [] if act(transport, letter, body, directory, told) else [letter],
    )


def _act(config: Config, told: Teller, act: Callable[[Transport], Sequence[DeadLetter]]) -> None:
    """Do something with a connection to the broker; exit code 1 if a letter was not there."""
    from parvis.recipe.problem import printable

    transport = config.transport()
    transport.connect(BROKER_PATIENCE)
    missing: Sequence[DeadLetter] = ()
    try:
        missing = act(transport)
    finally:
        transport.disconnect()
        told.end(missing=[letter.identity for letter in missing])
    for letter in missing:
        click.echo(
            f"{printable(letter.short_id, 60)} is not in {printable(letter.queue, 255)} any more", err=True
        )
    if missing:
        sys.exit(1)


def _foresee(
    config: Config,
    letters: Sequence[DeadLetter],
    figures: Sequence[QueueFigures] | None,
    destination: str | None,
) -> list[Prospect]:
    from parvis.steer.preview import preview

    namespace = _namespace(config)
    return [preview(letter, config, namespace, figures, destination) for letter in letters]


def _show_prospects(prospects: Sequence[Prospect], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json([one.to_json() for one in prospects])
    elif not quiet:
        from parvis.cli.dlq_text import prospect_lines

        _print(prospect_lines(prospects))


def _figures(config: Config) -> Sequence[QueueFigures] | None:
    from parvis.observe.queue_figures import NoFigures, open_queue_source

    try:
        source = open_queue_source(config)
    except NoFigures:
        return None
    try:
        return source.figures()
    finally:
        source.close()


def _namespace(config: Config) -> str:
    return getattr(config.broker, "prefix", "")


def _place(location: Path | None, config: Config) -> Path:
    return (location or Path(str(config.storage.get(_LOCATION) or "DLQ")).expanduser()).absolute()


def _check(destination: str | None) -> None:
    from parvis.transport.base import check_destination

    try:
        check_destination(destination or "any")
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _counted(letters: Sequence[DeadLetter], listing: Listing) -> str:
    count = "1 dead letter" if len(letters) == 1 else f"{len(letters)} dead letters"
    return f"{count}, and those of their kind behind them," if listing.has_more else count


def _are_none(letters: Sequence[object], *, everything: bool) -> bool:
    """Whether there are none, which is as well if all are wanted, and else an error."""
    if not letters and not everything:
        raise click.ClickException("There is no such dead letter.")
    if not letters:
        click.echo("There are no dead letters.", err=True)
    return not letters


def _print(lines: Iterable[Text]) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in lines:
        console.print(line)
