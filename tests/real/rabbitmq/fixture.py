"""The RabbitMQ of a test session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from real.packages import Unavailable, unavailable
from real.rabbitmq.server import RabbitMQ, running
from real.rabbitmq.vhost import VirtualHost, virtual_host


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ of this test session's own; whoever stops it starts it again."""
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(running())
        except Unavailable as error:
            unavailable(str(error))
        else:
            yield broker


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> Iterator[VirtualHost]:
    """A virtual host of this test's own."""
    with virtual_host(rabbitmq) as made:
        yield made
