"""Looks at queues again and again, on a thread of its own, and at messages when it is asked to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from textual.message import Message

from parvis.observe.queue_figures import PeekedMessage, QueueHistory, QueueSource, QueueTraffic
from parvis.transport.base import TransportError

Post = Callable[[Message], object]


class Looked(Message):
    """There are new figures.

    Attributes:
        traffic: Every queue and topic.
        ages: Age of the oldest message, in s, by the whole name of the queue.
    """

    def __init__(self, traffic: Sequence[QueueTraffic], ages: Mapping[str, float]) -> None:
        super().__init__()
        self.traffic, self.ages = traffic, ages


class Trouble(Message):
    """There are no new figures; says why."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Failed(Message):
    """It cannot go on."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True)
class Wish:
    """Messages that somebody wants to see.

    Attributes:
        queue: The whole name of the queue.
        limit, skip: How many, and how many to leave out at its head.
        shown: Called, on the looking thread, with the messages, or with why they cannot be seen.
    """

    queue: str
    limit: int
    skip: int
    shown: Callable[[Sequence[PeekedMessage] | str], None] = field(compare=False)


class Looker:
    """Looks every few seconds.

    Args:
        source: Who is asked; nobody else asks it meanwhile.
        interval: Seconds between two looks.
        post: Takes what is found, on any thread.

    Attributes:
        focus: The whole name of the queue of whose oldest message the age is wanted, if the figures do not
            tell it; None for none.
    """

    def __init__(self, source: QueueSource, interval: float, post: Post) -> None:
        self.focus: str | None = None
        self._source, self._interval, self._post = source, interval, post
        self._history = QueueHistory()
        self._wishes: SimpleQueue[Wish | None] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="queue figures", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being looked at."""
        self._stopped = True
        self._wishes.put(None)

    def look_now(self) -> None:
        """Do not wait for the next look."""
        self._wishes.put(None)

    def wish(self, wish: Wish) -> None:
        """Look at messages."""
        self._wishes.put(wish)

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._stopped:
                try:
                    wish = self._wishes.get(timeout=max(0.0, due - time.monotonic()))
                except Empty:
                    wish = None
                if self._stopped:
                    return
                if wish is not None:
                    self._grant(wish)
                else:
                    self._look()
                    due = time.monotonic() + self._interval
        except Exception as error:  # noqa: BLE001 - it ends the view, which says so
            self._post(Failed(error))

    def _look(self) -> None:
        try:
            figures = self._source.figures()
            ages = {one.absolute: one.oldest for one in figures if one.oldest is not None}
            focus = next((one for one in figures if one.absolute == self.focus and one.held), None)
            if focus is not None and focus.absolute not in ages and not self._source.peek_cost:
                age = self._source.oldest(focus.absolute)
                ages |= {} if age is None else {focus.absolute: age}
        except TransportError as error:
            self._post(Trouble(str(error)))
        else:
            self._post(Looked(self._history.take(figures), ages))

    def _grant(self, wish: Wish) -> None:
        try:
            found: Sequence[PeekedMessage] | str = self._source.peek(wish.queue, wish.limit, wish.skip)
        except TransportError as error:
            found = str(error)
        wish.shown(found)
