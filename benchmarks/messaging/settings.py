"""What the measuring process and the services that are measured agree on."""

from __future__ import annotations

import os

NAMESPACE = "bench"
USERNAME, PASSWORD = "parvis", "parvis-test"
QUEUES = ("one", "two", "three")
RESULTS = "results"
DRAMATIQ_PREFIX = "dramatiq."
GROUP = 10  # messages of a raw transaction, as many as ours groups at most


def broker_port() -> str:
    """Port of the broker; with `amqp:` before it if that is RabbitMQ."""
    return os.environ["BENCHMARK_PORT"]


def raw_frame_size() -> int:
    """Bytes of the body that the raw service sends."""
    return int(os.environ["BENCHMARK_SIZE"])


def next_queue(queue: str) -> str:
    """The queue after this one in the chain."""
    return (*QUEUES, RESULTS)[QUEUES.index(queue) + 1]
