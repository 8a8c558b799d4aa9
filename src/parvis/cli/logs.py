"""`parvis logs`: search log records, and follow them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from parvis.cli.moments import read_duration, read_moment
from parvis.cli.options import json_option, records_option, with_config
from parvis.config import Config
from parvis.observe.log_record import LEVELS, LogQuery, LogRecord

if TYPE_CHECKING:
    from parvis.observe.log_source import Kind, Source

_POLL: Final = 0.7
_MOST: Final = 10_000
_MOST_IN_GROUPS: Final = 50_000
_COMPLAINT_INTERVAL: Final = 60.0


@click.command(
    epilog="""\b
Examples:
  parvis logs                                 the last ten minutes
  parvis logs -f --level warning              warnings and errors as they come
  parvis logs -r 8e2e8e3c                     all about one recipe
  parvis logs -s PerImageAnalysis --filter 'xtal_0042.cbf' --time 2d
  parvis logs -a --level error --since 08:00  each error of this morning, once
  parvis logs -vv --level error               with tracebacks
"""
)
@click.option("-f", "--follow", is_flag=True, help="Go on, and show what comes.")
@click.option("-a", "--aggregate", is_flag=True, help="Show what comes from the same line of a program once.")
@click.option(
    "-r", "--recipe", metavar="ID", help="Only records of this recipe; the first characters will do."
)
@click.option(
    "-s",
    "--source",
    "--facility",
    "--service",
    "sources",
    metavar="NAME",
    multiple=True,
    help="Only records of this service or logger. May be repeated: any of them.",
)
@click.option(
    "--level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="Only records at least that urgent.",
)
@click.option(
    "--time",
    "seconds",
    metavar="TIME",
    callback=read_duration,
    default="600",
    show_default=True,
    help="How far back: 600, 10m, 2h, 3d, 1w.",
)
@click.option(
    "--since",
    metavar="WHEN",
    callback=read_moment,
    help="From when on, in place of --time: 14:30, 2026-11-20, 2h.",
)
@click.option(
    "--filter",
    "text",
    metavar="TEXT",
    help="Only records with these words in the message; * ends a part of a word.",
)
@click.option("-n", "--limit", type=click.IntRange(1), help=f"The newest of them: {_MOST:,} by default.")
@click.option("-v", "--verbose", "detail", count=True, help="Show more of each; up to -vvvv.")
@click.option(
    "--from",
    "kind",
    type=click.Choice(["records", "broker", "graylog"]),
    help="Where to look: by default in Graylog, if its address is configured; else in the records here; else"
    " in those of the collector at the broker.",
)
@records_option
@json_option
@with_config()
def logs(
    follow: bool,
    aggregate: bool,
    recipe: str | None,
    sources: tuple[str, ...],
    level: str,
    seconds: float,
    since: float | None,
    text: str | None,
    limit: int | None,
    detail: int,
    kind: Kind | None,
    as_json: bool,
    config: Config,
) -> None:
    """Search log records of all services, here or in Graylog: the last ten minutes, unless told otherwise.

    They are those that `parvis collect` has taken, or `parvis up` on the side. With --json each is a JSON
    object on a line of its own.
    """
    from parvis.observe.log_source import opened_source

    if follow and aggregate:
        raise click.UsageError("--aggregate groups what there is, --follow shows what comes: choose one")
    try:
        query = LogQuery(
            recipe=recipe,
            sources=sources,
            level=LEVELS.index(level),
            since=time.time() - seconds if since is None else since,
            text=text,
            limit=limit or (_MOST_IN_GROUPS if aggregate else _MOST),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    show = _Printer(detail, as_json)
    with opened_source(config, kind) as source:
        if follow:
            _follow(source, query, show)
        found = source.search(query)
    _note_extent(found, query)
    if aggregate:
        for record, count in _grouped(found):
            show([record], count)
    else:
        show(sorted(found, key=lambda record: record.time))


class _Printer:
    """Prints records as asked for."""

    def __init__(self, detail: int, as_json: bool) -> None:
        from parvis.observe.logs import wants_colour

        self._detail = detail
        self._as_json = as_json
        self._colour = wants_colour(sys.stdout)

    def __call__(self, records: Iterable[LogRecord], similar: int | None = None) -> None:
        """Print records; each stands for `similar`, if that is given."""
        for record in records:
            click.echo(self._text(record, similar), color=self._colour)

    def _text(self, record: LogRecord, similar: int | None) -> str:
        if self._as_json:
            import orjson

            more = {} if similar is None else {"similar": similar}
            return orjson.dumps(record.to_json() | more, default=str).decode()
        from parvis.cli.log_lines import lines_of

        note = f"(representative of a group of {similar} similar messages)" if (similar or 0) > 1 else ""
        return lines_of(record, self._detail, colour=self._colour, note=note)


def _grouped(records: Iterable[LogRecord]) -> list[tuple[LogRecord, int]]:
    """The newest record of each level and line of a program, and how many there are; oldest of them first."""
    groups: dict[tuple[Any, ...], tuple[LogRecord, int]] = {}
    for record in records:
        key = record.level, str(record.fields.get("file")), str(record.fields.get("line"))
        newest, count = groups.get(key, (record, 0))
        groups[key] = max(newest, record, key=lambda one: one.time), count + 1
    return sorted(groups.values(), key=lambda group: group[0].time)


def _note_extent(found: Sequence[LogRecord], query: LogQuery) -> None:
    """Say what the answer alone does not tell: that nothing was found, or not everything."""
    from parvis.observe.wording import clock_text

    if not found:
        level = LEVELS[query.level or 0]
        click.echo(
            f"No record since {clock_text(query.since)} answers to that, of level {level} or more urgent:"
            " see --time and --level.",
            err=True,
        )
    elif len(found) in (query.limit, _MOST):  # other machines give no more than that
        click.echo(
            f"These are the newest {len(found):,}; there may be more: see --limit and --since.", err=True
        )


def _follow(source: Source, query: LogQuery, show: _Printer) -> NoReturn:
    """Show what is there and what comes, until interrupted; trouble on the way is said and outlived."""
    from parvis.observe.log_source import SourceError, follower
    from parvis.observe.logs import terminal_line

    following = follower(source, query)
    show(sorted(following.new(), key=lambda record: record.time))
    said, say_again = "", 0.0
    while True:
        time.sleep(_POLL)
        try:
            show(following.new())
        except SourceError as error:
            text = terminal_line(str(error))
            if text != said or time.monotonic() >= say_again:
                click.echo(text, err=True)
                said, say_again = text, time.monotonic() + _COMPLAINT_INTERVAL
        else:
            said = ""
