"""Threads that store images, and do not give up while the store is away and there is memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from parvis_services.acquire.frame_queue import FrameQueue, HeldFrame
from parvis_services.acquire.news import News
from parvis_services.acquire.writer_store import WriterStore
from parvis_services.stores.frame_metadata import metadata_of
from parvis_services.stores.store import ObjectExists, ObjectInfo, StoreError

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 3.0
_PATIENCE: Final = 0.5


class Trouble:
    """Trouble with the store: said once, and once more when it is over."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self._lock = threading.Lock()
        self._reason = ""
        self._since = 0.0

    def __bool__(self) -> bool:
        """Whether there is any now."""
        return bool(self._reason)

    def note(self, error: StoreError) -> None:
        """Something failed, and will be tried again."""
        kind = type(error).__name__
        with self._lock:
            known, self._reason = self._reason, kind
            self._since = self._since if known else time.monotonic()
        if known != kind:
            self.log.error("images wait in memory, as the store fails: %s", error)

    def over(self) -> None:
        """Something worked."""
        if self._reason:
            with self._lock:
                was, self._reason = self._reason, ""
            if was:
                self.log.info("the store works again, after %.1f s", time.monotonic() - self._since)


class Pauses:
    """Growing pauses between tries."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def next(self) -> float:
        """Seconds of the next one."""
        pause, self._next = self._next, min(2 * self._next, _LONGEST_PAUSE)
        return pause


class Uploaders:
    """The threads.

    Args:
        frames: What is to be stored.
        store: Where.
        threads: How many.
        news: Is told when a series has its place; told when an image is stored.
        trouble: Where to say that the store fails.
        log: Where to say what is wrong with an image.

    Attributes:
        stored, bytes: How many images were stored, and how large they are.
        puts, seconds: How often the store was given one, and how long it took for that in all.
        conflicts: For how many there was another content under their key.
    """

    def __init__(
        self,
        frames: FrameQueue,
        store: WriterStore,
        threads: int,
        news: News,
        trouble: Trouble,
        log: logging.Logger,
    ) -> None:
        self._frames = frames
        self._store = store
        self._news = news
        self._trouble = trouble
        self.log = log
        self._abandoned = threading.Event()
        self._lock = threading.Lock()
        self._in_store: set[int] = set()
        self.stored = self.bytes = self.puts = self.conflicts = 0
        self.seconds = 0.0
        self._threads = [
            threading.Thread(target=self._run, name=f"uploader-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float, grace: float = 1.0) -> list[HeldFrame]:
        """Finish what is held, within some seconds.

        Returns:
            What could not be stored, but for what the store is just being given: that may succeed.
        """
        self._frames.empty_within(seconds)
        self._abandoned.set()
        self._frames.close()
        deadline = time.monotonic() + grace
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            return [held for held in self._frames.held() if held.ticket not in self._in_store]

    def _run(self) -> None:
        while (held := self._frames.take()) is not None:
            try:
                is_settled = self._upload(held)
            except Exception:
                self.log.exception("image %d of %s is dropped", held.number, held.record.name)
                is_settled = self._account(held, lambda held=held: held.record.drop(held.number))
            if is_settled:
                self._frames.done(held)

    def _upload(self, held: HeldFrame) -> bool:
        """Store an image; return False if there is no more time for it."""
        pauses = Pauses()
        while not self._abandoned.is_set():
            if not self._news.wait_for(lambda: held.record.is_placed, _PATIENCE):
                continue
            try:
                info = self._put(held)
            except ObjectExists as error:
                self.conflicts += 1
                self.log.error("image %d of %s is dropped: %s", held.number, held.record.name, error)
                return self._account(held, lambda: held.record.drop(held.number))
            except StoreError as error:
                self._trouble.note(error)
                self._abandoned.wait(pauses.next())
            else:
                self._trouble.over()
                return self._confirm(held, info)
        return False

    def _put(self, held: HeldFrame) -> ObjectInfo:
        """Give an image to the store. What is there already with the same content was stored before."""
        place, data = held.record.place, held.frame.data
        key = place.frame(held.number)
        begun = time.monotonic()
        with self._lock:
            self._in_store.add(held.ticket)
        try:
            return self._store.put(place.bucket, key, data, metadata_of(held.frame, held.received))
        except ObjectExists:
            return self._store.confirm(place.bucket, key, data)
        finally:
            with self._lock:
                self._in_store.discard(held.ticket)
                self.puts += 1
                self.seconds += time.monotonic() - begun

    def _confirm(self, held: HeldFrame, info: ObjectInfo) -> bool:
        is_noted = self._account(held, lambda: held.record.store(held.number, info))
        with self._lock:
            self.stored += 1
            self.bytes += info.size
        self._news.tell()
        return is_noted

    def _account(self, held: HeldFrame, note: Callable[[], object]) -> bool:
        """Put what became of an image into the journal; return False if that does not work in time."""
        pauses = Pauses()
        while True:
            try:
                note()
            except OSError as error:
                self.log.error(
                    "what became of image %d cannot be noted in %s: %s",
                    held.number,
                    held.record.journal.path,
                    error.strerror,
                )
                if self._abandoned.wait(pauses.next()):
                    return False
            else:
                return True
