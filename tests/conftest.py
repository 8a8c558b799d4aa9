"""What all tests share: the servers that some need, and a small broker of a test's own."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from real.activemq.fixture import activemq
from real.mariadb import mariadb, mariadb_url
from real.rabbitmq.fixture import rabbitmq, vhost
from running import connected

__all__ = ["activemq", "mariadb", "mariadb_url", "rabbitmq", "vhost"]

# Processes that tests start find the services of tests there.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

# What belongs to a user, such as records, belongs to these tests.
_state = tempfile.TemporaryDirectory(prefix="parvis-tests-")
os.environ["XDG_STATE_HOME"] = _state.name

# Whoever starts the tests in the background may have these ignored, and all that the tests start with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    """An embedded broker of this test's own."""
    with BrokerThread() as running:
        yield running


@pytest.fixture
def transport(broker: BrokerThread) -> Iterator[StompTransport]:
    """A connected transport to the broker."""
    with connected(broker.port) as ready:
        yield ready


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one of several processes, and in one, begun first, the campaigns."""
    items.sort(key=lambda item: "campaign" not in item.path.parts)
    for item in items:
        group = item.path.parent if "campaign" in item.path.parts else item.path
        item.add_marker(pytest.mark.xdist_group(str(group)))
