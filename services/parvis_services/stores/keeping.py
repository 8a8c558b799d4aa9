"""`parvis store pin`, `unpin`, `expire` and `cleanup`: how long series are kept, and how they are deleted."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from parvis.cli.moments import FiniteRange
from parvis.cli.options import json_option
from parvis.cli.printing import print_json
from parvis_services.stores.arguments import (
    SeriesType,
    UrlType,
    opened,
    plural,
    series_url,
    with_storage,
    written_size,
    written_time,
)

if TYPE_CHECKING:
    from parvis_services.stores.catalogue import StoredSeries
    from parvis_services.stores.expiry import ExpiryRule, Swept
    from parvis_services.stores.store import ImageStore
    from parvis_services.stores.url import ObjectUrl

_token_option = click.option("--token", metavar="NAME", help="Name of the pin; by default that of the user.")


@click.command(
    epilog="""\b
Examples:
  parvis store pin s3://ceph/i04/993677/1 --hours 168
  parvis store pin s3://ceph/i04/993677/1 --hours 24 --token paper
""",
)
@click.argument("series", metavar="URL", type=SeriesType())
@click.option(
    "--hours", type=FiniteRange(0, 720, min_open=True), default=24, show_default=True, help="At most 720."
)
@_token_option
@with_storage
def pin(series: ObjectUrl, hours: float, token: str | None, storage: Mapping[str, Any]) -> None:
    """Keep a series although its time is over.

    To do it again renews the pin. It takes the role write. The store's own rule, which deletes after days, is
    the backstop and knows no pins.
    """
    from parvis_services.stores.layout import SeriesPlace
    from parvis_services.stores.pins import set_pin

    place = SeriesPlace.of(series)
    until = time.time() + 3600 * hours
    set_pin(opened(series, "write", storage), place, token or _user(), until)
    click.echo(f"{series} is kept until {written_time(until)}.")
    _warn_of_backstop(series, place.frames_prefix, hours, storage)


@click.command(
    epilog="""\b
Example:
  parvis store unpin s3://ceph/i04/993677/1
""",
)
@click.argument("series", metavar="URL", type=SeriesType())
@_token_option
@with_storage
def unpin(series: ObjectUrl, token: str | None, storage: Mapping[str, Any]) -> None:
    """Keep a series no longer because of this pin; others may still hold."""
    from parvis_services.stores.layout import SeriesPlace
    from parvis_services.stores.pins import release

    release(opened(series, "write", storage), SeriesPlace.of(series), token or _user())
    click.echo(f"{series}: the pin is released.")


def _user() -> str:
    from parvis_services.stores.pins import token_of

    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container may run us as a number without a name
        name = ""
    return token_of(name)


def _warn_of_backstop(url: ObjectUrl, prefix: str, hours: float, storage: Mapping[str, Any]) -> None:
    from parvis_services.stores.expiry import rules_of

    days = [
        rule.days
        for rule in rules_of(storage)
        if rule.store == url.profile and rule.bucket in {url.bucket, None} and prefix.startswith(rule.begins)
    ]
    if url.scheme == "s3" and days and min(days) * 24 < hours:
        click.echo(
            f"Warning: the store itself deletes what is {min(days)} days old, pinned or not.",
            err=True,
        )


@click.command(
    epilog="""\b
Examples:
  parvis store expire --dry-run
  parvis store expire
""",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@json_option
@with_storage
def expire(dry_run: bool, as_json: bool, storage: Mapping[str, Any]) -> None:
    """Delete the series whose time is over, once, as the service StoreSweeper does all the time.

    How long series stay says parvis.store_expiry. Series with a pin that holds are kept.

    Exit code: 0 done, 1 a store could not be swept, or is too full, 2 wrong usage.
    """
    from contextlib import closing

    from parvis_services.stores.expiry import EXPIRY, rules_of, sweep
    from parvis_services.stores.profiles import open_store
    from parvis_services.stores.store import StoreError

    rules = rules_of(storage)
    if not rules:
        raise click.UsageError(f"{EXPIRY} of the configuration has no rules: nothing expires")
    well = True
    for rule in rules:
        with closing(open_store(rule.store, "manage", storage)) as store:
            try:
                swept = sweep(store, rule, rules, time.time(), dry_run=dry_run)
            except StoreError as error:
                click.echo(f"Error: {rule.where}: {error}", err=True)
                well = False
                continue
            _report(store, rule, swept, dry_run, as_json)
            well = well and not swept.alarm
    if not well:
        sys.exit(1)


def _report(store: ImageStore, rule: ExpiryRule, swept: Swept, dry_run: bool, as_json: bool) -> None:
    def urls(found: list[StoredSeries]) -> list[str]:
        return [str(series_url(store.url(one.place.bucket), one.place)) for one in found]

    if as_json:
        print_json(
            {
                "rule": rule.where,
                "deleted": [] if dry_run else urls(swept.deleted),
                "expired": urls(swept.deleted),
                "pinned": urls(swept.pinned),
                "kept": swept.kept,
                "used": swept.used,
                "room": swept.room,
                "alarm": bool(swept.alarm),
            }
        )
    else:
        for url in urls(swept.deleted):
            click.echo(f"{'would delete' if dry_run else 'deleted'} {url}")
        for url in urls(swept.pinned):
            click.echo(f"pinned {url}")
        percent = "" if swept.percent is None else f", {swept.percent:.0f} % full"
        click.echo(f"{rule.where}: {plural(swept.kept, 'series')} kept, {written_size(swept.used)}{percent}")
    if swept.alarm:
        click.echo(f"Warning: {swept.alarm}", err=True)


@click.command(
    epilog="""\b
Examples:
  parvis store cleanup s3://ceph/i04/993677/1        one series
  parvis store cleanup s3://ceph/i04/cm123 --yes     all with this prefix
  parvis store cleanup s3://ceph/993677              a bucket, which goes too
""",
)
@click.argument("url", metavar="URL", type=UrlType())
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--pinned", is_flag=True, help="Delete what is pinned, too.")
@with_storage
def cleanup(url: ObjectUrl, yes: bool, pinned: bool, storage: Mapping[str, Any]) -> None:
    """Delete a series, all series with a prefix, or a bucket with all its series.

    Series with a pin that holds are refused. Objects that are part of no series stay, and so does their
    bucket. It takes the role manage.

    Exit code: 0 all is deleted, 1 not all, 2 wrong usage.
    """
    from parvis_services.stores.catalogue import series_in
    from parvis_services.stores.removal import remove_empty_bucket, remove_series

    store = opened(url, "manage", storage)
    found = list(series_in(store, url.bucket, _prefix(url)))
    if not found and url.key:
        raise click.ClickException(f"there is no series at {url}")
    _refuse_pinned(store, url, found, pinned)
    size = written_size(sum(series.size for series in found))
    objects = plural(sum(series.objects for series in found), "object")
    if not yes:
        for series in found[:20]:
            click.echo(f"  {series_url(url, series.place)}", err=True)
        if len(found) > 20:
            click.echo(f"  and {len(found) - 20} more", err=True)
        click.confirm(f"Delete {plural(len(found), 'series')}, {objects}, {size}?", abort=True, err=True)
    deleted = sum(remove_series(store, series.place) for series in found)
    click.echo(f"Deleted {plural(len(found), 'series')}, {plural(deleted, 'object')}, {size}.")
    if not url.key:
        if not remove_empty_bucket(store, url.bucket):
            raise click.ClickException(
                f"the bucket {url.bucket} stays: there are objects in it that are part of no series"
            )
        click.echo(f"Removed the bucket {url.bucket}.")


def _prefix(url: ObjectUrl) -> str:
    """What the keys of all that is to be deleted begin with."""
    from parvis_services.stores.layout import SeriesPlace
    from parvis_services.stores.url import BadUrl

    try:
        place = SeriesPlace.of(url)
    except BadUrl:
        return f"{url.key}/" if url.key else ""
    if (whole := series_url(url, place)) != url:
        raise click.UsageError(f"{url} is one object: series are deleted whole: {whole}")
    return place.frames_prefix


def _refuse_pinned(store: ImageStore, url: ObjectUrl, found: list[StoredSeries], allowed: bool) -> None:
    from parvis_services.stores.pins import pinned_until

    if allowed:
        return
    for series in found:
        until = pinned_until(store, series.place, time.time()) if series.pins else None
        if until is not None:
            raise click.ClickException(
                f"{series_url(url, series.place)} is pinned until {written_time(until)}: it may be in use; "
                "--pinned deletes it all the same"
            )
