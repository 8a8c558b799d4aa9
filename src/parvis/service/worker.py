"""A service at work in a host: how it is handed messages, and what the host knows of it."""

from __future__ import annotations

import time
from collections.abc import Container
from typing import Final

from parvis.service.base import AnyBatchService, AnyService, BatchService
from parvis.service.handling import Batch, Outcome, handle, handle_batch, read
from parvis.service.identity import occasion_of
from parvis.service.isolated import IsolatedService
from parvis.service.look_ahead import LookAhead
from parvis.service.observer import Handled
from parvis.service.observers import Observers
from parvis.service.remembered import Remembered
from parvis.service.settling import CRASHES, count
from parvis.transport.base import Message

_FADING: Final = 0.9
_NEVER: Final = float("inf")
_DUPLICATE: Final = Outcome("duplicate", reason="it was done before")


class Worker:
    """A service, its open batch, and the child process for messages that are under suspicion.

    Args:
        service: The service, which the host starts and stops.
        observers: Who is told.
        survived: Identifiers of messages that this process was given before, and lives.

    Attributes:
        batch_service: The service, if it takes batches.
        prefetch: How many messages the broker may hand out in advance.
        group: How many are committed together at most.
        batch: What was gathered for a service that takes batches.
        batch_due: When the batch is to be handled at the latest, on the monotonic clock.
        slowest: Seconds of the longest handling of late; fades away.
        memory: What was done before, if the service wants that remembered.
        look_ahead: What tells the service of the message that comes next, if it wants to know.
    """

    def __init__(self, service: AnyService, observers: Observers, survived: Container[str]) -> None:
        self.service = service
        self.batch_service = batches = service if isinstance(service, BatchService) else None
        # A batch must be able to fill up while an earlier one is being handled.
        self.prefetch = service.prefetch if batches is None else 2 * batches.batch_size
        # While one half of what the broker hands out is being committed, the other is handled.
        self.group = 1 if service.commit_each else max(1, self.prefetch // 2)
        self.batch = Batch()
        self.batch_due = _NEVER
        self.slowest = 0.0
        self.memory: Remembered | None = None
        self.look_ahead: LookAhead | None = None
        self._observers = observers
        self._survived = survived
        self._isolated = IsolatedService(service)

    def handle(self, message: Message) -> Handled:
        """Handle a message, of a batch service as a batch of one."""
        begun = time.monotonic()
        with self._observers.handling(self.service, [message]):
            outcome = self._outcome(message)
        seconds = time.monotonic() - begun
        self.slowest = max(seconds, _FADING * self.slowest)
        return Handled(self.service, message, outcome, seconds)

    def gather(self, service: AnyBatchService, message: Message) -> bool:
        """Put a message into the batch; return whether the batch is to be handled now."""
        batch = self.batch
        if not batch.messages:
            self.batch_due = time.monotonic() + service.batch_wait
        work = _DUPLICATE if self._is_duplicate(message, batch.identities) else read(service, message)
        batch.messages.append(message)
        batch.identities.add(occasion_of(message))
        batch.work.append(work)
        # What cannot be read is set aside at once: that needs the acknowledgement of all that came before it.
        unreadable = isinstance(work, Outcome) and work is not _DUPLICATE
        return unreadable or len(batch.messages) >= service.batch_size or _closes(service, batch)

    def take_batch(self) -> Batch:
        """Return the batch, and begin a new one."""
        batch, self.batch = self.batch, Batch()
        self.batch_due = _NEVER
        return batch

    def handle_batch(self, service: AnyBatchService, batch: Batch) -> list[Handled]:
        """Handle a batch."""
        begun = time.monotonic()
        with self._observers.handling(service, batch.messages):
            outcomes = self._outcomes(service, batch)
        share = (time.monotonic() - begun) / len(batch.messages)
        pairs = zip(batch.messages, outcomes, strict=True)
        return [Handled(service, message, outcome, share) for message, outcome in pairs]

    def is_suspect(self, message: Message) -> bool:
        """Whether a process may have died of this message, and another one is to be risked first."""
        if not self.service.isolates:
            return False
        if message.redelivered and message.message_id not in self._survived:
            return True
        return CRASHES in message.headers and count(message, CRASHES) > 0

    def close_child_if_idle(self) -> None:
        """End the child process if it has had nothing to do for a while."""
        self._isolated.close_if_idle()

    def close(self) -> None:
        """End the child process, and close what is remembered."""
        self._isolated.close()
        if self.memory is not None:
            self.memory.close()

    def _outcome(self, message: Message) -> Outcome:
        if self._is_duplicate(message):
            return _DUPLICATE
        if self.is_suspect(message):
            return self._isolated.handle([message])[0]
        return handle(self.service, message)

    def _outcomes(self, service: AnyBatchService, batch: Batch) -> list[Outcome]:
        if not any(map(self.is_suspect, batch.messages)):
            return handle_batch(service, batch)
        pairs = zip(batch.messages, batch.work, strict=True)
        fresh = [message for message, work in pairs if work is not _DUPLICATE]
        outcomes = iter(self._isolated.handle(fresh) if fresh else ())
        return [_DUPLICATE if work is _DUPLICATE else next(outcomes) for work in batch.work]

    def _is_duplicate(self, message: Message, at_hand: Container[str] = ()) -> bool:
        """Whether a message was done before, or is one of those `at_hand`, if the service wants to know."""
        if self.memory is None:
            return False
        occasion = occasion_of(message)
        if occasion not in at_hand and not self.memory.knows(occasion):
            return False
        self.service.log.info("came a second time and is only acknowledged: %s", occasion)
        return True


def _closes(service: AnyBatchService, batch: Batch) -> bool:
    try:
        return service.closes_batch(batch.readable())
    except Exception:
        # The same message will fail in process_batch, where the fault is charged to it.
        service.log.exception("closes_batch failed")
        return True
