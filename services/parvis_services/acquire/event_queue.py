"""What a detector said and is not written yet, within a bound of memory."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from parvis_services.stream.events import Event, Frame


@dataclass(frozen=True, slots=True)
class Dropped:
    """Images that came and were not kept, from `first` to `last`, counted from 0."""

    series: int
    unique_id: str | None
    first: int
    last: int


class EventQueue:
    """Events in order of arrival. Images may be refused for want of memory; other events never are.

    Args:
        memory: Bytes that the images may take; one that is larger is kept if it is the only one.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._changed = threading.Condition()
        self._events: deque[Event | Dropped] = deque()
        self._held = 0
        self._taken = 0
        self._dropped = 0

    @property
    def held_bytes(self) -> int:
        """Bytes that the images take, with that which is being written."""
        return self._held

    @property
    def dropped(self) -> int:
        """How many images were dropped so far."""
        return self._dropped

    def put(self, event: Event, wait: float = 0) -> bool:
        """Add an event; return False if there is no room for it, not even after `wait` seconds."""
        size = event.held_bytes if isinstance(event, Frame) else 0
        with self._changed:
            if size and not self._changed.wait_for(lambda: self._has_room(size), wait):
                return False
            self._events.append(event)
            self._held += size
            self._changed.notify_all()
            return True

    def _has_room(self, size: int) -> bool:
        return not self._held or self._held + size <= self._memory

    def drop(self, frame: Frame) -> None:
        """Add that an image was not kept."""
        number, key = frame.number, (frame.series, frame.unique_id)
        with self._changed:
            self._dropped += 1
            first = number
            before = self._events[-1] if self._events else None
            if isinstance(before, Dropped) and (*key, number) == (
                before.series,
                before.unique_id,
                before.last + 1,
            ):
                first = before.first
                self._events.pop()
            self._events.append(Dropped(*key, first, number))
            self._changed.notify_all()

    def take(self, wait: float) -> Event | Dropped | None:
        """Take the oldest event, and let go of the one taken before; None if there is none in time."""
        with self._changed:
            self._held -= self._taken
            self._taken = 0
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._events, wait):
                return None
            event = self._events.popleft()
            self._taken = event.held_bytes if isinstance(event, Frame) else 0
            return event
