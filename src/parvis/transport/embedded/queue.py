"""A queue: messages in their order, and the consumers who get them. No input or output here."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from parvis.transport.embedded.consumer import Acknowledge, Consumer, Delivery
from parvis.transport.embedded.memory import Memory
from parvis.transport.embedded.message import Message

_log = logging.getLogger(__name__)

_READ_AHEAD: Final = 64
_READ_AHEAD_SIZE: Final = 1024 * 1024
"""Most messages, and bytes of them, whose texts are read from the journal at once."""
_EXPIRE_AT_ONCE: Final = 500


class Owner(Protocol):
    """What a queue needs from the broker that it belongs to."""

    memory: Memory

    def now(self) -> int:
        """The time in ms since 1970."""
        ...

    def load(self, messages: Sequence[Message]) -> bool:
        """Have the texts of messages. False if one of them has none any more."""
        ...

    def delivered(self, message: Message) -> None:
        """A consumer has the message, and has not acknowledged it."""
        ...

    def forget(self, message: Message) -> None:
        """The message is done with."""
        ...

    def returned(self, queue: Queue, message: Message) -> bool:
        """A consumer went away with the message. True if it may be delivered once more."""
        ...

    def rejected(self, queue: Queue, message: Message) -> None:
        """A consumer does not want the message, which has left the queue."""
        ...

    def expired(self, queue: Queue, message: Message) -> None:
        """The message, which has left the queue, came too late."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait for one slow subscriber of a topic; the oldest are dropped beyond it."""

    messages: int
    size: int


class Queue:
    """Messages by priority, then in order of arrival; each goes to one consumer.

    A subscription to a topic is a queue of its own, with `bounds`, and one consumer.

    Attributes:
        name: the full destination.
        enqueued, dequeued, dispatched, expirations: how many messages were put in, acknowledged,
            delivered, too late.
        in_flight: delivered and not acknowledged.
        waited: ms that all acknowledged messages have been here, in sum.
        dropped: how many were dropped for a slow subscriber.
        idle_since: when it was last used, in ms since 1970.
    """

    def __init__(self, name: str, owner: Owner, bounds: Bounds | None = None) -> None:
        self.name = name
        self.bounds = bounds
        self.consumers: list[Consumer] = []
        self.enqueued = self.dequeued = self.dispatched = self.expirations = 0
        self.in_flight = self.waited = self.dropped = 0
        self.idle_since = owner.now()
        self._owner = owner
        self._pending = 0
        self._bytes = 0
        self._levels: dict[int, OrderedDict[int, Message]] = {}
        self._priorities: list[int] = []
        self._expiring: dict[int, Message] = {}
        self._ready: OrderedDict[Consumer, None] = OrderedDict()
        self._uniform = True
        self._matches: dict[Consumer, list[tuple[int, int]]] = {}
        self._closed = False

    @property
    def size(self) -> int:
        """How many messages it holds, delivered ones included."""
        return self._pending + self.in_flight

    @property
    def oldest(self) -> int | None:
        """When the message came that has been here longest, in ms since 1970; None if there is none."""
        first = [next(iter(level.values())) for level in self._levels.values() if level]
        held = (next(iter(self._held(consumer)), None) for consumer in self.consumers)
        return min((m.timestamp for m in [*first, *(d.message for d in held if d)]), default=None)

    @property
    def memory(self) -> int:
        """Bytes of the messages in it, those in flight included."""
        return self._bytes

    def messages(self) -> list[Message]:
        """All messages it holds, in the order of delivery: those in flight first."""
        held = {delivery.order: delivery for consumer in self.consumers for delivery in self._held(consumer)}
        in_flight = [held[order].message for order in sorted(held)]
        return in_flight + [m for priority in self._priorities for m in self._levels[priority].values()]

    def _held(self, consumer: Consumer) -> Iterable[Delivery]:
        return (delivery for delivery in consumer.unacknowledged.values() if delivery.queue is self)

    # Messages in and out

    def put(self, message: Message) -> None:
        """Take a new message and deliver it if somebody has room."""
        self.enqueued += 1
        self._owner.memory.take(message)
        self._bytes += message.size
        self._insert(message.place, message)
        if self.bounds:
            self._drop_beyond(self.bounds)
        if self._ready:
            self._dispatch()

    def settle(self, delivery: Delivery) -> None:
        """A delivery was acknowledged."""
        self.in_flight -= 1
        self._done(delivery.message)

    def reject(self, delivery: Delivery) -> None:
        """A delivery was refused with NACK."""
        self.in_flight -= 1
        self._leave(delivery.message)
        self._owner.rejected(self, delivery.message)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Deliveries whose consumer went away come back to their old places."""
        self.in_flight -= len(deliveries)
        kept: list[Delivery] = []
        for delivery in deliveries:
            if self._closed:
                self._leave(delivery.message)
                continue
            delivery.message.redeliveries += 1
            if self._owner.returned(self, delivery.message):
                kept.append(delivery)
            else:
                self._leave(delivery.message)
        for priority in {delivery.message.priority for delivery in kept}:
            self._reinsert(priority, [d for d in kept if d.message.priority == priority])
        self._dispatch()

    def expire(self) -> bool:
        """Remove what is too late, as much as may be done at once. True if there is more."""
        now = self._owner.now()
        late = [item for item in self._expiring.items() if item[1].deadline <= now]
        for order, message in late[:_EXPIRE_AT_ONCE]:
            self._expire(order, message)
        return len(late) > _EXPIRE_AT_ONCE

    def close(self) -> None:
        """Drop all messages that are not delivered: nobody can get them any more."""
        self._closed = True
        for level in self._levels.values():
            for message in level.values():
                self._leave(message)
        self._levels.clear()
        self._priorities.clear()
        self._expiring.clear()
        self._pending = 0

    # Consumers

    def attach(self, consumer: Consumer) -> None:
        """A consumer comes."""
        self.consumers.append(consumer)
        consumer.queues.append(self)
        if consumer.selector:
            self._matches[consumer] = []
            for level in self._levels.values():
                for order, message in level.items():
                    self._offer(consumer, order, message)
        self._consumers_changed()
        self.room_changed(consumer)

    def detach(self, consumer: Consumer) -> None:
        """A consumer goes; what it holds comes by `give_back`."""
        self.consumers.remove(consumer)
        self._ready.pop(consumer, None)
        self._matches.pop(consumer, None)
        self._consumers_changed()
        self._dispatch()

    def _consumers_changed(self) -> None:
        self.idle_since = self._owner.now()
        self._uniform = not any(c.priority or c.exclusive or c.selector for c in self.consumers)

    def room_changed(self, consumer: Consumer) -> None:
        """A consumer has room for messages, or has no more."""
        if consumer.has_room:
            self._ready[consumer] = None
            self._dispatch()
        else:
            self._ready.pop(consumer, None)

    # Dispatching. At rest no consumer with room could be given a message.

    def _dispatch(self) -> None:
        while self._pending and self._ready:
            choice = self._choose()
            if choice is None:
                return
            consumer, order, message = choice
            if message.deadline and message.deadline <= self._owner.now():
                self._expire(order, message)
                continue
            if not message.loaded and not self._owner.load(self._with_next(message)):
                return
            self._remove(order, message)
            self._ready.move_to_end(consumer)
            self.dispatched += 1
            if consumer.acknowledge is Acknowledge.AUTO:
                self._done(message)
            else:
                self.in_flight += 1
                self._owner.delivered(message)
            consumer.hand(message, self, order)
            if message.stored:
                self._owner.memory.relieve(message)

    def _with_next(self, message: Message) -> list[Message]:
        """A message and those that come next, where that is certain, to read them together."""
        if not self._uniform:
            return [message]
        chosen: list[Message] = []
        size = 0
        for following in itertools.islice(self._levels[message.priority].values(), _READ_AHEAD):
            size += following.size
            if chosen and size > _READ_AHEAD_SIZE:
                break
            chosen.append(following)
        return chosen

    def _choose(self) -> tuple[Consumer, int, Message] | None:
        if self._uniform:
            return next(iter(self._ready)), *self._first()
        for consumer in self._in_turn():
            if consumer.selector is None:
                return consumer, *self._first()
            found = self._first_match(self._matches[consumer])
            if found:
                return consumer, *found
        return None

    def _in_turn(self) -> Sequence[Consumer]:
        exclusive = [c for c in self.consumers if c.exclusive and not c.stopped]
        if exclusive:
            active = max(exclusive, key=lambda consumer: consumer.priority)  # the first of equals
            return [active] if active.has_room else []
        return sorted(self._ready, key=lambda consumer: -consumer.priority)

    def _first(self) -> tuple[int, Message]:
        level = next(level for priority in self._priorities if (level := self._levels[priority]))
        return next(iter(level.items()))

    def _first_match(self, heap: list[tuple[int, int]]) -> tuple[int, Message] | None:
        while heap:
            negated_priority, order = heap[0]
            message = self._levels[-negated_priority].get(order)
            if message is not None:
                return order, message
            heapq.heappop(heap)  # somebody else got it
        return None

    def _offer(self, consumer: Consumer, order: int, message: Message) -> None:
        """Let a consumer with a selector see a message, once: so a busy queue is not searched each time."""
        heap = self._matches[consumer]
        if consumer.selector and self._owner.load([message]) and consumer.selector.matches(message):
            heapq.heappush(heap, (-message.priority, order))
        self._owner.memory.relieve(message)
        if len(heap) > 2 * self._pending + 100:
            heap[:] = [entry for entry in heap if entry[1] in self._levels[-entry[0]]]
            heapq.heapify(heap)

    # The messages themselves

    def _insert(self, order: int, message: Message) -> None:
        level = self._levels.get(message.priority)
        if level is None:
            level = self._levels[message.priority] = OrderedDict()
            self._priorities = sorted(self._levels, reverse=True)
        level[order] = message
        self._pending += 1
        if message.deadline:
            self._expiring[order] = message
        for consumer in self._matches:
            self._offer(consumer, order, message)

    def _reinsert(self, priority: int, deliveries: list[Delivery]) -> None:
        """Put messages back where they were: before all that came later."""
        level = self._levels[priority]
        returned = {delivery.order: delivery.message for delivery in deliveries}
        last = max(returned)
        earlier: dict[int, Message] = {}
        while level and (order := next(iter(level))) < last:
            earlier[order] = level.pop(order)
        for order, message in returned.items():
            self._insert(order, message)
        level.update(earlier)
        for order in sorted([*returned, *earlier], reverse=True):
            level.move_to_end(order, last=False)

    def _remove(self, order: int, message: Message) -> None:
        del self._levels[message.priority][order]
        self._pending -= 1
        if message.deadline:
            self._expiring.pop(order, None)

    def _expire(self, order: int, message: Message) -> None:
        self._remove(order, message)
        self._leave(message)
        self.expirations += 1
        self._owner.expired(self, message)

    def _done(self, message: Message) -> None:
        self.dequeued += 1
        now = self._owner.now()
        self.waited += max(0, now - message.timestamp)
        self.idle_since = now
        self._leave(message)
        if not self.bounds:
            self._owner.forget(message)

    def _leave(self, message: Message) -> None:
        self._owner.memory.leave(message)
        self._bytes -= message.size

    def _drop_beyond(self, bounds: Bounds) -> None:
        while self._pending > bounds.messages or (self._bytes > bounds.size and self._pending > 1):
            order, message = self._first()
            self._remove(order, message)
            self._leave(message)
            self.dropped += 1
            if self.dropped == 1:
                _log.warning("A subscriber of %s is too slow: its oldest messages are dropped", self.name)


TOPIC_BOUNDS: Final = Bounds(messages=1000, size=32 * 1024 * 1024)
