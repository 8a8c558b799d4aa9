"""A backlog larger than the memory: its texts are in the journal only, and come back in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from parvis.transport.embedded import BrokerThread, Settings
from raw_stomp import RawClient
from waiting import wait_until

LIMIT = 2_000_000
NUMBER = 400
FOR_EVER = {"persistent": "true"}


def body(n: int) -> bytes:
    return str(n).encode().ljust(20_000)


def settings(journal: Path) -> Settings:
    return Settings(journal=journal, memory_limit=LIMIT)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


@pytest.fixture
def broker(journal: Path) -> Iterator[BrokerThread]:
    """With four times the memory's limit in the queue."""
    with BrokerThread(settings=settings(journal)) as broker:
        with RawClient(broker.port) as client:
            for n in range(NUMBER):
                client.say("SEND", {"destination": "/queue/a", "n": str(n), **FOR_EVER}, body(n))
            client.send("/queue/a", body(NUMBER), n=str(NUMBER), priority="9", **FOR_EVER)
        yield broker


def used(broker: BrokerThread) -> int:
    return broker.broker.destinations.memory.used


def test_a_backlog_takes_a_part_of_the_memory_and_comes_whole_and_in_order(broker: BrokerThread) -> None:
    assert broker.statistics()[0].memory > 4 * LIMIT
    assert used(broker) < LIMIT / 2
    with RawClient(broker.port) as client:
        client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "30"})
        for n in (NUMBER, *range(NUMBER)):
            message = client.message()
            assert (message.headers["n"], message.body) == (str(n), body(n))
            client.ack(message)
            assert used(broker) < LIMIT
    assert used(broker) == 0


def test_what_comes_back_comes_again_whole(broker: BrokerThread) -> None:
    for _ in range(2):
        with RawClient(broker.port) as client:
            client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "50"})
            assert len([client.message() for _ in range(10)]) == 10
        wait_until(lambda: broker.statistics()[0].in_flight == 0, 5, "what was held to come back")
    assert used(broker) < LIMIT
    with RawClient(broker.port) as client:
        client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "1"})
        for n in (NUMBER, *range(60)):
            message = client.message()
            assert message.body == body(n)
            assert "redelivered" in message.headers or 9 <= n < NUMBER
            client.ack(message)


def test_selectors_and_browsers_see_what_is_not_in_memory(broker: BrokerThread) -> None:
    with RawClient(broker.port) as client:
        chosen = {"selector": "n IN ('3', '200', '399')"}
        client.subscribe("/queue/a", "client", more=chosen)
        for n in (3, 200, 399):
            assert client.message().body == body(n)
        client.subscribe("/queue/a", key="look", more={"browser": "true"} | chosen)
        assert [client.message().body for _ in range(3)] == [body(3), body(200), body(399)]
        assert client.message().headers["browser"] == "end"
        assert used(broker) < LIMIT
    with RawClient(broker.port) as client:
        client.subscribe("/queue/a", key="look", more={"browser": "true"})
        assert sum(len(client.message().body) for _ in range(NUMBER + 1)) == 20_000 * (NUMBER + 1)


def test_a_browser_passes_over_what_was_taken_meanwhile(broker: BrokerThread) -> None:
    with RawClient(broker.port) as looker, RawClient(broker.port) as taker:
        looker.subscribe("/queue/a", key="look", more={"browser": "true"})
        taker.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "1000"})
        messages = [taker.message() for _ in range(NUMBER + 1)]
        taker.ack(messages[-1])
        assert broker.statistics()[0].size == 0
        shown = []
        while not shown or "browser" not in shown[-1].headers:
            shown.append(looker.message())
        assert 0 < len(shown) <= NUMBER + 2


def test_refused_and_late_messages_are_buried_whole(broker: BrokerThread) -> None:
    with RawClient(broker.port) as client:
        client.subscribe("/queue/a", "client-individual", more={"activemq.prefetchSize": "400"})
        messages = [client.message() for _ in range(NUMBER)]
        client.nack(messages[100])
        client.subscribe("/queue/DLQ.a", "client", "dead")
        frames = [client.message() for _ in range(2)]
        letter = next(frame for frame in frames if frame.headers["subscription"] == "dead")
        assert letter.body == messages[100].body


def test_a_restart_needs_no_more_memory(broker: BrokerThread, journal: Path) -> None:
    broker.stop()
    with BrokerThread(settings=settings(journal)) as again:
        assert again.statistics()[0].size == NUMBER + 1
        assert used(again) < LIMIT / 4
        with RawClient(again.port) as client:
            client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "10"})
            for n in (NUMBER, *range(NUMBER)):
                message = client.message()
                assert message.body == body(n)
                client.ack(message)


def test_many_late_messages_are_buried_little_by_little(journal: Path) -> None:
    with BrokerThread(settings=settings(journal)) as broker, RawClient(broker.port) as client:
        for n in range(1500):
            client.say("SEND", {"destination": "/queue/a", "expires": "1", **FOR_EVER}, body(n)[:5000])
        client.send("/queue/b")
        wait_until(
            lambda: [entry.size for entry in broker.statistics() if entry.dead_letters] == [1500],
            20,
            "burial",
        )
        wait_until(lambda: used(broker) < LIMIT, 5, "memory")


def test_producers_wait_for_a_slow_disk_and_the_broker_goes_on(journal: Path) -> None:
    """A large part of the memory may be waiting for the disk, never more."""
    with BrokerThread(settings=settings(journal)) as broker, RawClient(broker.port) as client:
        frame = {"destination": "/queue/a", **FOR_EVER}
        for _ in range(100):
            client.say("SEND", frame, bytes(100_000))
        client.send("/queue/a", **FOR_EVER)
        assert broker.statistics()[0].size == 101
        assert used(broker) < LIMIT
