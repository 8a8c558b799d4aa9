"""Transactions: all or nothing, over raw sockets."""

from __future__ import annotations

import pytest

from parvis.transport.embedded import BrokerThread
from raw_stomp import Connect, RawClient, sizes
from waiting import wait_until

T = {"transaction": "t"}


def size(broker: BrokerThread, name: str) -> tuple[int, int]:
    """Size and number in flight of a queue."""
    return sizes(broker).get(name, (0, 0))


@pytest.fixture
def worker(connect: Connect) -> RawClient:
    """A client that has begun transaction t, in which it has acknowledged `in` and sent `out`."""
    client = connect()
    client.send("/queue/in", "in")
    client.subscribe("/queue/in", "client-individual")
    client.subscribe("/queue/out", "client-individual", "out")
    client.confirm("BEGIN", T)
    message = client.message()
    client.ack(message, **T)
    client.send("/queue/out", "out", **T)
    assert client.nothing()
    client.handled = message  # type: ignore[attr-defined]
    return client


def test_commit_does_all(broker: BrokerThread, worker: RawClient) -> None:
    assert (size(broker, "in"), size(broker, "out")) == ((1, 1), (0, 0))
    worker.confirm("COMMIT", T)
    assert worker.message().body == b"out"
    assert (size(broker, "in"), size(broker, "out")) == ((0, 0), (1, 1))


def test_abort_does_nothing_and_the_message_stays_with_the_consumer(
    broker: BrokerThread, worker: RawClient
) -> None:
    worker.confirm("ABORT", T)
    assert worker.nothing()
    assert (size(broker, "in"), size(broker, "out")) == ((1, 1), (0, 0))
    worker.ack(worker.handled)  # type: ignore[attr-defined]
    assert size(broker, "in") == (0, 0)


def test_after_abort_a_nack_is_possible(broker: BrokerThread, worker: RawClient) -> None:
    worker.confirm("ABORT", T)
    worker.nack(worker.handled)  # type: ignore[attr-defined]
    assert (size(broker, "in"), size(broker, "DLQ.in")) == ((0, 0), (1, 0))


def test_a_lost_connection_rolls_back_and_redelivers(worker: RawClient, connect: Connect) -> None:
    worker.close()
    other = connect()
    other.subscribe("/queue/in", "client")
    other.subscribe("/queue/out", "client", "2")
    message = other.message()
    assert (message.body, message.headers["redelivered"]) == (b"in", "true")
    assert other.nothing()


def test_unsubscribing_before_the_end(broker: BrokerThread, worker: RawClient, connect: Connect) -> None:
    worker.confirm("UNSUBSCRIBE", {"id": "1"})
    assert size(broker, "in") == (1, 1)
    other = connect()
    other.subscribe("/queue/in", "client")
    assert other.nothing()
    worker.confirm("ABORT", T)
    assert other.message().headers["redelivered"] == "true"


def test_nack_in_a_transaction_waits_for_commit(broker: BrokerThread, connect: Connect) -> None:
    client = connect()
    client.send("/queue/a")
    client.subscribe("/queue/a", "client")
    client.confirm("BEGIN", T)
    message = client.message()
    client.nack(message, **T)
    assert size(broker, "DLQ.a") == (0, 0)
    client.confirm("COMMIT", T)
    assert (size(broker, "a"), size(broker, "DLQ.a")) == ((0, 0), (1, 0))


def test_an_acknowledgement_in_a_transaction_counts_only_once(worker: RawClient) -> None:
    worker.say("ACK", {"id": worker.handled.headers["ack"], **T})  # type: ignore[attr-defined]
    assert "not waiting for it" in worker.error()


def test_a_transaction_may_acknowledge_more_than_the_prefetch(connect: Connect) -> None:
    client = connect()
    for number in range(3):
        client.send("/queue/a", str(number))
    client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "1"})
    client.confirm("BEGIN", T)
    for number in range(3):
        message = client.message()
        assert message.body == str(number).encode()
        client.ack(message, **T)
    client.confirm("ABORT", T)
    client.confirm("UNSUBSCRIBE", {"id": "1"})
    client.subscribe("/queue/a", "client", "2")
    assert client.bodies(3) == ["0", "1", "2"]


def test_cumulative_acknowledgement_after_abort_is_in_order(broker: BrokerThread, connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/a", "client")
    for number in range(4):
        client.send("/queue/a", str(number))
    messages = [client.message() for _ in range(4)]
    client.confirm("BEGIN", T)
    client.ack(messages[1], **T)
    client.confirm("ABORT", T)
    client.ack(messages[2])
    assert size(broker, "a") == (1, 1)


def test_transactions_do_not_mix(connect: Connect) -> None:
    client, reader = connect(), connect()
    reader.subscribe("/queue/a")
    for name in ("t", "u", "v"):
        client.confirm("BEGIN", {"transaction": name})
        client.send("/queue/a", name, transaction=name)
    client.confirm("ABORT", {"transaction": "u"})
    client.confirm("COMMIT", {"transaction": "v"})
    client.confirm("COMMIT", {"transaction": "t"})
    assert reader.bodies(2) == ["v", "t"]
    assert reader.nothing()


def test_a_delay_begins_with_the_commit(connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/a")
    client.confirm("BEGIN", T)
    client.send("/queue/a", "delayed", AMQ_SCHEDULED_DELAY="150", **T)
    client.send("/queue/a", "now", **T)
    client.confirm("COMMIT", T)
    assert client.bodies(2) == ["now", "delayed"]


def test_other_clients_see_nothing_of_an_open_transaction(
    broker: BrokerThread, worker: RawClient, connect: Connect
) -> None:
    browser = connect()
    browser.subscribe("/queue/out", more={"browser": "true"})
    assert browser.message().headers["browser"] == "end"
    worker.confirm("COMMIT", T)
    wait_until(lambda: size(broker, "out") == (1, 1), 5, "the message")
