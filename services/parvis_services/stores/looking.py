"""`parvis store manifest`, `link` and `policy`: what there is to know of a series, an object and a bucket."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from parvis.cli.options import json_option
from parvis.cli.printing import print_json
from parvis_services.stores.arguments import (
    SeriesType,
    UrlType,
    manifest_of,
    opened,
    with_storage,
    written_ranges,
    written_size,
    written_time,
)

if TYPE_CHECKING:
    from parvis_services.stores.manifest import Manifest
    from parvis_services.stores.url import ObjectUrl


@click.command(
    epilog="""\b
Examples:
  parvis store manifest s3://ceph/i04/993677/1
  parvis store manifest s3://ceph/i04/993677/1 --json | jq .missing
""",
)
@click.argument("series", metavar="URL", type=SeriesType())
@json_option
@with_storage
def manifest(series: ObjectUrl, as_json: bool, storage: Mapping[str, Any]) -> None:
    """Show what became of the images of a series.

    Who wrote the series leaves a manifest when it ends: how many images were to come, came and were stored,
    which are missing, which of these had to be dropped, and which the recipe was told of.

    Exit code: 0 nothing is missing, 1 something is, or there is no manifest (yet), 2 wrong usage.
    """
    from parvis_services.stores.layout import SeriesPlace

    found = manifest_of(opened(series, "read", storage), SeriesPlace.of(series))
    if found is None:
        raise click.ClickException(f"{series} has no manifest: the series has not ended, or is not there")
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        for label, text in _lines(found):
            click.echo(f"{click.style(f'{label:12}', bold=True)} {text}")
    if found.missing:
        sys.exit(1)


def _lines(found: Manifest) -> Iterator[tuple[str, str]]:
    from parvis.recipe.problem import printable
    from parvis_services.stores.manifest import count_in

    def counted(ranges: list[tuple[int, int]]) -> str:
        return f"{count_in(ranges):,}: {written_ranges(ranges)}" if ranges else "0"

    unique = f" ({printable(found.unique_id)})" if found.unique_id else ""
    yield "series", f"{found.series} of data collection {found.dcid}{unique}, layout {found.layout}"
    yield "expected", "not known" if found.expected is None else f"{found.expected:,}"
    yield "received", f"{found.received:,}"
    yield "stored", f"{found.stored:,}, {written_size(found.bytes)}"
    yield "missing", counted(found.missing)
    yield "dropped", counted(found.dropped)
    yield "came again", f"{found.duplicates:,}"
    yield "unreadable", f"{found.garbage:,}"
    yield "told", counted(found.told)
    yield "first seen", written_time(found.first_seen)
    yield "last seen", written_time(found.last_seen)
    yield "ended by", found.ended
    yield "images", printable(found.frames, 1000) or "-"


@click.command(
    epilog="""\b
Examples:
  parvis store link s3://ceph/i04/993677/1/000007
  parvis store get "$(parvis store link s3://ceph/i04/993677/1/000007)" -o 7
""",
)
@click.argument("url", metavar="URL", type=UrlType())
@click.option(
    "--seconds",
    type=click.IntRange(1, 7 * 86_400),
    default=600,
    show_default=True,
    help="How long it is good for, at most a week.",
)
@json_option
@with_storage
def link(url: ObjectUrl, seconds: int, as_json: bool, storage: Mapping[str, Any]) -> None:
    """Print a link that fetches an object without a login.

    Whoever has the link has the object: give it to nobody else. When its time is over, the store answers 403
    (forbidden), as it does if the clocks of the two differ a lot: then ask for a new one. It cannot be called
    back. Only S3 stores have links.
    """
    if not url.key:
        raise click.UsageError(f"{url} is no object: name one")
    store = opened(url, "read", storage)
    store.stat(url.bucket, url.key)  # a link to what is not there would be found out by whoever uses it
    made = store.presign(url.bucket, url.key, seconds)
    if as_json:
        print_json({"url": str(url), "link": made, "seconds": seconds})
    else:
        click.echo(made)


@click.command(
    epilog="""\b
Examples:
  parvis store policy ceph i04 --reader pia --writer cephwriter
  parvis store policy ceph i04 --reader pia --writer cephwriter --apply
""",
)
@click.argument("profile", metavar="STORE")
@click.argument("bucket", metavar="BUCKET")
@click.option("--reader", "readers", multiple=True, metavar="USER", help="May fetch and list. Repeatable.")
@click.option("--writer", "writers", multiple=True, metavar="USER", help="May put. Repeatable.")
@click.option("--tenant", default="", metavar="NAME", help="Whose users they are, where there are tenants.")
@click.option(
    "--apply", "in_force", is_flag=True, help="Put it in force, and make the bucket: needs the role manage."
)
@with_storage
def policy(
    profile: str,
    bucket: str,
    readers: tuple[str, ...],
    writers: tuple[str, ...],
    tenant: str,
    in_force: bool,
    storage: Mapping[str, Any],
) -> None:
    """Print the policy by which each user may do in BUCKET what it needs to, and no more.

    Readers (analysis, watchers) can fetch and list, writers (CephWriter) can put. Only the owner of the
    bucket, who is to be the login of the role manage, can delete. USER is a user of the store: what
    `radosgw-admin user create --uid` named.
    """
    from parvis_services.stores.policy import bucket_policy
    from parvis_services.stores.profiles import S3Profile, profile_of

    if not isinstance(profile_of(profile, storage), S3Profile):
        raise click.UsageError(f"{profile} is a directory: who may do what is a matter of its permissions")
    try:
        text = bucket_policy(bucket, readers, writers, tenant)
    except ValueError as error:
        raise click.UsageError(f"{error}: give --reader and --writer") from None
    click.echo(text)
    if in_force:
        made = _put_in_force(profile, bucket, text, storage)
        click.echo(f"It is in force in {profile}/{bucket}{', a new bucket' * made}.", err=True)


def _put_in_force(profile: str, bucket: str, text: str, storage: Mapping[str, Any]) -> bool:
    """Have a bucket with this policy; return whether it is a new one."""
    from contextlib import closing

    from parvis_services.stores.profiles import open_store
    from parvis_services.stores.s3 import S3Store

    with closing(open_store(profile, "manage", storage)) as store:
        assert isinstance(store, S3Store)  # noqa: S101 - the profile says so
        made = store.make_bucket(bucket)
        store.set_policy(bucket, text)
        return made
