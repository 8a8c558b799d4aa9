"""Which series are in a bucket, and how large they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.store import ImageStore, ObjectInfo
from parvis_services.stores.url import BadUrl


@dataclass(slots=True)
class StoredSeries:
    """A series as a listing shows it.

    Attributes:
        place: Where it is.
        images: How many images it has.
        objects: How many objects, the images among them.
        size: Bytes of all of them.
        first, last: When the first and the last of them were stored, seconds since 1970, pins left out; of a
            series that has nothing but pins, when those were.
        pins: How many pins, also those that hold no more.
        has_header, has_manifest: Whether there are these objects.
    """

    place: SeriesPlace
    images: int = 0
    objects: int = 0
    size: int = 0
    first: float = 0.0
    last: float = 0.0
    pins: int = 0
    has_header: bool = False
    has_manifest: bool = False

    def add(self, entry: ObjectInfo) -> None:
        """Count one of its objects."""
        is_pin = entry.key.startswith(self.place.pins_prefix)
        only_pins = self.objects == self.pins
        self.objects += 1
        self.size += entry.size
        self.pins += is_pin
        self.images += self.place.number_of(entry.key) is not None
        self.has_header |= entry.key == self.place.header
        self.has_manifest |= entry.key == self.place.manifest
        if is_pin and not only_pins:
            return
        begins = self.objects == 1 or (only_pins and not is_pin)
        self.first = entry.modified if begins else min(self.first, entry.modified)
        self.last = entry.modified if begins else max(self.last, entry.modified)


def place_of(store: ImageStore, bucket: str, key: str) -> SeriesPlace | None:
    """The series that an object is part of, or None if it is part of none."""
    try:
        return SeriesPlace.of(store.url(bucket, key))
    except BadUrl:
        return None


def series_in(store: ImageStore, bucket: str, prefix: str = "") -> Iterator[StoredSeries]:
    """Yield the series of a bucket, in the order of their keys; objects of no series are passed over.

    Args:
        store: Where; must be allowed to list.
        bucket: Which bucket.
        prefix: Only keys that begin with it.

    Raises:
        StoreError: The store cannot say.
    """
    current: StoredSeries | None = None
    for entry in store.list_all(bucket, prefix):
        place = place_of(store, bucket, entry.key)
        if place is None:
            continue
        if current is None or current.place != place:
            if current is not None:
                yield current
            current = StoredSeries(place)
        current.add(entry)
    if current is not None:
        yield current
