"""What one host has handled: the sums that it reports to those who send."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from parvis.service.flow_report import Key, Served, Tally

_MOST_KEYS = 2000
_RECENT = 60.0  # seconds for which a key that changed is told again, for those who missed it
_MEMORY = 5.0  # seconds of work that the rate is the mean of
_PAUSE = 0.03  # seconds between two messages up to which the host counts as busy
_COMMIT = 0.002  # seconds that a transaction may take of a host that has nothing else to do


@dataclass(slots=True)
class _Sum:
    done: int = 0
    done_told: int = 0
    waiting: int = 0
    sent: int = 0
    sent_told: int = 0
    changed: float = 0.0
    news: bool = False

    def tell(self) -> Tally:
        done_new, sent_new = self.done - self.done_told, self.sent - self.sent_told
        self.done_told, self.sent_told, self.news = self.done, self.sent, False
        return Tally(self.done, done_new, self.waiting, self.sent, sent_new)


@dataclass(slots=True)
class _Queue:
    handled: int = 0
    messages: float = 0.0  # of the last seconds of work
    seconds: float = 0.0

    def work(self, messages: int, seconds: float) -> None:
        """Count messages and the time that they took."""
        self.handled += messages
        fade = math.exp(-seconds / _MEMORY)
        self.messages = self.messages * fade + messages
        self.seconds = self.seconds * fade + seconds

    def served(self) -> Served:
        return Served(self.handled, round(self.messages / self.seconds, 2) if self.seconds > 0 else None)


class Account(AbstractContextManager[None]):
    """Counts what a host handles. Entered around each handling, it takes the time.

    The host's thread says what it does; any thread may ask. The times are kept without a lock: they have one
    writer, who is busy.

    Args:
        clock: Seconds of a clock that only goes forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}
        self._sums: OrderedDict[tuple[str, Key], _Sum] = OrderedDict()
        self._in_hand = 0
        self._begun: float | None = None
        self._rested = self._counted = clock()  # when the last handling ended; up to when time is counted

    def serve(self, queue: str) -> None:
        """The host takes messages from `queue`."""
        self._queues.setdefault(queue, _Queue())

    def __enter__(self) -> None:
        """The host begins to handle something."""
        self._in_hand += 1
        if self._begun is None:
            now = self._clock()
            paused = now - max(self._rested, self._counted)
            self._begun = self._counted if paused <= _PAUSE else now

    def __exit__(self, *_: object) -> None:
        """The host has handled what it had in hand."""
        self._in_hand -= 1
        self._rested = self._clock()

    def finish(self, queue: str, messages: int) -> None:
        """Messages of a queue are handled and confirmed, whatever came of them."""
        now = self._clock()
        begun = self._counted if self._begun is None else self._begun
        ended = now if self._in_hand else min(now, self._rested + _COMMIT)
        if queue not in self._queues:
            self.serve(queue)
        self._queues[queue].work(messages, max(ended - begun, 1e-6))
        self._counted, self._begun = max(self._counted, ended), None

    def count(self, queue: str, key: Key, *, done: int = 0, waiting: int = 0, sent: int = 0) -> None:
        """Count messages with a key.

        Args:
            queue: Where they came from or, if they were sent, went to.
            key: Whose they are.
            done: How many were handled for good.
            waiting: How many more are waiting to be tried again; negative if some came back.
            sent: How many were sent on because of others with that key.
        """
        with self._lock:
            entry = self._sums.setdefault((queue, key), _Sum())
            self._sums.move_to_end((queue, key))
            entry.done += done
            entry.waiting += waiting
            entry.sent += sent
            entry.changed, entry.news = self._clock(), True
            if len(self._sums) > _MOST_KEYS:
                self._sums.popitem(last=False)

    def idle(self) -> float:
        """Seconds for which the host has had nothing to do."""
        return 0.0 if self._in_hand else max(0.0, self._clock() - self._rested)

    def queues(self) -> dict[str, Served]:
        """The queues that the host takes messages from."""
        return {name: queue.served() for name, queue in list(self._queues.items())}

    def tell(self, *, everything: bool) -> dict[tuple[str, Key], Tally]:
        """Return the sums that changed since the last call, or all that changed lately."""
        since = self._clock() - _RECENT
        told: dict[tuple[str, Key], Tally] = {}
        with self._lock:
            for name, entry in reversed(self._sums.items()):
                if entry.changed < since and not entry.news:
                    break
                if entry.news or everything:
                    told[name] = entry.tell()
        return told
