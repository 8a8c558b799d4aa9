"""Somebody sets the machine's clock: delays and lives of messages stay as long as they were meant."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parvis.transport.embedded import BrokerThread, Settings
from parvis.transport.embedded.clock import Clock
from raw_stomp import RawClient
from waiting import wait_until

HOURS = 3 * 3_600_000
FOR_EVER = {"persistent": "true"}


class Wall:
    """A clock on the wall that can be set."""

    def __init__(self) -> None:
        self.set = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.set

    def later(self, seconds: float) -> str:
        """What a client with this clock writes into `expires`."""
        return str(self() + round(1000 * seconds))


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def broker(wall: Wall) -> Iterator[BrokerThread]:
    with BrokerThread(clock=Clock(wall)) as broker:
        yield broker


@pytest.mark.parametrize("step", [HOURS, -HOURS])
def test_delays_are_as_long_as_they_were_meant(broker: BrokerThread, wall: Wall, step: int) -> None:
    with RawClient(broker.port) as client:
        client.subscribe("/queue/a")
        client.send("/queue/a", "soon", AMQ_SCHEDULED_DELAY="300")
        client.send("/queue/a", "in an hour", AMQ_SCHEDULED_DELAY="3600000")
        wall.set = step
        client.send("/queue/a", "sooner", AMQ_SCHEDULED_DELAY="100")
        assert client.bodies(2) == ["sooner", "soon"]
        assert client.nothing()


@pytest.mark.parametrize("step", [HOURS, -HOURS])
def test_messages_live_as_long_as_they_were_meant_to(broker: BrokerThread, wall: Wall, step: int) -> None:
    with RawClient(broker.port) as client:
        client.send("/queue/a", "before", expires=wall.later(600))
        client.send("/queue/a", "short before", expires=wall.later(0.3))
        wall.set = step
        client.send("/queue/a", "after", expires=wall.later(600))
        client.send("/queue/a", "short after", expires=wall.later(0.3))
        wait_until(
            lambda: [entry.size for entry in broker.statistics() if entry.dead_letters] == [2],
            5,
            "two deaths",
        )
        client.subscribe("/queue/a")
        assert client.bodies(2) == ["before", "after"]
        client.subscribe("/queue/DLQ.a", key="dead")
        assert client.bodies(2) == ["short before", "short after"]


def test_a_clock_set_back_between_two_runs_holds_nothing_longer(tmp_path: Path, wall: Wall) -> None:
    settings = Settings(journal=tmp_path / "messages.db")
    wall.set = HOURS
    with BrokerThread(settings=settings, clock=Clock(wall)) as broker, RawClient(broker.port) as client:
        client.send("/queue/a", "delayed", AMQ_SCHEDULED_DELAY="500", **FOR_EVER)
        client.send("/queue/a", "short", expires=wall.later(0.5), **FOR_EVER)
        client.send("/queue/a", "long", expires=wall.later(600), **FOR_EVER)
    wall.set = 0
    with BrokerThread(settings=settings, clock=Clock(wall)) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/DLQ.a", key="dead")
        assert client.bodies(1) == ["short"]
        client.subscribe("/queue/a")
        assert sorted(client.bodies(2)) == ["delayed", "long"]


def test_order_does_not_depend_on_the_clock(tmp_path: Path, wall: Wall) -> None:
    settings = Settings(journal=tmp_path / "messages.db")
    for run in range(3):
        wall.set = -run * HOURS
        with BrokerThread(settings=settings, clock=Clock(wall)) as broker, RawClient(broker.port) as client:
            client.send("/queue/a", str(run), **FOR_EVER)
    with BrokerThread(settings=settings) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/a")
        assert client.bodies(3) == ["0", "1", "2"]
