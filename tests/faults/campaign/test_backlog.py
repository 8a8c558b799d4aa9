"""A hundred thousand messages pile up while their consumers are frozen, and are worked off when they thaw.

In everyday use they pile up in front of the sink. With `PARVIS_FAULTS=long` they do so in front of the
workers, and go through all three services.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fault_account import account, wait_for_all
from fault_brokers import FaultyBroker
from fault_diagnosis import explained
from fault_memory import growth
from fault_place import Feeder, Place, faulty_place
from parvis.transport.base import Message
from real.mariadb import MariaDb
from stepped_clock import SteppedClock

IS_LONG = os.environ.get("PARVIS_FAULTS") == "long"
BACKLOG = 100_000
PATIENCE = 900.0
MOST_GROWTH = 1.0  # MB in 10,000 rows
LARGEST = 350.0  # MB: of any process, with the whole backlog in the broker
SERVICES = {"Dispatcher": 1, "FaultSource": 1, "FaultWorker": 3, "FaultSink": 2}
FROZEN = "FaultWorker" if IS_LONG else "FaultSink"


@pytest.fixture(params=["embedded", "activemq", "rabbitmq"])
def broker_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.timeout(1800)
def test_a_backlog_is_worked_off(
    tmp_path: Path,
    broker_name: str,
    broker: FaultyBroker,
    mariadb: MariaDb,
    clock: SteppedClock,
    report: Callable[[str], None],
) -> None:
    with faulty_place(
        tmp_path, broker, mariadb, clock, services=SERVICES, skips_worker=not IS_LONG, burst=500
    ) as place:
        finished: list[Message] = []
        place.transport.subscribe_broadcast("faults.finished", finished.append)
        feeder = Feeder(place)
        with explained(place, feeder, report):
            send_signal(place, signal.SIGSTOP)
            begun = time.monotonic()
            feeder.ask(BACKLOG)
            place.wait_for(lambda: finished, PATIENCE, "everything to be sent")
            sent, before = time.monotonic() - begun, place.progress
            send_signal(place, signal.SIGCONT)
            begun = time.monotonic()
            wait_for_all(place, feeder, PATIENCE)
            worked = time.monotonic() - begun
            grown = growth(place, 0)
            place.stop_services()
            found = account(place, feeder)
    assert before == 0, "it was no backlog"
    assert found.rows == BACKLOG
    report(f"{broker_name:9} backlog: {BACKLOG} sent in {sent:.0f} s, worked off in {worked:.0f} s")
    report(f"{broker_name:9} {grown}")
    assert grown.most <= MOST_GROWTH, str(grown)
    assert grown.largest <= LARGEST, str(grown)


def send_signal(place: Place, what: signal.Signals) -> None:
    """Send a signal to all instances of the service that is to be frozen."""
    for number, name in place.supervisor.process_ids.items():
        if name.startswith(FROZEN):
            os.kill(number, what)
