"""One hop of the chain as a FastStream application: `python faststream_chain.py QUEUE`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
from settings import PASSWORD, USERNAME, broker_port, next_queue

queue = sys.argv[1]
broker = RabbitBroker(
    f"amqp://{USERNAME}:{PASSWORD}@127.0.0.1:{broker_port().removeprefix('amqp:')}/",
    default_channel=Channel(prefetch_count=10),
    logger=None,
)


@broker.subscriber(RabbitQueue(queue, durable=True))
async def forward(payload: dict[str, Any]) -> None:
    """Send it on, and wait until the broker has it."""
    await broker.publish(payload, RabbitQueue(next_queue(queue), durable=True), persist=True)


if __name__ == "__main__":
    asyncio.run(FastStream(broker, logger=None).run())
