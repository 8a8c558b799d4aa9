"""Stores what there is once in a series: header and mask before all images, the manifest behind them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from parvis_services.acquire.news import News
from parvis_services.acquire.series_record import SeriesRecord
from parvis_services.acquire.series_shelf import SeriesShelf
from parvis_services.acquire.uploader import Pauses, Trouble
from parvis_services.acquire.writer_store import WriterStore
from parvis_services.stores.series_header import dump_mask
from parvis_services.stores.store import AccessDenied, ObjectExists, StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOOK_EVERY: Final = 0.5
_MOST_MOVES: Final = 1000
_HEADER: Final = "header"
_MASK: Final = "mask"


class Keeper:
    """A thread that takes each series from its header to its manifest.

    Args:
        shelf: The series.
        store: Where to.
        news: Is told when a series is placed, ready or closed.
        trouble: Where to say that the store fails.
        log: Where to say what else is wrong.
    """

    def __init__(
        self, shelf: SeriesShelf, store: WriterStore, news: News, trouble: Trouble, log: logging.Logger
    ) -> None:
        self._shelf = shelf
        self._store = store
        self._news = news
        self._trouble = trouble
        self.log = log
        self._stopping = threading.Event()
        self._masks: dict[str, NDArray[np.uint32]] = {}
        self._due: dict[str, tuple[float, Pauses]] = {}  # series that failed: when to try again
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin; first with what a process before this one has left behind."""
        self._thread.start()

    def keep(self, record: SeriesRecord, header: bytes, mask: NDArray[np.uint32] | None) -> None:
        """Take what is to be stored of a new series. Raises OSError if its header cannot be kept."""
        self._shelf.journals.keep(record.name, _HEADER, header)
        if mask is not None:
            self._masks[record.name] = mask

    def stop(self, seconds: float) -> None:
        """Store the manifests of series that are over, within some seconds, and end."""
        deadline = time.monotonic() + seconds
        self._news.wait_for(lambda: not any(map(_is_over, self._shelf.in_hand())), seconds)
        self._stopping.set()
        self._news.tell()
        self._thread.join(max(1.0, deadline - time.monotonic()))

    def _run(self) -> None:
        dump_mask(np.zeros((1, 1), np.uint32))  # the first one takes longer, and images would wait for it
        while not self._stopping.is_set():
            seen = self._news.count
            for record in self._shelf.in_hand():
                self._advance(record)
            self._news.wait(seen, _LOOK_EVERY)
        with contextlib.suppress(OSError):
            for record in self._shelf.in_hand():
                self._keep_mask(record)

    def _advance(self, record: SeriesRecord) -> None:
        """Do what is due for a series, if it did not fail a moment ago."""
        due, pauses = self._due.get(record.name, (0.0, Pauses()))
        if time.monotonic() < due:
            return
        try:
            done = any(step(record) for step in self._steps())
        except StoreError as error:
            self._trouble.note(error)
        except OSError as error:
            self.log.error("the journal %s cannot be written: %s", record.journal.path, error.strerror)
        except Exception:
            self.log.exception("series %s cannot go on for now", record.name)
        else:
            self._due.pop(record.name, None)
            if done:
                self._trouble.over()
                self._news.tell()
            return
        self._due[record.name] = (time.monotonic() + pauses.next(), pauses)

    def _steps(self) -> Sequence[Callable[[SeriesRecord], bool]]:
        """What there is to do, in order; each says whether it did something."""
        return (self._place, self._keep_mask, self._store_mask, self._find_lost, self._finish)

    def _keep_mask(self, record: SeriesRecord) -> bool:
        mask = self._masks.get(record.name)
        if mask is None:
            return False
        content, metadata = dump_mask(mask)
        self._shelf.journals.keep(record.name, _MASK, content)
        record.keep_mask(metadata)
        del self._masks[record.name]
        return True

    def _place(self, record: SeriesRecord) -> bool:
        """Store the header, where no other series is."""
        if record.is_placed:
            return False
        header = self._shelf.journals.kept(record.name, _HEADER)
        if header is None:
            self.log.error("the header of series %s is lost: its images are stored without", record.name)
            record.placed()
            return True
        for _ in range(_MOST_MOVES):
            was_tried = record.was_tried
            record.trying()
            place = record.place
            try:
                self._store.put(place.bucket, place.header, header)
            except ObjectExists:
                if was_tried and self._is_ours(record, header):
                    break
                self.log.warning("another series is in %s: moving on", place.frames_prefix or place.bucket)
                record.move()
            else:
                break
        record.placed()
        self._shelf.journals.discard(record.name, _HEADER)
        return True

    def _is_ours(self, record: SeriesRecord, header: bytes) -> bool:
        try:
            self._store.confirm(record.place.bucket, record.place.header, header)
        except ObjectExists:
            return False
        return True

    def _store_mask(self, record: SeriesRecord) -> bool:
        if record.is_ready or not record.is_placed:
            return False
        mask = self._shelf.journals.kept(record.name, _MASK) if record.mask else None
        if mask is not None:
            place = record.place
            self._store.put(place.bucket, place.mask, mask, record.mask, replace=True)
        elif record.facts.has_mask:
            self.log.error("the mask of series %s is lost", record.name)
        record.ready()
        self._shelf.journals.discard(record.name, _MASK)
        return True

    def _find_lost(self, record: SeriesRecord) -> bool:
        """Look which of the images were stored that a process before this one had in hand when it ended."""
        unsure = record.unsure() if record.is_placed else []
        place = record.place
        for number in unsure:
            try:
                found = self._store.find(place.bucket, place.frame(number))
            except AccessDenied as error:
                self.log.warning("image %d of %s may be stored or not: %s", number, record.name, error)
                found = None
            if found is None:
                record.forget(number)
            else:
                record.store(number, found)
        return bool(unsure)

    def _finish(self, record: SeriesRecord) -> bool:
        """Store the manifest once all is over."""
        if not _is_over(record):
            return False
        changes, place = record.changes, record.place
        manifest = record.manifest(self._store.writer)
        self._store.put(place.bucket, place.manifest, manifest.dump(), replace=True)
        if record.close(changes):
            self.log.info(
                "series %s is over (%s): %d images stored%s",
                place.frames_prefix or place.bucket,
                manifest.ended,
                manifest.stored,
                f", missing: {shown(manifest.missing)}" if manifest.missing else "",
            )
        return True


def shown(ranges: Sequence[tuple[int, int]], most: int = 10) -> str:
    """Ranges of numbers for people: `3, 7-12`."""
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    more = len(ranges) - most
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _is_over(record: SeriesRecord) -> bool:
    """Whether only the manifest is missing."""
    return record.ended is not None and record.is_ready and not record.waiting and not record.is_closed
