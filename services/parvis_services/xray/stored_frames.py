"""Frames in image stores: fetched by address, with what is the same for all frames of their series.

>>> from parvis_services.xray.stored_frames import StoredFrames
>>> frames = StoredFrames({"parvis.stores": {"ram": {"directory": "/dev/shm/images"}}})
>>> frames.fetch("dir://ram/i04/2026/4077358/1/000003").image()  # doctest: +SKIP
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from parvis_services.stores.frame_metadata import BadMetadata, FrameMetadata, read_metadata
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.profiles import Stores
from parvis_services.stores.series_header import BadHeader, load_header, load_mask
from parvis_services.stores.store import DamagedObject, ImageStore, NoSuchObject, StoredObject
from parvis_services.stores.url import BadUrl, ObjectUrl
from parvis_services.xray.errors import BrokenImageError
from parvis_services.xray.images import Buffers, Image
from parvis_services.xray.stored_image import FrameDecoder

_MOST_SERIES: Final = 4
_LOOK_AGAIN: Final = 60.0  # seconds after which it is asked whether a header is still the one that was read


@dataclass(frozen=True, slots=True)
class FetchedFrame:
    """A frame as it was stored.

    Attributes:
        url: Its address.
        data: The counts, as the detector sent them.
        metadata: How they are packed; None if that is not said, as by the first tools for object stores.
        decoder: Makes images of the frames of its series.
    """

    url: str
    data: bytes
    metadata: FrameMetadata | None
    decoder: FrameDecoder

    def image(self, buffers: Buffers | None = None) -> Image:
        """The image.

        Args:
            buffers: As of `images.open_image`.

        Raises:
            BrokenImageError: Frame, header or mask are damaged, or lack what is needed.
        """
        if self.metadata is None:
            return self.decoder.image(self.data, self.url, buffers=buffers)
        return self.decoder.image(
            self.data,
            self.url,
            encoding=self.metadata.encoding,
            shape=self.metadata.shape,
            dtype=self.metadata.dtype,
            buffers=buffers,
        )


@dataclass(slots=True)
class _Series:
    """What is known of a series: its header's etag, and when that was last looked at."""

    decoder: FrameDecoder
    etag: str
    looked: float


class StoredFrames:
    """Fetches frames; keeps connections, and header and mask of the last series. May be used from any thread.

    Args:
        storage: The `storage` of a configuration, where `parvis.stores` names the stores.
        look_again: Seconds after which it is asked whether a header is still the one that was read: an object
            is never overwritten, but a series may be deleted and another be stored in its place.
    """

    def __init__(self, storage: Mapping[str, Any], look_again: float = _LOOK_AGAIN) -> None:
        self._stores = Stores("read", storage)
        self._look_again = look_again
        self._lock = threading.Lock()
        self._series: OrderedDict[ObjectUrl, _Series] = OrderedDict()

    def fetch(self, address: str) -> FetchedFrame:
        """Fetch a frame, and header and mask beside it if they are not known.

        Args:
            address: Such as `s3://STORE/BUCKET/PREFIX/DCID/SERIES/000001`.

        Raises:
            BadUrl: It is no address of an object.
            StoreNotConfigured: The configuration has no such store, or no login to read it.
            NoSuchObject: The frame or its header is not there: not written yet, or expired.
            StoreError: The store does not let us, or did not answer (`StoreUnavailable`), or has something
                else than was stored, twice (`DamagedObject`).
            BrokenImageError: Header, mask or metadata cannot be read.
        """
        url = ObjectUrl.parse(address)
        if not url.key:
            raise BadUrl(f"{url} is the address of a bucket, not of an image")
        store = self._stores.of(url)
        frame = _get(store, url)
        return FetchedFrame(str(url), frame.data, _metadata(url, frame), self._decoder(store, url))

    def frames(self, address: str) -> list[str]:
        """The addresses of all frames of a series, in order; of the one frame, if it is the address of one.

        Args:
            address: Of a series, such as `s3://STORE/BUCKET/PREFIX/DCID/SERIES`, or of a frame.

        Raises: as `fetch`; NoSuchObject also if there are no frames.
        """
        url = ObjectUrl.parse(address)
        try:
            place = SeriesPlace.of(url)
        except BadUrl:
            if not url.key:
                raise
            return [address]
        if place.number_of(url.key) is not None:
            return [address]
        store = self._stores.of(url)
        found = [
            str(store.url(url.bucket, one.key))
            for one in store.list_all(url.bucket, place.frames_prefix)
            if place.number_of(one.key) is not None
        ]
        if not found:
            raise NoSuchObject(url, "there are no images: not written yet, or expired")
        return found

    def close(self) -> None:
        """Let go of connections."""
        self._stores.close()

    def _decoder(self, store: ImageStore, frame: ObjectUrl) -> FrameDecoder:
        where = frame.sibling("header")
        with self._lock:
            series = self._series.get(where)
            if series is None or not self._is_still_good(series, store, where):
                series = self._series[where] = _read_series(store, where)
            self._series.move_to_end(where)
            while len(self._series) > _MOST_SERIES:
                self._series.popitem(last=False)
            return series.decoder

    def _is_still_good(self, series: _Series, store: ImageStore, where: ObjectUrl) -> bool:
        now = time.monotonic()
        if now - series.looked < self._look_again:
            return True
        is_same = store.stat(where.bucket, where.key).etag == series.etag
        series.looked = now
        return is_same


def _read_series(store: ImageStore, where: ObjectUrl) -> _Series:
    looked, header, mask_url = time.monotonic(), _get(store, where), where.sibling("mask")
    try:
        mask = _get(store, mask_url)
    except NoSuchObject:  # detectors need not send one
        mask = None
    try:
        known = load_header(header.data)
        pixels = None if mask is None else load_mask(mask.data, mask.info.metadata)
    except BadHeader as error:
        raise BrokenImageError(str(where), str(error)) from None
    return _Series(FrameDecoder(known, pixels), header.info.etag, looked)


def _get(store: ImageStore, url: ObjectUrl) -> StoredObject:
    """Fetch an object; once more if it is not what was stored, as that may have gone wrong on the way."""
    try:
        return store.get(url.bucket, url.key)
    except DamagedObject:
        return store.get(url.bucket, url.key)


def _metadata(url: ObjectUrl, frame: StoredObject) -> FrameMetadata | None:
    if not {"shape", "dtype", "encoding"} & set(frame.info.metadata):
        return None
    try:
        return read_metadata(frame.info.metadata)
    except BadMetadata as error:
        raise BrokenImageError(str(url), str(error)) from None
