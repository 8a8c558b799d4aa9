"""What all tests share: the servers that some need, a small broker of a test's own, and their report."""

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import stepped_clock
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from real import mariadb as mariadb_server
from real.activemq import jolokia
from real.activemq import server as activemq_server
from real.activemq.fixture import activemq
from real.mariadb import mariadb, mariadb_url
from real.packages import Unavailable
from real.rabbitmq import server as rabbitmq_server
from real.rabbitmq.fixture import rabbitmq, vhost
from reporting import pytest_runtest_makereport, pytest_terminal_summary
from running import connected
from scheduling import pytest_collection_modifyitems, pytest_xdist_make_scheduler

__all__ = [
    "activemq",
    "mariadb",
    "mariadb_url",
    "pytest_collection_modifyitems",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
    "rabbitmq",
    "vhost",
]

_INSTALL = (
    activemq_server.install,
    jolokia.install,
    mariadb_server.install,
    rabbitmq_server.install,
    stepped_clock.install,
)

# Processes that tests start find the services of tests there.
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

# What services keep between their lives: not that of whoever runs the tests, nor of another test process.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="parvis-tests-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

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


def pytest_sessionstart(session: pytest.Session) -> None:
    """In CI, install all servers before anybody waits for one: there is no time limit yet."""
    if os.environ.get("CI") and not hasattr(session.config, "workerinput"):
        for install in _INSTALL:
            with contextlib.suppress(Unavailable):  # the tests that need it say so
                install()
