"""The STOMP transport when connections break, brokers stop or fall silent."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from inbox import Inbox
from parvis.transport.base import Disconnected, Send
from parvis.transport.embedded import BrokerThread, Settings
from parvis.transport.stomp import StompTransport
from real.activemq.server import ActiveMQ
from real.daemon import free_ports
from tcp_proxy import Cut, Direction, TcpProxy
from transport.conftest import Broker, Connect
from waiting import wait_until


def test_unacknowledged_message_comes_again(connect: Connect, proxy: TcpProxy) -> None:
    transport, inbox, results = connect(proxy.port), Inbox(), Inbox()
    transport.subscribe("work", inbox)
    transport.subscribe("results", results, prefetch=10)
    transport.send(Send("work", b"job"))
    first = inbox.get()
    proxy.cut()
    again = inbox.get()
    assert (again.body, again.redelivered, again.message_id) == (b"job", True, first.message_id)
    assert again.connection == transport.connection > first.connection
    with pytest.raises(Disconnected, match="comes again"):
        transport.commit([first], [Send("results", b"never")])
    transport.commit([again], [Send("results", b"once")])
    transport.send(Send("results", b"end"))
    assert [message.body for message in results.take(2)] == [b"once", b"end"]


def test_what_cannot_be_acknowledged_together_comes_again_together(connect: Connect, proxy: TcpProxy) -> None:
    """A group of which one message is of a connection that is gone, and the other is not."""
    transport, inbox = connect(proxy.port), Inbox()
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"job"))
    gone = inbox.get()
    proxy.cut()
    there = inbox.get()
    with pytest.raises(Disconnected, match="comes again"):
        transport.commit([gone, there], [])
    again = inbox.get()
    assert again.message_id == there.message_id
    transport.commit([again], [])


def test_everything_subscribed_goes_on(connect: Connect, proxy: TcpProxy) -> None:
    transport, other = connect(proxy.port), connect()
    work, news, answers = Inbox(), Inbox(), Inbox()
    numbers = [transport.subscribe("work", work, prefetch=5), transport.subscribe_broadcast("news", news)]
    number, queue = transport.subscribe_temporary("me", answers)
    gone = transport.subscribe("gone", Inbox())
    transport.unsubscribe(gone)
    for _ in range(3):
        before = transport.connection
        proxy.cut()
        wait_until(lambda: transport.connection > before and transport.is_connected, 10, "a new connection")  # noqa: B023
        # What this sends is answered after the subscriptions are.
        transport.send(Send("barrier", b""))
        other.send(Send("work", b"w"), Send("news", b"n", kind="topic"), Send(queue, b"a"))
        message = work.get()
        transport.commit([message], [])
        assert (message.body, news.get().body, answers.get().body) == (b"w", b"n", b"a")
    seen = [inbox.messages[-1].subscription for inbox in (work, news, answers)]
    assert seen == [*numbers, number]


def test_senders_wait_for_the_connection(connect: Connect, proxy: TcpProxy) -> None:
    transport, other, inbox = connect(proxy.port), connect(), Inbox()
    other.subscribe("work", inbox)
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: not transport.is_connected, 10, "the loss")
    with pytest.raises(Disconnected, match="no connection"):
        transport.send(Send("work", b"never"), timeout=0.3)
    transport.post(Send("work", b"never"))
    sender = threading.Thread(target=lambda: transport.send(Send("work", b"waited"), timeout=20))
    sender.start()
    proxy.refuse(False)
    sender.join(20)
    assert inbox.get().body == b"waited"


def test_subscribing_waits_for_the_connection(connect: Connect, proxy: TcpProxy) -> None:
    transport, inbox = connect(proxy.port), Inbox()
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: not transport.is_connected, 10, "the loss")
    threading.Timer(0.2, lambda: proxy.refuse(False)).start()
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"1"))
    assert inbox.get().body == b"1"


def test_transaction_cut_off_on_its_way_did_not_happen(connect: Connect, proxy: TcpProxy) -> None:
    transport, other = connect(proxy.port), connect()
    work, results = Inbox(), Inbox()
    transport.subscribe("work", work)
    other.subscribe("results", results, prefetch=10)
    transport.send(Send("work", b"job"))
    job = work.get()

    def cut_before_commit(direction: Direction, data: bytes) -> bytes:
        if direction == "up" and b"COMMIT" in data:
            proxy.watch = None
            return Cut(data[: data.index(b"COMMIT")])
        return data

    proxy.watch = cut_before_commit
    with pytest.raises(Disconnected):
        transport.commit([job], [Send("results", b"result")])
    again = work.get()
    assert again.redelivered
    transport.commit([again], [Send("results", b"second result")])
    assert results.get().body == b"second result"


def test_unconfirmed_transaction_is_never_called_done(connect: Connect, proxy: TcpProxy) -> None:
    transport, other = connect(proxy.port), connect()
    work, results = Inbox(), Inbox()
    transport.subscribe("work", work)
    other.subscribe("results", results)
    transport.send(Send("work", b"job"))
    job = work.get()

    def cut_at_receipt(direction: Direction, data: bytes) -> bytes:
        return Cut() if direction == "down" and b"RECEIPT" in data else data

    proxy.watch = cut_at_receipt
    with pytest.raises(Disconnected):
        transport.commit([job], [Send("results", b"result")])
    proxy.watch = None
    assert results.get().body == b"result"  # it did happen, so the job does not come again
    transport.send(Send("work", b"next"))
    assert work.get().body == b"next"


@pytest.mark.parametrize("prefetch", [1, 10])
def test_forwarding_through_cuts_loses_and_doubles_nothing(
    connect: Connect, proxy: TcpProxy, prefetch: int
) -> None:
    jobs = 80
    transport, other = connect(proxy.port), connect()
    work, results = Inbox(), Inbox()
    transport.subscribe("work", work, prefetch=prefetch)
    other.subscribe("results", results, prefetch=1000)
    other.send(*(Send("work", b"%d" % number) for number in range(jobs)))
    chance = random.Random(prefetch)

    def cut_at_random(_direction: Direction, data: bytes) -> bytes:
        return data if chance.random() > 0.03 else Cut(data[: chance.randrange(len(data))])

    proxy.watch = cut_at_random
    confirmed: list[bytes] = []
    while len({message.body for message in results.messages}) < jobs:
        try:
            message = work.get(timeout=1)
        except AssertionError:
            continue  # a cut came between the last confirmation and its arrival here
        try:
            transport.commit([message], [Send("results", message.body)])
            confirmed.append(message.body)
        except Disconnected:
            continue
    proxy.watch = None
    transport.send(Send("results", b"end"))
    wait_until(lambda: b"end" in results.bodies, 10, "the end")
    assert proxy.connections > 1
    assert len(confirmed) == len(set(confirmed))
    assert sorted(results.bodies) == sorted([b"%d" % number for number in range(jobs)] + [b"end"])


def test_next_broker_takes_over(broker: Broker, connect: Connect) -> None:
    first, second = TcpProxy(broker.port), TcpProxy(broker.port)
    nowhere = free_ports(1)[0]
    hosts = [("127.0.0.1", port) for port in (nowhere, first.port, second.port)]
    transport, inbox = connect(hosts=hosts), Inbox()
    transport.subscribe("work", inbox)
    assert (first.connections, second.connections) == (1, 0)
    first.close()
    wait_until(lambda: second.connections == 1, 10, "the second broker")
    transport.send(Send("work", b"1"))
    assert inbox.get().body == b"1"
    second.close()


def test_silent_broker_is_noticed(
    connect: Connect, proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    transport, inbox = connect(proxy.port, heartbeat=0.2), Inbox()
    transport.subscribe("work", inbox)
    proxy.stall()
    wait_until(lambda: proxy.connections == 2, 10, "a new connection")
    transport.send(Send("work", b"1"))
    assert inbox.get().body == b"1"
    assert "has been silent" in caplog.text
    assert "again, after" in caplog.text


def test_heartbeats_keep_an_idle_connection(connect: Connect, proxy: TcpProxy) -> None:
    beats = {"up": 0, "down": 0}

    def count(direction: Direction, data: bytes) -> bytes:
        beats[direction] += data == b"\n"
        return data

    proxy.watch = count
    transport = connect(proxy.port, heartbeat=0.2)
    wait_until(lambda: min(beats.values()) >= 8, 20, "eight heart-beats each way")
    assert transport.is_connected
    assert proxy.connections == 1


def test_commit_that_is_not_answered_in_time(connect: Connect, proxy: TcpProxy) -> None:
    transport, inbox = connect(proxy.port), Inbox()
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"job"))
    job = inbox.get()
    proxy.stall()
    with pytest.raises(Disconnected, match="did not confirm in time"):
        transport.send(Send("elsewhere", b""), timeout=0.2)
    assert transport.connection == job.connection
    with pytest.raises(Disconnected, match="did not confirm in time"):
        transport.commit([job], [], timeout=0.2)
    # The broker still thinks that we are at work on it, as long as it does not notice that we are gone.
    proxy.cut()
    assert inbox.get().redelivered


def test_slow_confirmation_is_remarked(
    connect: Connect,
    proxy: TcpProxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parvis.transport.stomp._SLOW_RECEIPT", 0.1)
    transport = connect(proxy.port)
    proxy.stall()
    with pytest.raises(Disconnected):
        transport.send(Send("work", b""), timeout=0.3)
    assert "flow control" in caplog.text


def test_without_reconnecting_a_loss_is_the_end(connect: Connect, proxy: TcpProxy) -> None:
    transport, inbox = connect(proxy.port, reconnect=False), Inbox()
    transport.subscribe("work", inbox)
    proxy.cut()
    wait_until(lambda: not transport.is_connected, 10, "the loss")
    began = time.monotonic()
    with pytest.raises(Disconnected):
        transport.send(Send("work", b"1"))
    with pytest.raises(Disconnected):
        transport.subscribe("work", inbox)
    assert time.monotonic() - began < 5
    assert proxy.connections == 1


def test_disconnecting_without_a_connection(connect: Connect, proxy: TcpProxy) -> None:
    transport = connect(proxy.port)
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: not transport.is_connected, 10, "the loss")
    failed = threading.Event()

    def send() -> None:
        with pytest.raises(Disconnected):
            transport.send(Send("work", b""))
        failed.set()

    waiting = threading.Thread(target=send)
    waiting.start()
    transport.disconnect()
    assert failed.wait(5)


def use_through_restart(transport: StompTransport, restart: Callable[[], None]) -> None:
    """Forward messages, delayed ones among them, while `restart` runs; fail if one gets lost."""
    work, results = Inbox(), Inbox()
    transport.subscribe("work", work, prefetch=5)
    transport.subscribe("results", results, prefetch=1000)
    done = threading.Event()

    def forward() -> None:
        while not done.is_set():
            with suppress(AssertionError, Disconnected):  # nothing to do for now, or it comes again
                message = work.get(timeout=0.1)
                transport.commit([message], [Send("results", message.body)])

    forwarder, restarter = threading.Thread(target=forward), threading.Thread(target=restart)
    forwarder.start()
    transport.send(*(Send("results", b"late %d" % number, delay=3) for number in range(3)))
    sent = {b"late 0", b"late 1", b"late 2"}
    while len(sent) < 60:
        if len(sent) == 20 and not restarter.ident:
            restarter.start()
        body = b"%d" % len(sent)
        with suppress(Disconnected):
            transport.send(Send("work", body))
            sent.add(body)
    restarter.join()
    wait_until(lambda: sent <= set(results.bodies), 20, "everything that was sent")
    done.set()
    forwarder.join()


def test_embedded_broker_restarts(tmp_path: Path, namespace: str) -> None:
    settings = Settings(journal=tmp_path / "journal.db")
    thread = BrokerThread(settings=settings)
    thread.start()
    threads = [thread]
    port = thread.port

    def restart() -> None:
        threads[0].stop()
        threads.append(BrokerThread(port, settings))
        threads[1].start()

    transport = StompTransport([("127.0.0.1", port)], "", "", namespace)
    transport.connect(10)
    use_through_restart(transport, restart)
    transport.disconnect()
    threads[-1].stop()


@pytest.mark.real("activemq")
def test_activemq_is_killed_and_starts_again(activemq: ActiveMQ, namespace: str) -> None:
    def restart() -> None:
        activemq.kill()
        activemq.start()

    transport = StompTransport(
        [("127.0.0.1", activemq.port)], activemq.username, activemq.password, namespace
    )
    transport.connect(10)
    use_through_restart(transport, restart)
    transport.disconnect()
