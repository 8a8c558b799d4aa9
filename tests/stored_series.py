"""Small series of images in stores, for tests."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.pins import set_pin
from parvis_services.stores.series_header import dump_header
from parvis_services.stores.store import ImageStore
from parvis_services.stream.events import Header, SeriesStart

HOUR = 3600.0


def put_series(
    store: ImageStore,
    dcid: int,
    *,
    bucket: str = "i04",
    prefix: str = "",
    images: int = 3,
    experiment: str | None = None,
    axes: dict[str, tuple[float, float]] | None = None,
    layout: Any = "standard",
) -> SeriesPlace:
    """Store a series of images that are nothing but a few bytes."""
    place = SeriesPlace(layout, bucket, prefix, dcid, 1)
    store.make_bucket(place.bucket)
    appendix = {"experiment_class": experiment} if experiment else None
    start = SeriesStart(1, header=Header(images=images, axes=axes or {}), appendix=appendix)
    store.put(place.bucket, place.header, dump_header(start, dcid, layout))
    for number in range(1, images + 1):
        store.put(place.bucket, place.frame(number), b"image", {"frame": str(number)})
    return place


def age(root: Path, hours: float, *parts: str) -> None:
    """Make everything below a directory of a directory store older."""
    moment = time.time() - hours * HOUR
    for file in (root.joinpath(*parts)).rglob("*"):
        if file.is_file():
            os.utime(file, (moment, moment))


def keys(store: ImageStore, bucket: str = "i04") -> list[str]:
    """What is in a bucket."""
    return [entry.key for entry in store.list_all(bucket)]


def kept(store: ImageStore, bucket: str = "i04") -> list[int]:
    """The data collections that a bucket has any images of."""
    return sorted({int(key.split("/")[-3]) for key in keys(store, bucket) if key[-1].isdigit()})


def pinned(store: ImageStore, place: SeriesPlace, hours: float, name: str = "job") -> None:
    """Pin a series for so many hours from now on."""
    set_pin(store, place, name, time.time() + hours * HOUR)


def configuration(tmp_path: Path, directory: Path, rules: Sequence[dict[str, Any]] = ()) -> Path:
    """A configuration with a store `ram` in a directory, in JSON, which is YAML."""
    directory.mkdir(exist_ok=True)
    storage: dict[str, Any] = {"plugin": "storage", "parvis.stores": {"ram": {"directory": str(directory)}}}
    if rules:
        storage["parvis.store_expiry"] = list(rules)
    file = tmp_path / "site.yml"
    content = {
        "version": 1,
        "storage": storage,
        "environments": {"live": {"plugins": ["storage"]}, "default": "live"},
    }
    file.write_bytes(orjson.dumps(content))
    return file


def directory_store(directory: Path) -> DirectoryStore:
    """The store `ram`."""
    directory.mkdir(exist_ok=True)
    return DirectoryStore("ram", directory)
