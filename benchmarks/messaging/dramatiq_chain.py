"""The chain as Dramatiq actors; its worker takes this module and the queue."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from settings import DRAMATIQ_PREFIX, PASSWORD, QUEUES, RESULTS, USERNAME, broker_port

broker = RabbitmqBroker(
    url=f"amqp://{USERNAME}:{PASSWORD}@127.0.0.1:{broker_port().removeprefix('amqp:')}/",
    confirm_delivery=True,
)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=f"{DRAMATIQ_PREFIX}{RESULTS}")
def take(payload: Any) -> None:
    """The end; nobody runs it, as the measuring process empties the queue."""


@dramatiq.actor(queue_name=f"{DRAMATIQ_PREFIX}{QUEUES[2]}")
def third(payload: Any) -> None:
    """The last hop."""
    take.send(payload)


@dramatiq.actor(queue_name=f"{DRAMATIQ_PREFIX}{QUEUES[1]}")
def second(payload: Any) -> None:
    """The second hop."""
    third.send(payload)


@dramatiq.actor(queue_name=f"{DRAMATIQ_PREFIX}{QUEUES[0]}")
def first(payload: Any) -> None:
    """The first hop."""
    second.send(payload)
