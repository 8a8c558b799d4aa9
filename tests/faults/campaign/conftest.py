"""The brokers that are broken, the scale of what is done to them, and the table of how they recovered."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from fault_brokers import ActiveMQ, EmbeddedBroker, FaultyBroker, RabbitMQ
from fault_injections import LONG, Scale
from real.activemq import server as activemq
from real.packages import Unavailable, unavailable
from real.rabbitmq import server as rabbitmq
from stepped_clock import SteppedClock

Brokers = Callable[[Path, SteppedClock], contextlib.AbstractContextManager[FaultyBroker]]
_REPORT = "fault report"


@contextlib.contextmanager
def _embedded(directory: Path, clock: SteppedClock) -> Generator[FaultyBroker]:
    broker = EmbeddedBroker(directory, os.environ | clock.environment)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@contextlib.contextmanager
def _activemq(directory: Path, _clock: SteppedClock) -> Generator[FaultyBroker]:
    activemq.install()
    broker = ActiveMQ(directory)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@contextlib.contextmanager
def _rabbitmq(directory: Path, _clock: SteppedClock) -> Generator[FaultyBroker]:
    rabbitmq.install()
    broker = RabbitMQ(directory)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


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
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(BROKERS[broker_name](directory, clock))
        except Unavailable as error:
            unavailable(str(error))
        else:
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


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes lines that are printed when all tests are over."""
    return lambda line: record_property(_REPORT, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the report, whichever process the tests ran in."""
    ended = [
        one
        for outcome in ("passed", "failed")
        for one in terminalreporter.stats.get(outcome, [])
        if one.when == "call"
    ]
    lines = [line for one in ended for name, line in one.user_properties if name == _REPORT]
    if lines:
        terminalreporter.section("faults, and how they were recovered from")
        for line in lines:
            terminalreporter.write_line(line)
