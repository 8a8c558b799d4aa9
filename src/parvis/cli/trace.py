"""`parvis trace`: what became of a recipe, and where it stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from parvis.cli.moments import read_moment
from parvis.cli.options import json_option, records_option, with_config
from parvis.cli.printing import print_json
from parvis.config import GRAYLOG_URL, Config, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from parvis.observe.graylog import Graylog
    from parvis.observe.hops import Hop
    from parvis.observe.log_source import Kind
    from parvis.observe.logbook import Entry
    from parvis.observe.records import Records
    from parvis.observe.story import Story

_POLL: Final = 0.5
_PATIENCE: Final = 15.0  # seconds that a recipe may take to be heard of
_MOST_HOPS: Final = 60
_KEPT: Final = 100
_MOST_LOGS: Final = 1000


@click.command(
    epilog="""\b
Examples:
  parvis trace                        the recipes of the last hour
  parvis trace 8e2e8e3c               one; a few characters will do
  parvis trace 8e2e8e3c --follow      go on showing it until it has ended
  parvis trace 8e2e8e3c --all --json  everything, for programs
  parvis trace --logbook 8e2e8e3c     what came in and what it became
"""
)
@click.argument("ids", nargs=-1, metavar="[RECIPE_ID]...")
@click.option(
    "-f", "--follow", is_flag=True, help="Go on until the recipe has ended; exit code 1 if it failed."
)
@click.option("-a", "--all", "everything", is_flag=True, help="Show every handling, and whole sections.")
@click.option("--logbook", is_flag=True, help="Print the four sections of the dispatcher's logbook, only.")
@click.option("--only-incoming", is_flag=True, help="With --logbook: header and body of the request, only.")
@click.option(
    "--since",
    metavar="WHEN",
    callback=read_moment,
    default="1h",
    show_default=True,
    help="Without an ID: from when on, such as 14:30, 2026-11-20 or 2h.",
)
@click.option(
    "--from",
    "kind",
    type=click.Choice(["records", "broker", "graylog"]),
    help="Where to look: by default in the records here, or else in those of the collector at the broker, and"
    " in Graylog for what they do not know.",
)
@records_option
@json_option
@with_config()
def trace(
    ids: tuple[str, ...],
    follow: bool,
    everything: bool,
    logbook: bool,
    only_incoming: bool,
    since: float,
    kind: Kind | None,
    as_json: bool,
    config: Config,
) -> None:
    """Show the life of recipes: what came in, every hop on a time line, and the recipe with counts.

    It says whether a recipe has finished, runs, waits, is stuck or has failed, where, and since when.
    Services report hops where `parvis.records.hops` is on; `parvis up` and `parvis collect` keep them.
    """
    if only_incoming and not logbook:
        raise click.UsageError("--only-incoming goes with --logbook")
    if not all(map(str.strip, ids)):
        raise click.UsageError("a recipe ID is empty")
    if kind == "broker" and not ids:
        raise click.UsageError("name a recipe ID; only where the records are can recipes be listed")
    if (follow or logbook) and not ids:
        raise click.UsageError("name a recipe ID; `parvis trace` lists those of the last hour")
    if follow and (len(ids) > 1 or logbook or kind == "graylog"):
        raise click.UsageError("--follow shows one recipe, from the records")
    if logbook:
        _print_logbook(config, ids, only_incoming=only_incoming, as_json=as_json)
        return
    view = _Trace(config, ids, kind, everything=everything, as_json=as_json)
    if not ids:
        view.list(since)
    elif follow:
        view.follow(ids[0])
    else:
        view.show(ids)


class _Trace:
    """The recipes, as the records know them."""

    def __init__(
        self, config: Config, ids: Sequence[str], kind: Kind | None, *, everything: bool, as_json: bool
    ) -> None:
        from parvis.observe.hops import stuck_after

        self._config = config
        self._everything = everything
        self._as_json = as_json
        self._stuck_after = stuck_after(config)
        self._graylog = _graylog(config) if kind in (None, "graylog") else None
        self._records: Records | None
        if self._graylog is not None:
            self._records = _records(config) if kind is None else None
        elif kind != "graylog":
            self._records = _records_of(config, ids, kind)
        else:
            raise ConfigError(f"no Graylog server is configured: set {GRAYLOG_URL}")

    def list(self, since: float) -> None:
        """Print the recipes that something was heard of since then."""
        from parvis.observe import known_stories
        from parvis.observe.wording import clock_text

        records = self._required()
        with records.reading() as database:
            lines = known_stories.recipes(records, database, self._stuck_after, limit=1000, since=since)
        if self._as_json:
            for line in lines:
                more = {"recipes": line.recipes, "dcid": line.dcid, "user": line.user}
                print_json(line.story.to_json() | more)
        elif lines:
            from parvis.cli.trace_text import recipe_table

            _console().print(recipe_table(lines))
            note = known_stories.staleness(records)
            if note and not all(line.story.state in ("finished", "failed") for line in lines):
                click.echo(note, err=True)
        else:
            hint = (
                ""
                if self._config.storage.get("parvis.records.hops")
                else (" Services report hops where parvis.records.hops is on: `parvis up` switches it on.")
            )
            click.echo(f"No recipe was heard of since {clock_text(since)}.{hint}")

    def show(self, ids: Sequence[str]) -> None:
        """Print recipes; end with exit code 1 if one is not known."""
        missing = [name for name in ids if not self._show(name)]
        if missing:
            raise click.exceptions.Exit(1)

    def follow(self, prefix: str) -> None:
        """Show a recipe until it has ended."""
        recipe_id = self._wait_for(prefix)
        from parvis.cli.trace_live import shower

        shown = shower(_console(), as_json=self._as_json)
        with shown:
            story = self._until_over(recipe_id, shown.show)
        if not self._as_json and shown.is_live:
            self._print(recipe_id)
        if story.state != "finished":
            raise click.exceptions.Exit(1)

    def _until_over(self, recipe_id: str, show: Callable[[Story, Sequence[Hop]], None]) -> Story:
        from parvis.observe import hop_table, known_stories

        last = None if sys.stdout.isatty() and not self._as_json else 0
        records = self._required()
        while True:
            with records.reading() as database:
                hops, last = hop_table.arrived(database, recipe_id, last, _MOST_LOGS if last else _KEPT)
                story = known_stories.story(records, database, recipe_id, self._stuck_after)
            show(story, hops)
            if story.is_over and not hops:
                return story
            time.sleep(0 if len(hops) >= _KEPT else _POLL)

    def _wait_for(self, prefix: str) -> str:
        until = time.monotonic() + _PATIENCE
        while True:
            found = self._find(prefix)
            if found:
                return found
            if time.monotonic() > until:
                raise click.ClickException(f"recipe {_shown(prefix)} has not been heard of")
            time.sleep(_POLL)

    def _show(self, prefix: str) -> bool:
        recipe_id = self._find(prefix) if self._records is not None else None
        if recipe_id is not None:
            self._print(recipe_id)
            return True
        for source in (self._records, self._graylog):
            if source is not None and self._print_logs(source, prefix):
                return True
        click.secho(f"Recipe {_shown(prefix)} not found", fg="red", err=True)
        return False

    def _find(self, prefix: str) -> str | None:
        from parvis.observe import hop_table

        with self._required().reading() as database:
            found = hop_table.find(database, prefix)
        if len(found) > 1:
            raise click.ClickException(
                f"{_shown(prefix)} is the beginning of several recipe IDs: {', '.join(map(_shown, found))}"
            )
        return found[0] if found else None

    def _print(self, recipe_id: str) -> None:
        from parvis.observe import hop_table, known_stories
        from parvis.observe.logbook import entry_of

        records = self._required()
        with records.reading() as database:
            story = known_stories.story(records, database, recipe_id, self._stuck_after)
            hops = hop_table.timeline(database, recipe_id, None if self._everything else _MOST_HOPS)
        if self._as_json:
            print_json(_content(story, hops))
            return
        from parvis.cli.trace_text import print_story

        entry = entry_of(story.started) if story.started else None
        print_story(_console(), story, hops, entry, all_=self._everything)

    def _print_logs(self, source: Records | Graylog, prefix: str) -> bool:
        """Print what was logged of a recipe of which no hops are known; return whether there was anything."""
        from parvis.cli.log_lines import lines_of
        from parvis.observe.log_record import LogQuery
        from parvis.observe.logs import wants_colour

        try:
            query = LogQuery(recipe=prefix, limit=_MOST_LOGS, order="oldest")
        except ValueError:
            return False
        found = source.search(query)
        if found and self._as_json:
            print_json({"state": "unknown", "logs": [record.to_json() for record in found]})
        elif found:
            click.echo(
                "No hops of it are known, so nobody can say whether it has finished: services report them"
                " where parvis.records.hops is on.\nWhat was logged of it:"
            )
            for record in found:
                click.echo(lines_of(record, 1, colour=wants_colour(sys.stdout), note=""))
        return bool(found)

    def _required(self) -> Records:
        if self._records is None:
            self._records = _records_of(self._config, (), "records")
        return self._records


def _content(story: Story, hops: Sequence[Hop]) -> dict[str, Any]:
    from parvis.observe.hops import hop_to_json

    started = None
    if story.started is not None:
        one = story.started
        started = {
            "at": one.at,
            "user": one.user,
            "header": dict(one.header),
            "message": one.message,
            "parameters": one.parameters,
            "recipe": one.recipe,
        }
    return story.to_json() | {"started": started, "timeline": [hop_to_json(hop) for hop in hops]}


def _print_logbook(config: Config, ids: Sequence[str], *, only_incoming: bool, as_json: bool) -> None:
    """Print what came in and what was made of it, as the dispatcher has noted it."""
    from parvis.observe.logs import terminal_line, wants_colour

    colour = wants_colour(sys.stdout)
    missing = False
    for recipe_id in ids:
        entries = _entries(config, recipe_id)
        missing = missing or not entries
        if not entries:
            click.secho(f"Recipe {_shown(recipe_id)} not found", fg="red", color=colour)
        for entry in entries:
            chosen = entry.sections[: 2 if only_incoming else None]
            if as_json:
                print_json({"recipe_id": entry.recipe_id, "at": entry.at, "sections": dict(chosen)})
                continue
            click.echo(f"Recipe {terminal_line(entry.title)}")
            for heading, content in chosen:
                click.echo()
                click.secho(heading, fg="yellow", bold=True, color=colour)
                click.echo("\n".join(terminal_line(line) for line in content.splitlines()))
    if missing:
        raise click.exceptions.Exit(1)


def _entries(config: Config, prefix: str) -> list[Entry]:
    from parvis.observe import hop_table
    from parvis.observe.logbook import entry_of, find_entries, read_entries

    records = _records(config)
    if records is not None:
        with records, records.reading() as database:
            found = hop_table.find(database, prefix)
            started = hop_table.started(database, found[0]) if len(found) == 1 else []
        if started:
            return [entry_of(one) for one in started]
    directory = config.logbook_location
    if directory is None:
        return []
    found = [prefix] if read_entries(directory, prefix) else find_entries(directory, prefix)
    return read_entries(directory, found[0]) if len(found) == 1 else []


def _records(config: Config) -> Records | None:
    """The records on this machine; None if there are none."""
    from parvis.observe.records import Records, RecordsMissing
    from parvis.observe.records_place import find_records

    try:
        return Records(find_records(config))
    except RecordsMissing:
        return None


def _records_of(config: Config, ids: Sequence[str], kind: Kind | None) -> Records:
    """The records on this machine or, of these recipes, elsewhere; closed when the command ends."""
    from parvis.observe.log_source import opened_recipes

    return click.get_current_context().with_resource(opened_recipes(config, ids, kind))


def _graylog(config: Config) -> Graylog | None:
    from parvis.observe.graylog import Graylog

    return Graylog.configured(config)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _shown(text: str) -> str:
    from parvis.recipe.problem import printable

    return printable(text, 80)
