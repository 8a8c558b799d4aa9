"""The RabbitMQ of a test session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from real.packages import skipping_if_unavailable
from real.rabbitmq.server import RabbitMQ, running
from real.rabbitmq.vhost import VirtualHost, virtual_host


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ of this test session's own; whoever stops it starts it again."""
    with skipping_if_unavailable(), running() as broker:
        yield broker


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> Iterator[VirtualHost]:
    """A virtual host of this test's own."""
    with virtual_host(rabbitmq) as made:
        yield made
