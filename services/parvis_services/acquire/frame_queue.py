"""Images that wait to be stored, within a bound of memory."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import count

from parvis_services.acquire.series_record import SeriesRecord
from parvis_services.stream.events import Frame

_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """An image in memory.

    Attributes:
        record: The series that it is of.
        frame: The image.
        received: When it came, seconds since 1970.
    """

    record: SeriesRecord
    frame: Frame
    received: float
    ticket: int = field(default_factory=_NUMBERS.__next__)

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return self.frame.number + 1

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return self.frame.held_bytes


class FrameQueue:
    """Images in order of arrival. What is taken out counts until it is `done`.

    Args:
        memory: Bytes that all together may take.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._changed = threading.Condition()
        self._waiting: deque[HeldFrame] = deque()
        self._held: OrderedDict[int, HeldFrame] = OrderedDict()
        self._bytes = 0
        self._closed = False

    @property
    def held_bytes(self) -> int:
        """Bytes that are held."""
        return self._bytes

    def __len__(self) -> int:
        """How many images are held."""
        return len(self._held)

    def age(self, now: float) -> float:
        """Seconds since the oldest image that is held came; 0 if there is none."""
        with self._changed:
            return max(0.0, now - next(iter(self._held.values())).received) if self._held else 0.0

    def fits(self, size: int) -> bool:
        """Whether an image of that size could be held if there were no others."""
        return size <= self._memory

    def put(self, held: HeldFrame, wait: float = 0) -> bool:
        """Add an image; return False if there is no room for it, not even after `wait` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._bytes + held.size <= self._memory, wait):
                return False
            self._waiting.append(held)
            self._held[held.ticket] = held
            self._bytes += held.size
            self._changed.notify_all()
            return True

    def take(self) -> HeldFrame | None:
        """Take the oldest image that nobody has taken yet; wait for one. None once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return None if self._closed else self._waiting.popleft()

    def done(self, held: HeldFrame) -> None:
        """Let go of an image that was taken."""
        with self._changed:
            if self._held.pop(held.ticket, None) is not None:
                self._bytes -= held.size
                self._changed.notify_all()

    def empty_within(self, seconds: float) -> bool:
        """Wait until nothing is held; return False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, seconds)

    def held(self) -> list[HeldFrame]:
        """What is held."""
        with self._changed:
            return list(self._held.values())

    def close(self) -> None:
        """Hand out no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
