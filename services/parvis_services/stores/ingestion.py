"""Putting a series that is in files into a store, as if the detector had streamed it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from parvis_services.stores.expiry import EXPERIMENT_CLASS
from parvis_services.stores.frame_metadata import metadata_of
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.manifest import Manifest, ranges_of
from parvis_services.stores.recorded_series import RecordedSeries
from parvis_services.stores.series_header import dump_header, dump_mask, load_header
from parvis_services.stores.store import CHECKSUM, Bytes, ImageStore, ObjectExists
from parvis_services.xray.errors import ImageError

#: Images on their way at a time, if nobody says.
PARALLEL: Final = 4


class Conflict(Exception):
    """Something else is stored where the series is to go."""


@dataclass(slots=True)
class Ingested:
    """What came of it.

    Attributes:
        images: How many images the files have.
        stored: How many were stored now.
        size: Bytes of these.
        present: How many were there already.
        problems: Of images that could not be read, by number, why not.
        seconds: How long it took.
    """

    images: int
    stored: int = 0
    size: int = 0
    present: int = 0
    problems: dict[int, str] = field(default_factory=dict[int, str])
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Images a second."""
        return (self.stored + self.present) / self.seconds if self.seconds else 0.0


class Ingestion:
    """Puts a series into a store; what is there already is not stored again, so it can be done twice.

    Args:
        series: The images.
        store: Must be allowed to write.
        place: Where in it; the bucket must be there.
        experiment: What class of experiment it is, if that is known.
        reader: The same store, allowed to read: then what is there already is compared. Without it, it is
            taken to be the same.
        parallel: How many images are on their way at a time.
    """

    def __init__(
        self,
        series: RecordedSeries,
        store: ImageStore,
        place: SeriesPlace,
        *,
        experiment: str | None = None,
        reader: ImageStore | None = None,
        parallel: int = PARALLEL,
    ) -> None:
        self._series = series
        self._store = store
        self._place = place
        self._experiment = experiment
        self._reader = reader
        self._parallel = parallel
        self._room = threading.BoundedSemaphore(2 * parallel)
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._done = Ingested(series.images)
        self._bytes = 0

    @property
    def url(self) -> str:
        """The address of the series."""
        return str(self._store.url(self._place.bucket, self._place.frames_prefix.rstrip("/")))

    def run(self, progress: Callable[[Ingested], None] = lambda _: None) -> Ingested:
        """Do it.

        Args:
            progress: Called with what is done so far, after each image.

        Raises:
            Conflict: Another series is stored there.
            StoreError: The store did not take it.
        """
        begun = time.time()
        self._put_beginning()
        self._put_images(progress)
        self._put_manifest(begun)
        self._done.seconds = time.time() - begun
        return self._done

    def _put_beginning(self) -> None:
        """Store header and mask: with them, each image can be analysed as soon as it is there."""
        place, series = self._place, self._series
        told = {EXPERIMENT_CLASS: self._experiment} if self._experiment else {}
        start = series.start(place.series, {"dcid": place.dcid, **told})
        header = dump_header(start, place.dcid, place.layout)
        if place.layout == "prototype" and series.config is not None:
            header = series.config
        self._put_header(header)
        if start.mask is not None:
            self._put_once(place.mask, *dump_mask(start.mask))

    def _put_header(self, header: bytes) -> None:
        """Store the header; over one that knew of fewer images, as a file may still have grown."""
        bucket, key = self._place.bucket, self._place.header
        try:
            self._store.put(bucket, key, header)
        except ObjectExists:
            if self._reader is None:
                return
            there, ours = load_header(self._reader.get(bucket, key).data), load_header(header)
            if replace(there, images=ours.images) != ours:
                raise self._conflict(key) from None
            if there.images != ours.images:
                self._store.put(bucket, key, header, replace=True)

    def _put_images(self, progress: Callable[[Ingested], None]) -> None:
        with ThreadPoolExecutor(self._parallel) as pool:
            for number in range(1, self._series.images + 1):
                if self._failure is not None:
                    break
                progress(self._done)
                try:
                    frame = self._series.frame(number - 1, self._place.series)
                except ImageError as error:
                    self._done.problems[number] = error.reason
                    continue
                self._room.acquire()
                pool.submit(self._put_image, number, frame.data, metadata_of(frame, time.time()))
        if self._failure is not None:
            raise self._failure
        progress(self._done)

    def _put_image(self, number: int, data: memoryview, metadata: Mapping[str, str]) -> None:
        try:
            if self._failure is not None:
                return
            is_new = self._put_once(self._place.frame(number), data, metadata)
        except Exception as error:  # noqa: BLE001 - raised again when all threads have ended
            self._failure = self._failure or error
            return
        finally:
            self._room.release()
        with self._lock:
            self._bytes += data.nbytes
            self._done.stored += is_new
            self._done.present += not is_new
            self._done.size += data.nbytes if is_new else 0

    def _put_once(self, key: str, data: Bytes, metadata: Mapping[str, str]) -> bool:
        """Store an object unless it is there; return whether it was not."""
        try:
            self._store.put(self._place.bucket, key, data, metadata)
        except ObjectExists:
            self._compare(key, data)
            return False
        return True

    def _compare(self, key: str, data: Bytes) -> None:
        if self._reader is None:
            return
        there = self._reader.stat(self._place.bucket, key).metadata.get(CHECKSUM)
        if there is not None and there != hashlib.sha256(data).hexdigest():
            raise self._conflict(key)

    def _conflict(self, key: str) -> Conflict:
        return Conflict(
            f"{self._store.url(self._place.bucket, key)} is there already, and is something else: give "
            "another --series, or delete what is there with `parvis store cleanup`"
        )

    def _put_manifest(self, begun: float) -> None:
        done, place = self._done, self._place
        there = done.stored + done.present
        manifest = Manifest(
            dcid=place.dcid,
            series=place.series,
            layout=place.layout,
            expected=done.images,
            received=there,
            stored=there,
            missing=ranges_of(done.problems),
            bytes=self._bytes,
            first_seen=begun,
            last_seen=time.time(),
            ended="stopped" if done.problems else "end message",
            header=str(self._store.url(place.bucket, place.header)),
            frames=self.url,
        ).dump()
        try:
            self._store.put(place.bucket, place.manifest, manifest)
        except ObjectExists:
            if done.stored:
                self._store.put(place.bucket, place.manifest, manifest, replace=True)
