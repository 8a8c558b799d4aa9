"""Fetching stored frames for per-image analysis: the next while one is analysed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from parvis.service.figures import Figure

if TYPE_CHECKING:
    from parvis_services.xray.stored_frames import FetchedFrame, StoredFrames

_MOST_AHEAD: Final = 2  # frames that were fetched and not asked for yet


class FrameFetcher:
    """Fetches frames, in a thread of its own those that are announced; counts how long that takes.

    Args:
        frames: Where from.
    """

    def __init__(self, frames: StoredFrames) -> None:
        self._frames = frames
        self._ahead: OrderedDict[str, Future[FetchedFrame]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "parvis-fetch")
        self._lock = threading.Lock()
        self._count = 0
        self._seconds = self._waited = 0.0

    def announce(self, address: str) -> None:
        """Begin to fetch a frame that will be asked for next. Returns at once."""
        with self._lock:
            if address in self._ahead:
                return
            self._ahead[address] = self._thread.submit(self._fetch, address)
            while len(self._ahead) > _MOST_AHEAD:  # nobody came for it
                self._ahead.popitem(last=False)[1].cancel()

    def fetch(self, address: str) -> FetchedFrame:
        """Return a frame, at once if it was announced in time. Raises as `StoredFrames.fetch`."""
        begun = time.monotonic()
        with self._lock:
            announced = self._ahead.pop(address, None)
        try:
            if announced is not None and not announced.cancel() and announced.exception() is None:
                return announced.result()
            return self._fetch(address)  # what went wrong ahead of time may go well now
        finally:
            waited = time.monotonic() - begun
            with self._lock:
                self._waited += waited

    def figures(self) -> list[Figure]:
        """How many frames were fetched, how long that took, and how long somebody waited for them."""
        with self._lock:
            return [
                Figure("images_fetched", "Images fetched from stores", self._count, True),
                Figure("fetch_seconds", "Time spent fetching images from stores", self._seconds, True),
                Figure("fetch_wait_seconds", "Time that analysis waited for images", self._waited, True),
            ]

    def close(self) -> None:
        """Drop what was announced, and let go of connections."""
        with self._lock:
            self._ahead.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._frames.close()

    def _fetch(self, address: str) -> FetchedFrame:
        begun = time.monotonic()
        frame = self._frames.fetch(address)
        with self._lock:
            self._count += 1
            self._seconds += time.monotonic() - begun
        return frame
