"""The AMQP transport when connections break, consumers die, RabbitMQ stops or takes nothing."""

from __future__ import annotations

import logging
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from connecting import connecting
from inbox import Inbox
from parvis.transport.amqp import AmqpTransport
from parvis.transport.base import BrokerRefused, Disconnected, Message, Send
from real.rabbitmq.server import running
from real.rabbitmq.vhost import VirtualHost, virtual_host
from tcp_proxy import Cut, Direction, TcpProxy
from waiting import wait_until

pytestmark = pytest.mark.real("rabbitmq")

Connect = Callable[..., AmqpTransport]


@pytest.fixture
def connect(vhost: VirtualHost) -> Iterator[Connect]:
    """Makes transports that are connected, until the end of the test."""
    with connecting(vhost.transport) as connect:
        yield connect


@pytest.fixture
def proxy(vhost: VirtualHost) -> Iterator[TcpProxy]:
    """A way to the broker that can be cut."""
    with closing(TcpProxy(vhost.server.port)) as proxy:
        yield proxy


def test_unacknowledged_message_comes_again(vhost: VirtualHost, connect: Connect, proxy: TcpProxy) -> None:
    vhost.make_queues("results")
    transport, inbox = connect(port=proxy.port), Inbox()
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"job"))
    first = inbox.get()
    proxy.cut()
    again = inbox.get()
    assert (again.body, again.redelivered, again.message_id) == (b"job", True, first.message_id)
    assert again.connection > first.connection
    with pytest.raises(Disconnected, match="comes again"):
        transport.commit([first], [Send("results", b"never")])
    transport.commit([again], [Send("results", b"once")])


def test_everything_subscribed_goes_on(connect: Connect, proxy: TcpProxy) -> None:
    transport, other = connect(port=proxy.port), connect()
    work, news, answers = Inbox(), Inbox(), Inbox()
    transport.subscribe("work", work, prefetch=5)
    transport.subscribe_broadcast("news", news)
    _, queue = transport.subscribe_temporary("me", answers)
    transport.unsubscribe(transport.subscribe("gone", Inbox()))
    for _ in range(3):
        before = transport.connection
        proxy.cut()
        wait_until(lambda: transport.connection > before and transport.is_connected, 10, "a new connection")  # noqa: B023
        other.send(Send("work", b"w"), Send(queue, b"a"))
        transport.commit([work.get()], [])
        assert answers.get().body == b"a"
        other.send(Send("news", b"n", kind="topic"))
        assert news.get().body == b"n"


def test_nothing_is_lost_where_the_connection_is_cut_at_random(
    vhost: VirtualHost, connect: Connect, proxy: TcpProxy
) -> None:
    """Forward numbered messages through connections that break in the middle of whatever is under way."""
    count = 300
    vhost.make_queues("in", "out")
    steady = connect()
    steady.send(*(Send("in", b"%d" % number, {"parvis-id": f"id-{number}"}) for number in range(count)))
    transport, work, done = connect(port=proxy.port), Inbox(), Inbox()
    cuts = 0
    chance = random.Random(1)

    def cut(direction: Direction, data: bytes) -> bytes:
        nonlocal cuts
        if direction == "up" and cuts < 12 and chance.random() < 0.05:
            cuts += 1
            return Cut(data[: len(data) // 2])
        return data

    steady.subscribe("out", done, prefetch=2 * count)
    transport.subscribe("in", work, prefetch=20)
    proxy.watch = cut

    def is_over() -> bool:
        return len({message.message_id for message in done.messages}) == count

    while True:
        # What was sent last has left the broker's hands a little later than it was confirmed.
        wait_until(lambda: is_over() or not work.is_all_taken, 20, "more work, or the end of it")
        if is_over():
            break
        message = work.get()
        try:
            transport.commit(
                [message], [Send("out", message.body, {"parvis-id": f"out-{message.message_id}"})]
            )
        except Disconnected:
            continue
    proxy.watch = None
    assert cuts == 12
    assert {message.body for message in done.messages} == {b"%d" % number for number in range(count)}
    by_id = Counter(message.message_id for message in done.messages)
    assert set(by_id) == {f"out-id-{number}" for number in range(count)}


_CONSUMER = """
import sys, time
from parvis.config import Config
transport = Config.load().transport()
transport.connect(10)
transport.subscribe("work", lambda message: print("got", flush=True))
time.sleep(60)
"""


def test_killed_consumer_loses_nothing(
    vhost: VirtualHost, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in vhost.environment().items():
        monkeypatch.setenv(name, value)
    vhost.make_queues("work")
    transport, inbox = connect(), Inbox()
    transport.send(Send("work", b"job"))
    consumer = subprocess.Popen([sys.executable, "-c", _CONSUMER], stdout=subprocess.PIPE)
    with consumer:
        assert consumer.stdout is not None
        assert consumer.stdout.readline() == b"got\n"
        consumer.send_signal(signal.SIGKILL)
    transport.subscribe("work", inbox)
    message = inbox.get()
    assert (message.body, message.redelivered) == (b"job", True)
    assert message.headers["x-delivery-count"] == "1"


def test_frozen_broker_is_given_up(connect: Connect, proxy: TcpProxy) -> None:
    transport = connect(port=proxy.port, heartbeat=1)
    before = transport.connection
    proxy.stall()
    wait_until(lambda: transport.connection > before and transport.is_connected, 15, "another connection")


def test_heart_beats_go_on_while_a_handler_computes(connect: Connect) -> None:
    transport, inbox = connect(heartbeat=1), Inbox()
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"job"))
    message = inbox.get()
    done = threading.Event()
    done.wait(4)  # nothing of ours is called meanwhile; the broker gives silent clients up after 3 s
    transport.commit([message], [])
    assert transport.connection == message.connection


def test_alarm_is_waited_out(vhost: VirtualHost, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    vhost.make_queues("results")
    transport, inbox = connect(), Inbox()
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"job"))
    message = inbox.get()
    caplog.set_level(logging.INFO)
    vhost.server.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        pending = transport.begin([message], [Send("results", b"result")])
        wait_until(lambda: "takes no messages now" in caplog.text, 20, "the broker to say so")
        with pytest.raises(Disconnected, match="did not confirm in time"):
            connect().send(Send("results", b"more"), timeout=0.5)
        waiting = threading.Thread(target=pending.wait, args=(0.1,))
        waiting.start()
    finally:
        vhost.server.control("set_vm_memory_high_watermark", "absolute", "512MB")
    waiting.join(20)
    assert not waiting.is_alive()
    assert transport.connection == message.connection
    assert "takes messages again" in caplog.text


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_broker_comes_back(how: str) -> None:
    with running() as server, virtual_host(server) as vhost:
        vhost.make_queues("results")
        transport, inbox, results = vhost.transport(), Inbox(), Inbox()
        transport.connect(10)
        transport.subscribe("work", inbox, prefetch=10)
        transport.send(Send("work", b"0", delay=2))
        transport.commit([inbox.get()], [])
        transport.send(*(Send("work", b"%d" % number) for number in range(5)), Send("work", b"late", delay=2))
        before = inbox.take(5)
        getattr(server, how)()
        wait_until(lambda: not transport.is_connected, 10, "the loss to be noticed")
        with pytest.raises(Disconnected):
            transport.commit(before[:1], [Send("results", b"")])
        server.start()
        transport.subscribe("results", results, prefetch=10)
        again: list[Message] = []
        while {message.body for message in again} != {*(message.body for message in before), b"late"}:
            again.append(inbox.get(40))
            transport.commit(again[-1:], [Send("results", again[-1].body)])
        assert len(results.take(6)) == 6
        transport.disconnect()


def test_consumer_that_takes_too_long_is_told_and_goes_on(
    vhost: VirtualHost, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """RabbitMQ takes a message back after 30 minutes: it closes the channel. So does what is done here."""
    transport, inbox = connect(), Inbox()
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"job"))
    first = inbox.get()
    vhost.server.control("eval", "[exit(C, kill) || C <- rabbit_channel:list()].")
    again = inbox.get(30)
    assert again.body == b"job"
    with pytest.raises(Disconnected):
        transport.commit([first], [])
    transport.commit([again], [])


def test_what_cannot_be_acknowledged_together_comes_again_together(
    vhost: VirtualHost, connect: Connect
) -> None:
    """A group of which one message is of a channel that is gone, and the other is not."""
    transport, inbox, other = connect(), Inbox(), Inbox()
    transport.subscribe("work", inbox, prefetch=5)
    transport.subscribe("other", other, prefetch=5)
    transport.send(Send("work", b"gone"), Send("other", b"there"))
    gone, there = inbox.get(), other.get()
    vhost.api("DELETE", "queues", "work")
    wait_until(lambda: _is_sent(transport, Send("work", b"new")), 10, "the queue to be made again")
    with pytest.raises(Disconnected, match="channel that is gone"):
        transport.commit([there, gone], [])
    again = other.get(30)
    assert again.body == b"there"
    transport.commit([again], [])


def test_full_queue_refuses(vhost: VirtualHost, connect: Connect) -> None:
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    vhost.api("PUT", "queues", "small", {"durable": True, "arguments": arguments})
    transport = connect()
    with pytest.raises(BrokerRefused, match="a message to small was refused: the broker could not take it"):
        transport.send(*(Send("small", b"") for _ in range(20)))
    assert transport.is_connected


def _is_sent(transport: AmqpTransport, send: Send) -> bool:
    try:
        transport.send(send)
    except BrokerRefused:
        return False
    return True
