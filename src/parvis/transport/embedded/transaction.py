"""A transaction: what was sent and acknowledged in it happens together, or not at all."""

from __future__ import annotations

from parvis.transport.embedded.consumer import Consumer, Delivery, give_back
from parvis.transport.embedded.destinations import Destinations
from parvis.transport.embedded.message import Message


class Transaction:
    """Messages, acknowledgements and refusals that wait for COMMIT or ABORT."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self._steps: list[Message | tuple[list[Delivery], bool]] = []

    def send(self, message: Message) -> None:
        """Send on commit."""
        self._destinations.memory.take(message)
        self._steps.append(message)

    def settle(self, deliveries: list[Delivery], accepted: bool) -> None:
        """Acknowledge or refuse on commit. The consumer has let go of these deliveries."""
        self._steps.append((deliveries, accepted))

    def commit(self) -> None:
        """Do it all, in the order in which it was said."""
        for step in self._steps:
            if isinstance(step, Message):
                self._destinations.memory.leave(step)
                self._destinations.send_now(step)
            else:
                settle(*step)

    def abort(self) -> None:
        """Do nothing of it. Messages are unacknowledged again, still with the consumer that had them."""
        held: dict[Consumer, list[Delivery]] = {}
        for step in self._steps:
            if isinstance(step, Message):
                self._destinations.memory.leave(step)
                continue
            for delivery in step[0]:
                held.setdefault(delivery.consumer, []).append(delivery)
        for consumer, deliveries in held.items():
            if consumer.gone:
                give_back(deliveries)
            else:
                consumer.restore(deliveries)


def settle(deliveries: list[Delivery], accepted: bool) -> None:
    """Acknowledge deliveries, or refuse them."""
    for delivery in deliveries:
        if accepted:
            delivery.queue.settle(delivery)
        else:
            delivery.queue.reject(delivery)
