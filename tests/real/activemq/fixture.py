"""The ActiveMQ of a test session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from real.activemq.server import ActiveMQ, running
from real.packages import Unavailable, unavailable


@pytest.fixture(scope="session")
def activemq() -> Iterator[ActiveMQ]:
    """An ActiveMQ of this test session's own; whoever stops it starts it again."""
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(running())
        except Unavailable as error:
            unavailable(str(error))
        else:
            yield broker
