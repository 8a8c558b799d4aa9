"""The ActiveMQ of a test session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from real.activemq.server import ActiveMQ, running
from real.packages import skipping_if_unavailable


@pytest.fixture(scope="session")
def activemq() -> Iterator[ActiveMQ]:
    """An ActiveMQ of this test session's own; whoever stops it starts it again."""
    with skipping_if_unavailable(), running() as broker:
        yield broker
