"""`parvis store ingest`: puts a series that is in files into a store."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from parvis.cli.options import json_option
from parvis.cli.printing import print_json
from parvis_services.stores.arguments import plural, with_storage, written_ranges, written_size
from parvis_services.stores.progress import progress_bar

if TYPE_CHECKING:
    from parvis_services.stores.ingestion import Ingested
    from parvis_services.stores.profiles import Role
    from parvis_services.stores.store import ImageStore

_SHOWN_PROBLEMS: Final = 5


@click.command(
    no_args_is_help=True,
    epilog="""\b
Examples:
  parvis store ingest x_master.h5 993677 --bucket i04
  parvis store ingest x_1.nxs 993677 --store ceph --bucket i04 --prefix cm123
  parvis store ingest grid.nxs 993677 --bucket i04 --experiment grid
  parvis store ingest x_master.h5 993677 --layout prototype
""",
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("dcid", metavar="DCID", type=click.IntRange(1, 10**18))
@click.option("--store", "profile", metavar="NAME", help="Which store; not needed if there is only one.")
@click.option("--bucket", metavar="NAME", help="Which bucket; who may make one makes it.")
@click.option("--prefix", default="", metavar="TEXT", help="What keys begin with, such as a visit.")
@click.option(
    "--series", default=1, show_default=True, type=click.IntRange(0, 10**9), help="Number of the series."
)
@click.option(
    "--layout",
    type=click.Choice(["standard", "prototype"]),
    default="standard",
    show_default=True,
    help="PREFIX/DCID/SERIES/ in a bucket; or a bucket for each DCID.",
)
@click.option("--experiment", metavar="CLASS", help="What it is, such as grid: it says how long it stays.")
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Images on their way at a time.",
)
@json_option
@with_storage
def ingest(
    file: Path,
    dcid: int,
    profile: str | None,
    bucket: str | None,
    prefix: str,
    series: int,
    layout: Any,
    experiment: str | None,
    parallel: int,
    as_json: bool,
    storage: Mapping[str, Any],
) -> None:
    """Put the images of FILE into a store, as a series of collection DCID.

    FILE is an HDF5 master file (NXmx, EIGER). Compressed images are stored as they are. What is there already
    is not stored again: after a failure, do the same once more.

    Exit code: 0 all is stored, 1 not all, 2 wrong usage.
    """
    from parvis_services.stores.ingestion import Ingestion
    from parvis_services.stores.layout import SeriesPlace
    from parvis_services.stores.recorded_series import RecordedSeries
    from parvis_services.stores.url import BadUrl

    name = profile or _only_store(storage)
    if (bucket is None) == (layout == "standard"):
        raise click.UsageError("say which --bucket" if bucket is None else "the bucket is the DCID here")
    try:
        place = SeriesPlace(layout, bucket or str(dcid), prefix.strip("/"), dcid, series)
    except BadUrl as error:
        raise click.UsageError(str(error)) from None
    with contextlib.closing(RecordedSeries(file, only_bslz4=layout == "prototype")) as recorded:
        _warn_of_tilt(recorded.tilt)
        store, reader = _logins(name, place.bucket, storage)
        ingestion = Ingestion(recorded, store, place, experiment=experiment, reader=reader, parallel=parallel)
        with progress_bar("images stored") as moved:
            done = ingestion.run(lambda done: moved(done.stored + done.present, done.images))
    _report(done, ingestion.url, as_json)
    if done.problems:
        sys.exit(1)


def _only_store(storage: Mapping[str, Any]) -> str:
    from parvis_services.stores.profiles import KEY, profiles

    names = list(profiles(storage))
    if not names:
        raise click.UsageError(f"the configuration has no stores: name them under {KEY}")
    if len(names) > 1:
        raise click.UsageError(f"say which --store: {', '.join(names)}")
    return names[0]


def _warn_of_tilt(degrees: float) -> None:
    if degrees:
        click.echo(
            f"Warning: the detector is tilted by {degrees:.2f} degrees, which the header of a stored series "
            "cannot say: resolutions will differ a little from those of the file.",
            err=True,
        )


def _logins(name: str, bucket: str, storage: Mapping[str, Any]) -> tuple[ImageStore, ImageStore | None]:
    """Who writes, and who compares what is there already, if anybody can.

    Who may do all does both, and makes the bucket: nobody else can write into a new one yet.
    """
    from parvis_services.stores.profiles import StoreNotConfigured, open_store

    def opened(role: Role) -> ImageStore | None:
        try:
            store = open_store(name, role, storage)
        except StoreNotConfigured:
            return None
        click.get_current_context().call_on_close(store.close)
        return store

    manager = opened("manage")
    if manager is None:
        return opened("write") or open_store(name, "write", storage), opened("read")
    if manager.make_bucket(bucket):
        click.echo(f"Made the bucket {bucket}.", err=True)
    return manager, manager


def _report(done: Ingested, url: str, as_json: bool) -> None:
    from parvis.recipe.problem import printable
    from parvis_services.stores.manifest import ranges_of

    missing = ranges_of(done.problems)
    if as_json:
        print_json(
            {
                "series": url,
                "images": done.images,
                "stored": done.stored,
                "present": done.present,
                "missing": missing,
                "bytes": done.size,
                "seconds": round(done.seconds, 3),
                "images_per_second": round(done.rate, 1),
            }
        )
    else:
        there = f"; {done.present:,} were there already" if done.present else ""
        click.echo(
            f"Stored {plural(done.stored, 'image')}, {written_size(done.size)}, in {done.seconds:.1f} s "
            f"({done.rate:.0f} images/s, {written_size(done.size / max(done.seconds, 1e-9))}/s){there}"
        )
        click.echo(f"  {url}")
    for number, reason in list(done.problems.items())[:_SHOWN_PROBLEMS]:
        click.echo(f"Error: image {number} is not stored: {printable(reason, 300)}", err=True)
    if len(done.problems) > _SHOWN_PROBLEMS:
        click.echo(f"Error: not stored are the images {written_ranges(missing)}", err=True)
