"""Slow clients and full memory: nothing grows without bound, nothing is lost."""

from __future__ import annotations

import contextlib
import threading
import time
from contextlib import ExitStack

import pytest

from parvis.transport.embedded import BrokerThread, Settings, server
from parvis.transport.stomp_frames import Frame, encode
from raw_stomp import Connect, RawClient
from waiting import wait_until

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
        ExitStack() as later,
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
        consumer = later.enter_context(RawClient(broker.port))  # who comes now is let in
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


def test_a_worker_goes_on_where_memory_is_full_of_what_it_takes_away() -> None:
    """The transaction that acknowledges one message and sends another must get through."""
    number = 24
    with (
        BrokerThread(settings=Settings(memory_limit=MEGABYTE)) as broker,
        RawClient(broker.port) as producer,
        RawClient(broker.port) as worker,
        RawClient(broker.port) as collector,
    ):
        worker.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "1"})
        # More than twice the limit, from a client that is not made to wait: it has a transaction open.
        producer.confirm("BEGIN", {"transaction": "all"})
        producer.subscribe("/queue/none")
        for n in range(number):
            producer.say("SEND", {"destination": "/queue/a", "n": str(n), "transaction": "all"}, BODY)
        producer.confirm("COMMIT", {"transaction": "all"})
        for n in range(number):
            message = worker.message()
            transaction = {"transaction": "t"}
            worker.say("BEGIN", transaction)
            worker.say("ACK", {"id": message.headers["ack"], **transaction})
            worker.say("SEND", {"destination": "/queue/b", "n": str(n), **transaction}, BODY)
            worker.confirm("COMMIT", transaction)
        collector.subscribe("/queue/b", "auto")
        assert [collector.message().headers["n"] for _ in range(number)] == [str(n) for n in range(number)]


def test_a_transaction_without_end_is_refused() -> None:
    with (
        BrokerThread(settings=Settings(memory_limit=MEGABYTE)) as broker,
        RawClient(broker.port) as client,
    ):
        client.subscribe("/queue/none")
        client.confirm("BEGIN", {"transaction": "t"})
        for _ in range(50):
            client.say("SEND", {"destination": "/queue/a", "transaction": "t"}, BODY)
        assert "out of memory for messages" in client.error()
        wait_until(lambda: broker.broker.destinations.memory.used == 0, 5, "memory")


def test_who_reads_no_receipts_is_not_read_and_finally_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """What waits for it is bounded, others are served, and what it held comes to them."""
    with (
        BrokerThread(settings=Settings(stall=3.0)) as broker,
        RawClient(broker.port) as deaf,
        RawClient(broker.port) as other,
    ):
        other.send("/queue/held", "x")
        deaf.subscribe("/queue/held", "client")
        deaf.message()
        frame = encode(Frame("SEND", {"destination": "/topic/nobody", "receipt": "r" * 1000}))
        deaf.socket.settimeout(0.3)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 200 * MEGABYTE:
                sent += deaf.socket.send(frame * 50)
        assert sent < 30 * MEGABYTE
        other.send("/queue/a", "others are served")
        wait_until(lambda: "it has read nothing for" in caplog.text, 10, "the end of its patience")
        other.subscribe("/queue/held", "client")
        assert other.message().headers["redelivered"] == "true"


def test_a_slow_reader_is_not_dropped() -> None:
    with (
        BrokerThread(settings=Settings(stall=1.0)) as patient,
        RawClient(patient.port) as slow,
        RawClient(patient.port) as sender,
    ):
        for _ in range(100):
            sender.send("/queue/a", BODY)
        slow.subscribe("/queue/a", "auto")
        beginning = time.monotonic()
        for _ in range(100):
            assert slow.message().body == BODY
            threading.Event().wait(0.02)
        assert time.monotonic() - beginning > 1.0


def test_a_frame_without_end_is_an_error_not_memory() -> None:
    with BrokerThread(settings=Settings(max_body=MEGABYTE)) as broker, RawClient(broker.port) as client:
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.socket.sendall(b"SEND\ndestination:/queue/a\n\n" * 10_000)
        assert "allowed are 1000000" in client.error()
        assert broker.broker.destinations.memory.incoming == 0


def test_frames_that_come_in_pieces_count_as_memory() -> None:
    with (
        BrokerThread(settings=Settings(memory_limit=10 * MEGABYTE)) as broker,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(RawClient(broker.port)) for _ in range(4)]
        half = b"SEND\ndestination:/queue/a\ncontent-length:20000000\n\n" + bytes(7 * MEGABYTE)
        for client in clients:
            with contextlib.suppress(OSError):
                client.socket.sendall(half)
        memory = broker.broker.destinations.memory
        wait_until(lambda: 7 * MEGABYTE <= memory.incoming <= 20 * MEGABYTE, 20, "three at most to be left")
        with RawClient(broker.port) as other:
            other.send("/queue/a", "small ones go on")


def test_a_frame_byte_by_byte_keeps_nobody_waiting(broker: BrokerThread, connect: Connect) -> None:
    slow, quick = connect(), connect()
    for byte in encode(Frame("SEND", {"destination": "/queue/a"}, b"at last")):
        slow.socket.sendall(bytes([byte]))
        quick.send("/queue/b", "at once")
    quick.subscribe("/queue/a")
    assert quick.message().body == b"at last"


def test_a_flood_of_silent_connections_keeps_nobody_out(
    broker: BrokerThread, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 20)
    served = connect()
    silent = [connect(connect=False) for _ in range(60)]
    newcomer = connect()
    newcomer.subscribe("/queue/a")
    served.send("/queue/a", "x")
    assert newcomer.message().body == b"x"
    with pytest.raises(ConnectionError):
        silent[0].receive()
    talking = [connect() for _ in range(18)]
    with RawClient(broker.port, connect=False) as late:
        assert "there are 20 connections already" in late.error()
    assert len(talking) == 18
