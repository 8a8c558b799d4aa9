"""Reading on the thread that waits for messages, in place of the transport's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from parvis.transport.base import Message, Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import connected, transport_to
from tcp_proxy import TcpProxy
from waiting import wait_until


class Inbox:
    """What arrived, and on which thread."""

    def __init__(self) -> None:
        self.messages: SimpleQueue[Message] = SimpleQueue()
        self.threads: list[int] = []

    def take(self, message: Message) -> None:
        self.threads.append(threading.get_ident())
        self.messages.put(message)

    def has_news(self) -> bool:
        return not self.messages.empty()


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    with BrokerThread(port=0) as running:
        yield running


@pytest.fixture
def sender(broker: BrokerThread) -> Iterator[StompTransport]:
    with connected(broker.port) as ready:
        yield ready


def test_who_drives_is_given_messages_and_answers_on_its_own_thread(
    transport: StompTransport, sender: StompTransport
) -> None:
    inbox = Inbox()
    transport.subscribe("q", inbox.take, prefetch=1)
    assert transport.drive(0, inbox.has_news)
    for number in range(100):
        sender.send(Send("q", str(number).encode()))
        assert transport.drive(10, inbox.has_news)
        message = inbox.messages.get_nowait()
        assert message.body == str(number).encode()
        transport.commit([message], [Send("other", b"")])
    assert inbox.threads.count(threading.get_ident()) > 90


def test_while_the_driver_is_away_the_transport_reads(
    transport: StompTransport, sender: StompTransport
) -> None:
    inbox = Inbox()
    transport.subscribe("q", inbox.take, prefetch=10)
    transport.drive(0.01, inbox.has_news)
    sender.send(Send("q", b"1"))
    wait_until(inbox.has_news, 5, "the message")
    assert inbox.threads != [threading.get_ident()]
    inbox.messages.get_nowait()
    sender.send(Send("q", b"2"))
    assert transport.drive(5, inbox.has_news)
    assert inbox.messages.get_nowait().body == b"2"


def test_another_thread_gets_its_answer_whether_somebody_drives_or_not(transport: StompTransport) -> None:
    done = threading.Event()

    def send() -> None:
        for _ in range(20):
            transport.send(Send("q", b""), timeout=5)
        done.set()
        transport.wake()

    transport.drive(0.01, done.is_set)
    thread = threading.Thread(target=send)
    thread.start()
    thread.join(timeout=10)
    assert done.is_set()
    done.clear()
    thread = threading.Thread(target=send)
    thread.start()
    transport.drive(10, done.is_set)
    thread.join(timeout=10)
    assert done.is_set()


def test_whoever_drives_can_be_woken(transport: StompTransport) -> None:
    told = threading.Event()

    def tell() -> None:
        told.set()
        transport.wake()

    timer = threading.Timer(0.05, tell)
    timer.start()
    assert transport.drive(60, told.is_set)
    timer.join()


def test_driving_ends_with_the_connection_and_goes_on_with_the_next(
    broker: BrokerThread, sender: StompTransport
) -> None:
    proxy, inbox = TcpProxy(broker.port), Inbox()
    transport = transport_to(proxy.port)
    try:
        transport.connect()
        transport.subscribe("q", inbox.take)
        threading.Timer(0.05, proxy.cut).start()
        assert not transport.drive(30, inbox.has_news)
        wait_until(lambda: transport.is_connected, 20, "the next connection")
        sender.send(Send("q", b"1"))
        wait_until(lambda: transport.drive(1, inbox.has_news) and inbox.has_news(), 20, "the message")
        transport.commit([inbox.messages.get_nowait()], [])
    finally:
        transport.disconnect()
        proxy.close()


def test_without_a_connection_there_is_nothing_to_drive() -> None:
    assert not transport_to(1).drive(10, lambda: False)
