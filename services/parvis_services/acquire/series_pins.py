"""Pins of the series that recipes are with: what is being analysed must not expire."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from parvis_services.acquire.series_record import SeriesRecord
from parvis_services.stores.pins import set_pin, token_of
from parvis_services.stores.store import ImageStore, StoreError

#: Seconds that a pin holds after it was last renewed: when a recipe's watch ends, the images that it was told
#: of last are still to be analysed, perhaps behind those of others.
LEASE: Final = 6 * 3600.0

_RENEW: Final = 600.0
_TRY_AGAIN: Final = 60.0
_MOST: Final = 10_000
_PATIENCE: Final = 1.0

_Key = tuple[str, str]


@dataclass(slots=True)
class _Watch:
    """A recipe that is with a series, and when its pin is to be set next, by the monotonic clock."""

    record: SeriesRecord
    due: float = 0.0


class SeriesPins:
    """A thread that keeps the series pinned that recipes are with.

    A pin that cannot be set harms nothing but itself: nobody waits for it, it is tried again while the recipe
    stays, and the failure is said once.

    Args:
        store: Where the series are; to be allowed to write is enough.
        log: Where to say that the store takes no pins.

    Attributes:
        failed: How often a pin could not be set.
    """

    def __init__(self, store: ImageStore, log: logging.Logger) -> None:
        self._store = store
        self.log = log
        self.failed = 0
        self._is_failing = False
        self._watches: OrderedDict[_Key, _Watch] = OrderedDict()
        self._due: OrderedDict[_Key, SeriesRecord] = OrderedDict()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="pins", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Set those that are due, if that takes no time to speak of, and end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE)

    def keep(self, record: SeriesRecord, recipe: str | None, *, is_over: bool = False) -> None:
        """A recipe is with a series; to be called again as long as it is. Does not wait for the store.

        Args:
            record: The series.
            recipe: ID of the recipe.
            is_over: Whether it is for the last time: the pin is renewed, and then left to run out.
        """
        if not record.is_placed:
            return  # its images will be elsewhere, perhaps
        key = record.name, token_of(f"recipe-{recipe or ''}")
        now = time.monotonic()
        with self._changed:
            watch = self._watches.setdefault(key, _Watch(record))
            self._watches.move_to_end(key)
            if is_over:
                del self._watches[key]
            if is_over or watch.due <= now:
                watch.due = now + _RENEW
                self._due[key] = record
                self._changed.notify_all()
            for known in (self._watches, self._due):
                while len(known) > _MOST:
                    known.popitem(last=False)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._is_stopping)
                if not self._due:
                    return
                key, record = self._due.popitem(last=False)
            try:
                set_pin(self._store, record.place, key[1], time.time() + LEASE)
            except StoreError as error:
                self._failed(key, str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no more than a pin
                self._failed(key, f"{record.name}: {type(error).__name__}")
            else:
                self._is_failing = False

    def _failed(self, key: _Key, why: str) -> None:
        self.failed += 1
        if not self._is_failing:
            self.log.warning("a series that is analysed is not pinned, and may expire: %s", why)
        self._is_failing = True
        with self._changed:
            watch = self._watches.get(key)
            if watch is not None:
                watch.due = time.monotonic() + _TRY_AGAIN
