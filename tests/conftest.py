"""What all tests share: the servers that some need, a small broker of a test's own, and their report."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from preparing import pytest_sessionstart
from real.activemq.fixture import activemq
from real.ceph import ceph
from real.mariadb import mariadb, mariadb_url
from real.rabbitmq.fixture import rabbitmq, vhost
from reporting import pytest_runtest_makereport, pytest_terminal_summary
from running import connected
from scheduling import pytest_collection_modifyitems, pytest_xdist_make_scheduler
from simplon_peer import simplon

__all__ = [
    "activemq",
    "ceph",
    "mariadb",
    "mariadb_url",
    "pytest_collection_modifyitems",
    "pytest_runtest_makereport",
    "pytest_sessionstart",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
    "rabbitmq",
    "simplon",
    "vhost",
]

# Processes that tests start find the services of tests there.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

# What belongs to a user, such as records, belongs to these tests.
_state = tempfile.TemporaryDirectory(prefix="parvis-tests-")
os.environ["XDG_STATE_HOME"] = _state.name

# Whoever starts the tests in the background may have these ignored, and all that the tests start with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable that configures Parvis or zocalo."""
    for name in [name for name in os.environ if name.startswith(("PARVIS_", "ZOCALO_"))]:
        monkeypatch.delenv(name)


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


def pytest_configure(config: pytest.Config) -> None:
    """Have services keep what outlives them neither where whoever runs the tests has it, nor other tests."""
    state = tempfile.TemporaryDirectory(prefix="parvis-tests-state-", ignore_cleanup_errors=True)
    os.environ["XDG_STATE_HOME"] = state.name
    config.add_cleanup(state.cleanup)
