"""The brokers that are broken, the scale of what is done to them, and the table of how they recovered."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from fault_brokers import ActiveMQ, EmbeddedBroker, FaultyBroker, RabbitMQ
from fault_injections import LONG, Scale
from real.activemq import server as activemq
from real.packages import skipping_if_unavailable
from real.rabbitmq import server as rabbitmq
from reporting import REPORT
from stepped_clock import SteppedClock

Brokers = Callable[[Path, SteppedClock], contextlib.AbstractContextManager[FaultyBroker]]


@contextlib.contextmanager
def _running(broker: FaultyBroker, end: Callable[[], None]) -> Generator[FaultyBroker]:
    try:
        broker.start()
        yield broker
    finally:
        end()


def _embedded(directory: Path, clock: SteppedClock) -> contextlib.AbstractContextManager[FaultyBroker]:
    broker = EmbeddedBroker(directory, os.environ | clock.environment)
    return _running(broker, broker.kill)


def _activemq(directory: Path, _clock: SteppedClock) -> contextlib.AbstractContextManager[FaultyBroker]:
    activemq.install()
    broker = ActiveMQ(directory)
    return _running(broker, broker.kill)


def _rabbitmq(directory: Path, _clock: SteppedClock) -> contextlib.AbstractContextManager[FaultyBroker]:
    rabbitmq.install()
    broker = RabbitMQ(directory)
    return _running(broker, broker.close)


BROKERS: dict[str, Brokers] = {"embedded": _embedded, "activemq": _activemq, "rabbitmq": _rabbitmq}


@pytest.fixture(params=BROKERS)
def broker_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    """A clock that can be stepped."""
    return SteppedClock(tmp_path)


@pytest.fixture
def broker(broker_name: str, clock: SteppedClock, tmp_path: Path) -> Generator[FaultyBroker]:
    """A broker of this test's own, running."""
    directory = tmp_path / "broker"
    directory.mkdir()
    with skipping_if_unavailable(), BROKERS[broker_name](directory, clock) as running:
        yield running


@pytest.fixture
def logbook(tmp_path: Path) -> Generator[Path]:
    """The directory of the dispatcher's logbook, on a small disk of its own if we may mount one."""
    place = tmp_path / "logbook"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield place
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="session")
def scale() -> Scale:
    """How much is done: for everyday use, or with `PARVIS_FAULTS=long` in full."""
    return LONG if os.environ.get("PARVIS_FAULTS") == "long" else Scale()


@pytest.fixture(autouse=True)
def _no_news_of_deaths(caplog: pytest.LogCaptureFixture) -> None:
    """Keep it out of the report of a failure that services died: they were killed."""
    caplog.set_level(logging.ERROR, "parvis.supervisor")


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes lines that are printed when all tests are over."""
    return lambda line: record_property(REPORT, line)
