"""Who gets messages from queues, and what it holds without having acknowledged it."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parvis.transport.embedded.message import Message
from parvis.transport.embedded.selector import Selector

if TYPE_CHECKING:
    from parvis.transport.embedded.queue import Queue


class Acknowledge(enum.Enum):
    """How a subscription acknowledges: the value of its `ack` header."""

    AUTO = "auto"
    CUMULATIVE = "client"
    INDIVIDUAL = "client-individual"


@dataclass(slots=True, eq=False)
class Delivery:
    """A message in the hands of a consumer.

    Attributes:
        order: the message's place in its queue.
        number: counts the deliveries to this consumer.
    """

    message: Message
    queue: Queue
    consumer: Consumer
    order: int
    number: int


class Consumer:
    """One subscription as its queues see it; with a wildcard it has several.

    Args:
        deliver: called with each delivery.
        acknowledge: whether and how deliveries are acknowledged.
        prefetch: how many may be unacknowledged at a time, 0 for any number.
        priority: those with a higher one are served first as long as they have room.
        exclusive: want all messages of the queue, or none while another one has them.
        selector: want only messages that match.
    """

    def __init__(
        self,
        deliver: Callable[[Delivery], None],
        acknowledge: Acknowledge = Acknowledge.AUTO,
        *,
        prefetch: int = 0,
        priority: int = 0,
        exclusive: bool = False,
        selector: Selector | None = None,
    ) -> None:
        self.deliver = deliver
        self.acknowledge = acknowledge
        self.prefetch = prefetch
        self.priority = priority
        self.exclusive = exclusive
        self.selector = selector
        self.queues: list[Queue] = []
        self.unacknowledged: OrderedDict[str, Delivery] = OrderedDict()
        self.stopped = self.gone = False
        self.has_room = True
        self._blocked = False
        self._deliveries = 0

    def hand(self, message: Message, queue: Queue, order: int) -> Delivery:
        """Give it a message. The queue does this, after it has seen that there is room."""
        self._deliveries += 1
        delivery = Delivery(message, queue, self, order, self._deliveries)
        if self.acknowledge is not Acknowledge.AUTO:
            self.unacknowledged[message.id] = delivery
        self.deliver(delivery)
        self._review()
        return delivery

    def take_back(self, message_id: str) -> list[Delivery]:
        """Let go of what an ACK or NACK of this message means: it, or all up to it. Empty if unknown.

        Whoever calls this settles the deliveries with their queues and then calls `make_room`.
        """
        if message_id not in self.unacknowledged:
            return []
        if self.acknowledge is Acknowledge.INDIVIDUAL:
            return [self.unacknowledged.pop(message_id)]
        taken: list[Delivery] = []
        while not taken or taken[-1].message.id != message_id:
            taken.append(self.unacknowledged.popitem(last=False)[1])
        return taken

    def restore(self, deliveries: Iterable[Delivery]) -> None:
        """Undo `take_back`: they are unacknowledged again, in the order of delivery."""
        held = sorted([*self.unacknowledged.values(), *deliveries], key=lambda delivery: delivery.number)
        self.unacknowledged = OrderedDict((delivery.message.id, delivery) for delivery in held)
        self._review()

    def make_room(self) -> None:
        """Deliver more, if there is room for it."""
        self._review()

    def block(self, blocked: bool) -> None:
        """Say that the receiver cannot take more bytes for now, or that it can again."""
        self._blocked = blocked
        self._review()

    def stop(self) -> None:
        """Get nothing more. Of consumers that go together all stop first, so that none inherits."""
        self.stopped = True
        self._review()

    def release(self) -> list[Delivery]:
        """Let go of everything, for good."""
        self.gone = True
        released = list(self.unacknowledged.values())
        self.unacknowledged.clear()
        return released

    def _review(self) -> None:
        full = self.prefetch and len(self.unacknowledged) >= self.prefetch
        room = not (self._blocked or full or self.stopped)
        if room != self.has_room:
            self.has_room = room
            for queue in self.queues:
                queue.room_changed(self)


def close(consumers: Sequence[Consumer]) -> None:
    """Consumers leave their queues, together: what they have not acknowledged goes back, in order."""
    for consumer in consumers:
        consumer.stop()
    # Before a queue looks for a successor: what comes back is older than what waits.
    give_back([delivery for consumer in consumers for delivery in consumer.release()])
    for consumer in consumers:
        for queue in consumer.queues:
            queue.detach(consumer)


def give_back(deliveries: Iterable[Delivery]) -> None:
    """Return deliveries that nobody will acknowledge to their queues, at their old places."""
    by_queue: dict[Queue, list[Delivery]] = {}
    for delivery in deliveries:
        by_queue.setdefault(delivery.queue, []).append(delivery)
    for queue, returned in by_queue.items():
        queue.give_back(returned)
