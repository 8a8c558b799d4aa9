"""Tells a service of the message that comes next, while it handles the one before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from parvis.observe.logs import recipe_context
from parvis.service.base import AnyService, BatchService, Service
from parvis.service.handling import Outcome, read
from parvis.transport.base import Message


def looks_ahead(service: AnyService) -> bool:
    """Whether a service wants to be told: it has a `prepare` of its own, and handles messages one by one."""
    own, default = cast("Any", type(service)).prepare, cast("Any", Service).prepare
    return own is not default and not isinstance(service, BatchService)


class LookAhead:
    """What was delivered for a service and not handled yet; while a message is handled, the next is told.

    Entered while a message is handled. What goes wrong with telling is logged, and changes nothing.

    Args:
        service: The service.
        is_good: Whether it may be told of a message: not of one that comes again anyway, nor of one of which
            a process may have died.
    """

    def __init__(self, service: AnyService, is_good: Callable[[Message], bool]) -> None:
        self._service = service
        self._is_good = is_good
        self._lock = threading.Lock()
        self._waiting: deque[Message] = deque()
        self._is_handling = False
        self._told: Message | None = None

    def arrived(self, message: Message) -> None:
        """Take note of a message. Called on whichever thread reads, before the host can have it."""
        with self._lock:
            self._waiting.append(message)
            is_next = self._is_handling and len(self._waiting) == 1
        if is_next:
            self._tell(message)

    def taken(self, message: Message) -> None:
        """The host has taken a message: it is not one to come any more, and nor are those before it."""
        with self._lock:
            while self._waiting and self._waiting.popleft() is not message:
                pass

    def __enter__(self) -> None:
        with self._lock:
            self._is_handling = True
            following = self._waiting[0] if self._waiting else None
        if following is not None:
            self._tell(following)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_handling = False

    def _tell(self, message: Message) -> None:
        if message is self._told or not self._is_good(message):
            return
        self._told = message
        work = read(self._service, message)
        if isinstance(work, Outcome):
            return  # which is said when it is its turn
        try:
            with recipe_context(work.recipe_id):
                self._service.prepare(work.payload, work.step.parameters)
        except Exception as error:  # noqa: BLE001 - it will be handled all the same, and say what is wrong
            self._service.log.warning("cannot prepare for a message: %s: %s", type(error).__name__, error)
