"""What is told to those who watch a host: metrics, tracing and flow control are built on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from parvis.service.base import AnyService
from parvis.service.handling import Outcome
from parvis.transport.base import Message, Send, Transport


@dataclass(frozen=True, slots=True)
class Handled:
    """A message that was handled.

    Attributes:
        service: Who handled it.
        message: The message.
        outcome: What came of it.
        seconds: How long the handling took; for a message of a batch, its share.
    """

    service: AnyService
    message: Message
    outcome: Outcome
    seconds: float


class Pulse(Protocol):
    """Whether a host lives, as seen from any thread."""

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        ...

    def last_turn(self) -> float | None:
        """When it last looked for something to do, on the monotonic clock; None if it is not there yet."""
        ...


class Observer:
    """Is told what a host does. All methods are called on the thread of the host, and must be quick.

    A subclass overrides what it needs. What an observer raises is logged and changes nothing else.
    """

    def pulse(self, pulse: Pulse) -> None:
        """Before everything else: where to see whether the host lives."""

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:
        """The host is connected, and its services have started."""

    def inbox(self, depth: Callable[[], int]) -> None:
        """Before the start: `depth` tells, on any thread, how many messages wait in this process."""

    def subscribed(self, service: AnyService, queue: str) -> None:
        """The host takes messages for a service from a queue."""

    def handling(
        self,
        service: AnyService,  # noqa: ARG002
        messages: Sequence[Message],  # noqa: ARG002
    ) -> contextlib.AbstractContextManager[None]:
        """Entered around the handling of a message, or of a batch of messages."""
        return contextlib.nullcontext()

    def settling(self, handled: Handled) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Entered while it is decided, and logged, what becomes of a message that is not done."""
        return contextlib.nullcontext()

    def sending(self, handled: Handled, sends: Sequence[Send]) -> Sequence[Send]:  # noqa: ARG002
        """Return what is to leave because of a message: `sends`, perhaps with headers or messages added."""
        return sends

    def closing(self, handled: Sequence[Handled]) -> Sequence[Send]:  # noqa: ARG002
        """Return what else is to leave with these messages, whose transaction is about to be written."""
        return ()

    def committed(self, handled: Sequence[Handled]) -> None:
        """The broker has confirmed a transaction with these messages."""

    def uncommitted(self, handled: Sequence[Handled], reason: str) -> None:
        """A transaction with these messages failed: they come again."""

    def stopped(self) -> None:
        """The host ends; its connection is still there."""

    def card(self) -> Mapping[str, Any]:
        """What to say on the status card of the host. Called on a thread of its own."""
        return {}
