"""Deleting a series, so that it can be gone on with after being interrupted."""

from __future__ import annotations

from collections.abc import Callable

from parvis_services.stores.catalogue import place_of
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.store import ImageStore, StoreError


def remove_series(store: ImageStore, place: SeriesPlace, stopped: Callable[[], bool] = lambda: False) -> int:
    """Delete a series whole: its images first, what tells of them last.

    So of a series that is deleted in part there is a header, by which it is known for what it is, and whoever
    deletes next time what is left finds all of it. That two do it at once does no harm.

    Args:
        store: Where; must be allowed to list and delete.
        place: The series.
        stopped: Whether to stop between two pages of a listing.

    Returns:
        How many objects were deleted.

    Raises:
        StoreError: The store did not do it, or not all of it.
    """
    last: list[str] = []
    deleted, after = 0, ""
    while not stopped() and (page := store.list_after(place.bucket, place.frames_prefix, after)):
        after = page[-1].key
        keys = [entry.key for entry in page if place_of(store, place.bucket, entry.key) == place]
        images = [key for key in keys if place.number_of(key) is not None]
        if images:
            store.delete(place.bucket, images)
        deleted += len(images)
        last += [key for key in keys if place.number_of(key) is None]
    if stopped():
        return deleted
    for keys in _in_order(place, last):
        store.delete(place.bucket, keys)
        deleted += len(keys)
    return deleted


def remove_empty_bucket(store: ImageStore, bucket: str) -> bool:
    """Remove a bucket; return False if there is something in it, or somebody else has removed it.

    Raises:
        StoreError: The store did not do it.
    """
    try:
        if store.list_after(bucket, limit=1):
            return False
        store.remove_bucket(bucket)
    except StoreError:
        if bucket not in store.buckets():
            return False
        raise
    return True


def _in_order(place: SeriesPlace, keys: list[str]) -> list[list[str]]:
    """What is no image, in groups: one after the other is to go."""
    pins = [key for key in keys if key.startswith(place.pins_prefix)]
    others = [key for key in keys if key not in {place.header, *pins}]
    header = [key for key in keys if key == place.header]
    return [group for group in (others, header, pins) if group]
