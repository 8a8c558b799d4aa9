"""What the commands of `parvis store` have in common: addresses, configuration, how things are written."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from parvis.cli.environments import environments_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from parvis_services.stores.layout import SeriesPlace
    from parvis_services.stores.manifest import Manifest
    from parvis_services.stores.profiles import Role
    from parvis_services.stores.store import ImageStore
    from parvis_services.stores.url import ObjectUrl

_LOGIN: Final = (
    "an address names a store of the configuration, as s3://STORE/BUCKET/KEY, and never a login: put that "
    "into a profile under parvis.stores (`parvis store ls` lists them). Whoever looked at the processes of "
    "this machine may have seen the secret: have it changed"
)


class UrlType(click.ParamType):
    """The address of an object, of a series, or of a bucket."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ObjectUrl:
        """Read it; an address with a login in it is refused, and not repeated."""
        from parvis_services.stores.url import BadUrl, ObjectUrl

        if isinstance(value, ObjectUrl):
            return value
        if "@" in value:
            self.fail(_LOGIN, param, ctx)
        try:
            return ObjectUrl.parse(value)
        except BadUrl as error:
            self.fail(str(error), param, ctx)


class SeriesType(UrlType):
    """The address of a series: of any of its objects, or what all of them begin with."""

    name = "series"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ObjectUrl:
        """Read it; return what all keys of the series begin with, without the slash at its end."""
        from parvis_services.stores.layout import SeriesPlace
        from parvis_services.stores.url import BadUrl

        url = super().convert(value, param, ctx)
        try:
            return series_url(url, SeriesPlace.of(url))
        except BadUrl as error:
            self.fail(str(error), param, ctx)


def with_storage(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `-e`, and the storage of the configuration as `storage`."""

    @functools.wraps(function)
    def wrapper(*args: Any, environments: tuple[str, ...], **given: Any) -> Any:
        from parvis.config import Config

        ctx = click.get_current_context()
        config = Config.load(environments=(*ctx.meta.get("parvis.environments", ()), *environments))
        return function(*args, storage=config.storage, **given)

    return environments_option(wrapper)


def series_url(url: ObjectUrl, place: SeriesPlace) -> ObjectUrl:
    """The address of a series, as people give it."""
    return replace(url, key=place.frames_prefix.rstrip("/"))


def opened(url: ObjectUrl, role: Role, storage: Mapping[str, Any]) -> ImageStore:
    """The store of an address, by whoever may do all if nobody else is configured here.

    It is closed when the command ends.
    """
    from parvis_services.stores.profiles import StoreNotConfigured, store_of

    try:
        store = store_of(url, role, storage)
    except StoreNotConfigured:
        try:
            store = store_of(url, "manage", storage)
        except StoreNotConfigured:
            store = None
        if store is None:
            raise
    click.get_current_context().call_on_close(store.close)
    return store


def manifest_of(store: ImageStore, place: SeriesPlace) -> Manifest | None:
    """The manifest of a series, or None if it has none (yet). Raises StoreError, BadManifest."""
    from parvis_services.stores.manifest import Manifest
    from parvis_services.stores.store import NoSuchObject

    try:
        return Manifest.load(store.get(place.bucket, place.manifest).data)
    except NoSuchObject:
        return None


def written_ranges(ranges: Iterable[tuple[int, int]], limit: int = 20) -> str:
    """Ranges of image numbers, as people write them: `3, 7-12`."""
    known = list(ranges)
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in known[:limit]]
    more = len(known) - limit
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def written_size(size: float) -> str:
    """Bytes, as people write them: `4.1 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def written_time(moment: float | None) -> str:
    """A moment in seconds since 1970, as people write it here; `-` for none."""
    return "-" if not moment else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def plural(count: int, noun: str) -> str:
    """`1 image`, `2 images`; nouns that do not change with their number: `series`."""
    return f"{count:,} {noun}" + ("" if count == 1 or noun == "series" else "s")
