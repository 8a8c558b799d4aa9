"""`parvis store ls`: lists stores, buckets, series and objects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from parvis.cli.options import json_option
from parvis.cli.printing import print_json
from parvis_services.stores.arguments import (
    UrlType,
    opened,
    plural,
    series_url,
    with_storage,
    written_size,
    written_time,
)

if TYPE_CHECKING:
    from rich.table import Table

    from parvis_services.stores.catalogue import StoredSeries
    from parvis_services.stores.layout import SeriesPlace
    from parvis_services.stores.pins import Pin
    from parvis_services.stores.store import ImageStore, ObjectInfo
    from parvis_services.stores.url import ObjectUrl

_ONLY_STORE: Final = re.compile(r"(?:s3|dir)://([A-Za-z0-9][A-Za-z0-9_-]{0,62})/?", re.ASCII)


class _PlaceType(UrlType):
    """The name of a store in an address without a bucket, or an address."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        bare = _ONLY_STORE.fullmatch(value) if isinstance(value, str) else None
        return bare[1] if bare else super().convert(value, param, ctx)


@click.command(
    epilog="""\b
Examples:
  parvis store ls                        the stores of the configuration
  parvis store ls s3://ceph              its buckets
  parvis store ls s3://ceph/i04          the series in a bucket
  parvis store ls s3://ceph/i04/cm123    those with a prefix
  parvis store ls s3://ceph/i04/993677/1 the objects of a series
""",
)
@click.argument("place", metavar="[URL]", required=False, type=_PlaceType())
@json_option
@with_storage
def ls(place: str | ObjectUrl | None, as_json: bool, storage: Mapping[str, Any]) -> None:
    """List stores, buckets, series and objects, with sizes and times."""
    if place is None:
        _list_stores(storage, as_json)
    elif isinstance(place, str):
        _list_buckets(place, storage, as_json)
    else:
        store = opened(place, "read", storage)
        series = _series_at(place)
        if series is not None:
            _list_objects(store, series, as_json)
        else:
            _list_series(store, place, as_json)


def _series_at(url: ObjectUrl) -> SeriesPlace | None:
    from parvis_services.stores.layout import SeriesPlace
    from parvis_services.stores.url import BadUrl

    try:
        return SeriesPlace.of(url)
    except BadUrl:
        return None


def _list_stores(storage: Mapping[str, Any], as_json: bool) -> None:
    from parvis_services.stores.profiles import KEY, ROLES, S3Profile, profiles, scheme_of

    found = profiles(storage)
    rows: list[dict[str, Any]] = []
    for name, profile in found.items():
        is_s3 = isinstance(profile, S3Profile)
        rows.append(
            {
                "store": f"{scheme_of(profile)}://{name}",
                "place": profile.endpoint if is_s3 else str(profile.directory),
                "roles": [role for role in ROLES if not is_s3 or getattr(profile, role) is not None],
            }
        )
    if as_json:
        _print_each(rows)
    elif not rows:
        click.echo(f"The configuration has no stores: name them under {KEY}.", err=True)
    else:
        table = _table("store", "where", "roles")
        for row in rows:
            table.add_row(row["store"], _text(row["place"]), ", ".join(row["roles"]))
        _print(table)


def _list_buckets(name: str, storage: Mapping[str, Any], as_json: bool) -> None:
    from contextlib import closing

    from parvis_services.stores.profiles import StoreNotConfigured, open_store

    try:
        store = open_store(name, "manage", storage)
    except StoreNotConfigured:
        store = open_store(name, "read", storage)
    with closing(store):  # S3 shows each login its own buckets only
        urls = [str(store.url(bucket)) for bucket in store.buckets()]
    if as_json:
        _print_each([{"bucket": url} for url in urls])
    else:
        click.echo("\n".join(urls) if urls else "There are no buckets.", err=not urls)


def _list_series(store: ImageStore, url: ObjectUrl, as_json: bool) -> None:
    from parvis_services.stores.catalogue import series_in

    prefix = f"{url.key}/" if url.key else ""
    found = series_in(store, url.bucket, prefix)
    if as_json:
        _print_each(_series_row(store, series) for series in found)
        return
    table = _table("series", ">images", ">size", "first stored", "last stored", "pins", "manifest")
    count = size = 0
    for series in found:
        count, size = count + 1, size + series.size
        table.add_row(
            str(series_url(store.url(url.bucket), series.place)),
            f"{series.images:,}",
            written_size(series.size),
            written_time(series.first),
            written_time(series.last),
            str(series.pins or "-"),
            "yes" if series.has_manifest else "-",
        )
    if count:
        _print(table)
    click.echo(f"{plural(count, 'series')}, {written_size(size)}", err=True)


def _series_row(store: ImageStore, series: StoredSeries) -> dict[str, Any]:
    return {
        "series": str(series_url(store.url(series.place.bucket), series.place)),
        "dcid": series.place.dcid,
        "layout": series.place.layout,
        "images": series.images,
        "objects": series.objects,
        "bytes": series.size,
        "first": series.first,
        "last": series.last,
        "pins": series.pins,
        "header": series.has_header,
        "manifest": series.has_manifest,
    }


def _list_objects(store: ImageStore, place: SeriesPlace, as_json: bool) -> None:
    from parvis_services.stores.catalogue import place_of
    from parvis_services.stores.pins import pins_of

    found: Iterator[ObjectInfo] = (
        entry
        for entry in store.list_all(place.bucket, place.frames_prefix)
        if place_of(store, place.bucket, entry.key) == place
    )
    pins = {place.pin(pin.token): pin for pin in pins_of(store, place)}
    if as_json:
        _print_each(_object_row(store, place, entry, pins) for entry in found)
        return
    table = _table("object", ">size", "stored", "checksum")
    count = size = 0
    for entry in found:
        count, size = count + 1, size + entry.size
        pin = pins.get(entry.key)
        table.add_row(
            entry.key.removeprefix(place.frames_prefix),
            written_size(entry.size),
            written_time(entry.modified),
            _pin_text(pin) if pin else _text(entry.etag),
        )
    if count:
        _print(table)
    click.echo(f"{plural(count, 'object')}, {written_size(size)}", err=True)


def _object_row(
    store: ImageStore, place: SeriesPlace, entry: ObjectInfo, pins: Mapping[str, Pin]
) -> dict[str, Any]:
    row = {
        "object": str(store.url(place.bucket, entry.key)),
        "bytes": entry.size,
        "stored": entry.modified,
        "etag": entry.etag,
    }
    pin = pins.get(entry.key)
    return row if pin is None else {**row, "until": pin.until}


def _pin_text(pin: Pin) -> str:
    return f"holds until {written_time(pin.until)}" if pin.until else "released"


def _print_each(rows: Any) -> None:
    for row in rows:
        print_json(row)


def _table(*headings: str) -> Table:
    """A table; a heading that begins with > is of a column of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if heading.startswith(">") else "left",
            overflow="fold",
        )
    return table


def _text(text: str) -> Any:
    from rich.text import Text

    from parvis.recipe.problem import printable

    return Text(printable(text, 200))


def _print(table: Table) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 1000  # programs want whole lines
    console.print(table)
