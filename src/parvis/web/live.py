"""What changes on a page, told to all browsers that show it.

A page shows a view: lists of parts, each with a name and its HTML. While anybody watches a view, it is made
again every now and then, once for all who watch. A browser is sent the parts that have changed since it was
sent something last. Nothing is queued: who reads slowly is sent the newest state next, so memory is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

log = logging.getLogger("parvis.web")

MOST_WATCHERS: Final = 500
INTERVAL: Final = 1.0
"""Seconds between two looks at a view."""
_SHARE = 0.05  # of a processor that one view may take to be made again and again
_KEEP_ALIVE = 20.0


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a page that is replaced as a whole.

    Attributes:
        id: Its name, unique on the page: the `id` of its outermost element.
        html: Its HTML: one element.
    """

    id: str
    html: str


View = Mapping[str, Sequence[Part]]
"""Parts by the name of the list that they are in."""


class TooManyWatchers(Exception):
    """So many browsers watch already that another one would be too many."""


@dataclass(slots=True)
class _Channel:
    """A view that somebody watches.

    Attributes:
        make: Makes the view.
        version: Counts the views that were made and differ from the one before.
        view: The last.
        changed: Is set, and replaced, when there is another.
    """

    make: Callable[[], View]
    version: int = 0
    view: View | None = None
    before: View | None = None
    change: bytes = b""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    watchers: int = 0
    task: asyncio.Task[None] | None = None

    def put(self, view: View) -> None:
        """Take a view that was just made."""
        if view == self.view:
            return
        self.before, self.view = self.view, view
        self.change = difference(self.before, view)
        self.version += 1
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def since(self, version: int, seen: View | None) -> bytes:
        """What to send to a browser that knows `seen`, which had that version."""
        assert self.view is not None  # noqa: S101 - there is a version
        return self.change if version == self.version - 1 and version else difference(seen, self.view)


class Live:
    """All views that are watched. All methods are called on the thread of the event loop."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._watchers = 0
        self._is_closed = False

    @property
    def watchers(self) -> int:
        """How many browsers watch something."""
        return self._watchers

    def latest(self, key: str) -> View | None:
        """Return a view as it was made last, if somebody watches it."""
        channel = self._channels.get(key)
        return None if channel is None else channel.view

    async def watch(self, key: str, make: Callable[[], View]) -> AsyncGenerator[bytes | None]:
        """Yield what to tell a browser about a view: JSON, at first all of it; None now and then for nothing.

        Args:
            key: Which view it is; what two make for the same key is the same.
            make: Makes the view; is called on a thread of its own.

        Raises:
            TooManyWatchers: So many watch already.
        """
        if self._watchers >= MOST_WATCHERS:
            raise TooManyWatchers
        channel = self._join(key, make)
        version, seen = 0, None
        try:
            while not self._is_closed:
                changed = channel.changed
                if channel.version > version and channel.view is not None:
                    news = channel.since(version, seen)
                    version, seen = channel.version, channel.view
                    yield news
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), _KEEP_ALIVE)
                except TimeoutError:
                    yield None
        finally:
            self._leave(key, channel)

    def close(self) -> None:
        """Tell nobody any more, so that the server can end."""
        self._is_closed = True
        for channel in self._channels.values():
            channel.wake()

    def _join(self, key: str, make: Callable[[], View]) -> _Channel:
        channel = self._channels.setdefault(key, _Channel(make))
        channel.watchers += 1
        self._watchers += 1
        if channel.task is None:
            channel.task = asyncio.create_task(_keep_making(channel))
        return channel

    def _leave(self, key: str, channel: _Channel) -> None:
        channel.watchers -= 1
        self._watchers -= 1
        if channel.watchers == 0 and channel.task is not None:
            channel.task.cancel()
            del self._channels[key]


async def _keep_making(channel: _Channel) -> None:
    trouble = ""
    while True:
        began = time.perf_counter()
        try:
            channel.put(await asyncio.to_thread(channel.make))
            trouble = ""
        except Exception as error:
            if repr(error) != trouble:
                log.exception("a view could not be made")
            trouble = repr(error)
        await asyncio.sleep(max(INTERVAL, (time.perf_counter() - began) / _SHARE))


def difference(before: View | None, after: View) -> bytes:
    """Return, as JSON, what makes one view of another: order and new parts of each list that has changed."""
    content: dict[str, Any] = {}
    for name, parts in after.items():
        old = {} if before is None else {part.id: part.html for part in before.get(name, ())}
        new = {part.id: part.html for part in parts if old.get(part.id) != part.html}
        order = [part.id for part in parts]
        if before is None or new or order != list(old):
            content[name] = {"order": order, "parts": new}
    return orjson.dumps(content)
