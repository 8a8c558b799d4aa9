"""Slow clients and full memory: nothing grows without bound, nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from parvis.transport.embedded import BrokerThread, Settings
from parvis.transport.stomp_frames import Frame, encode
from raw_stomp import RawClient
from waiting import wait_until

Connect = Callable[..., RawClient]
MEGABYTE = 1_000_000
BODY = bytes(100_000)


def in_flight(broker: BrokerThread) -> int:
    return sum(entry.in_flight + entry.dequeued for entry in broker.statistics())


def test_a_consumer_that_does_not_read_gets_no_more_than_its_socket_holds(
    broker: BrokerThread, connect: Connect
) -> None:
    slow, sender = connect(), connect()
    slow.subscribe("/queue/a", "auto")
    for number in range(400):
        sender.send("/queue/a", BODY, n=str(number))
    held = in_flight(broker) * len(BODY)
    assert held < 20 * MEGABYTE
    assert [slow.message().headers["n"] for _ in range(400)] == [str(number) for number in range(400)]


def test_a_backlog_is_not_poured_out_at_once(broker: BrokerThread, connect: Connect) -> None:
    slow, sender = connect(), connect()
    for _ in range(400):
        sender.send("/queue/a", BODY)
    slow.subscribe("/queue/a", "auto")
    assert in_flight(broker) * len(BODY) < 20 * MEGABYTE
    assert slow.bodies(400) == [BODY.decode()] * 400


def test_others_are_served_while_one_does_not_read(broker: BrokerThread, connect: Connect) -> None:
    slow, quick, sender = connect(), connect(), connect()
    for consumer in (slow, quick):
        consumer.subscribe("/queue/a", "auto")
    for number in range(300):
        sender.send("/queue/a", BODY, n=str(number))
    while [entry.size for entry in broker.statistics()] != [0]:
        quick.message()


def test_a_slow_subscriber_of_a_topic_loses_the_oldest(
    broker: BrokerThread, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    slow, sender = connect(), connect()
    slow.subscribe("/topic/a", "client", more={"activemq.prefetchSize": "1"})
    for number in range(1500):
        sender.say("SEND", {"destination": "/topic/a", "n": str(number)})
    sender.send("/topic/a", n="1500")
    got = []
    while not got or got[-1] != 1500:
        message = slow.message()
        got.append(int(message.headers["n"]))
        slow.ack(message)
    assert got == [0, *range(501, 1501)]
    assert caplog.text.count("is too slow: its oldest messages are dropped") == 1


def test_producers_wait_while_memory_is_full_and_go_on_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    number = 300
    with (
        BrokerThread(settings=Settings(memory_limit=2 * MEGABYTE)) as broker,
        RawClient(broker.port) as producer,
        RawClient(broker.port) as consumer,
    ):
        frames = [
            encode(Frame("SEND", {"destination": "/queue/a", "n": str(n)}, BODY)) for n in range(number)
        ]
        sending = threading.Thread(target=lambda: producer.socket.sendall(b"".join(frames)))
        sending.start()
        wait_until(lambda: "producers are made to wait" in caplog.text, 10, "flow control")
        held = max(sum(entry.memory for entry in broker.statistics()) for _ in range(20))
        assert 2 * MEGABYTE <= held < 3 * MEGABYTE
        assert sending.is_alive()
        consumer.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "5"})
        for n in range(number):
            message = consumer.message()
            assert message.headers["n"] == str(n)
            consumer.ack(message)
        sending.join()


def test_a_consumer_is_not_made_to_wait_but_told_when_memory_is_twice_over() -> None:
    """Who takes messages away must go on being heard, or the memory would stay full for ever."""
    with (
        BrokerThread(settings=Settings(memory_limit=MEGABYTE)) as broker,
        RawClient(broker.port) as client,
    ):
        client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "1"})
        for _ in range(15):
            client.send("/queue/a", BODY)
        client.ack(client.message())
        for _ in range(10):
            client.say("SEND", {"destination": "/queue/a"}, BODY)
        assert [frame.headers["message"] for frame in client.rest() if frame.command == "ERROR"] == [
            "the broker is out of memory for messages: consume some, or raise its limit"
        ]


def test_a_transaction_counts_as_memory_and_frees_it() -> None:
    with (
        BrokerThread(settings=Settings(memory_limit=MEGABYTE)) as broker,
        RawClient(broker.port) as client,
    ):
        for _ in range(5):
            client.confirm("BEGIN", {"transaction": "t"})
            for _ in range(8):
                client.send("/queue/a", BODY, transaction="t")
            client.confirm("ABORT", {"transaction": "t"})
        client.send("/queue/a", BODY)


def test_a_body_over_the_limit_is_refused() -> None:
    with BrokerThread(settings=Settings(max_body=1000)) as broker, RawClient(broker.port) as client:
        client.send("/queue/a", bytes(1000))
        client.say("SEND", {"destination": "/queue/a"}, bytes(1001))
        assert "allowed are 1000" in client.error()


def test_a_large_message_goes_through(connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/a")
    body = bytes(range(256)) * 100_000
    client.say("SEND", {"destination": "/queue/a"}, body)
    assert client.message().body == body
