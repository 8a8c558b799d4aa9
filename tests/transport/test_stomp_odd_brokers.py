"""The STOMP transport with brokers that answer in ways real ones rarely do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from inbox import Inbox
from parvis.transport.base import BrokerRefused, Disconnected, Send
from parvis.transport.stomp import StompTransport
from parvis.transport.stomp_frames import Frame, encode
from scripted_broker import Answer, ScriptedBroker, receipt
from waiting import wait_until

Script = Callable[[Answer], ScriptedBroker]


@pytest.fixture
def script() -> Iterator[Script]:
    """Makes brokers that end with the test."""
    brokers: list[ScriptedBroker] = []

    def make(answer: Answer) -> ScriptedBroker:
        brokers.append(ScriptedBroker(answer))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.close()


def error(text: str, **headers: str) -> bytes:
    return encode(Frame("ERROR", {"message": text, **headers}))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "does not speak STOMP"),
        (b"\x15\x03\x01\x00\x02\x02\x46\n\n\0", "speaks TLS"),
        (encode(Frame("CONNECTED", {"version": "1.1"})), "speaks STOMP 1.1"),
        (encode(Frame("CONNECTED")), "speaks STOMP 1.0"),
        (error("no user 'user' with password sesame"), r"password \*\*\*"),
        (b"ERROR\n\nonly a body\0", "only a body"),
        (b"ERROR\n\n\0", "no reason"),
        (encode(Frame("MESSAGE", {"message": "odd"})), "odd"),
    ],
)
def test_refused_log_in(script: Script, answer: bytes, says: str) -> None:
    with pytest.raises(BrokerRefused, match=says) as caught:
        script(lambda _frame: answer).transport().connect(5)
    assert "sesame" not in str(caught.value)


def test_the_default_password_is_no_secret(script: Script) -> None:
    broker = script(lambda _frame: error("name or password is wrong"))
    transport = StompTransport([("127.0.0.1", broker.port)], "admin", "password", "")
    with pytest.raises(BrokerRefused, match="name or password is wrong"):
        transport.connect(5)


def test_broker_that_hangs_up_during_the_log_in(script: Script) -> None:
    with pytest.raises(Disconnected, match="closed the connection"):
        script(lambda _frame: None).transport().connect(0.5)


def test_broker_that_says_nothing(script: Script) -> None:
    broker = script(lambda _frame: b"")
    transport = broker.transport()
    with pytest.raises(Disconnected, match=f"silence at 127.0.0.1:{broker.port}"):
        transport.connect(0.3)
    assert not transport.is_connected


def test_error_that_ends_the_connection_is_a_refusal_of_what_it_names(script: Script) -> None:
    def answer(frame: Frame) -> bytes | None:
        if frame.command == "SEND":
            return error("not this one", **{"receipt-id": frame.headers["receipt"]})
        return receipt(frame)

    transport = script(answer).transport()
    transport.connect(5)
    with pytest.raises(BrokerRefused, match="not this one"):
        transport.send(Send("work", b""))
    transport.disconnect()


@pytest.mark.parametrize("closes", [True, False])
def test_unnamed_error_refuses_the_transaction_it_comes_in(script: Script, closes: bool) -> None:
    def answer(frame: Frame) -> bytes | None:
        if frame.command == "SEND":
            return error("no room for it")
        if frame.command == "COMMIT":
            return None if closes else error("rolled back", **{"receipt-id": frame.headers["receipt"]})
        return receipt(frame)

    transport = script(answer).transport()
    transport.connect(5)
    with pytest.raises(BrokerRefused, match="no room for it"):
        transport.send(Send("work", b"1"), Send("work", b"2"))
    transport.disconnect()


def test_reason_that_comes_after_the_refusal(script: Script) -> None:
    def answer(frame: Frame) -> bytes:
        if frame.command == "COMMIT":
            refusal = error("rolled back", **{"receipt-id": frame.headers["receipt"]})
            return refusal + error("no room for it")
        return receipt(frame)

    transport = script(answer).transport()
    transport.connect(5)
    with pytest.raises(BrokerRefused, match="no room for it"):
        transport.send(Send("work", b"1"), Send("work", b"2"))
    transport.disconnect()


def test_refusal_without_a_reason(script: Script) -> None:
    def answer(frame: Frame) -> bytes:
        if frame.command == "COMMIT":
            return error("rolled back", **{"receipt-id": frame.headers["receipt"]})
        return receipt(frame)

    transport = script(answer).transport()
    transport.connect(5)
    with pytest.raises(BrokerRefused, match="rolled back"):
        transport.send(Send("work", b"1"), Send("work", b"2"))
    transport.disconnect()


@pytest.mark.parametrize("late", [True, False])
def test_error_about_a_wildcard_on_either_side_of_the_answer(script: Script, late: bool) -> None:
    def answer(frame: Frame) -> bytes:
        if frame.command == "ABORT":
            problem = error("no such selector")
            return receipt(frame) + problem if late else problem + receipt(frame)
        return receipt(frame)

    broker = script(answer)
    transport = broker.transport()
    transport.connect(5)
    with pytest.raises(BrokerRefused, match="no such selector"):
        transport.subscribe("work.>", Inbox(), selector="a = = 1")
    transport.send(Send("work", b"1"))
    assert broker.connections == 1
    transport.disconnect()


def test_error_about_nothing_makes_a_new_connection(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    def answer(frame: Frame) -> bytes:
        if frame.command == "SUBSCRIBE" and broker.connections == 1:
            return receipt(frame) + error("going down for maintenance")
        return receipt(frame)

    broker = script(answer)
    transport = broker.transport()
    transport.connect(5)
    transport.subscribe("work", Inbox())
    wait_until(lambda: broker.connections == 2 and transport.is_connected, 10, "a new connection")
    assert "going down for maintenance" in caplog.text
    transport.send(Send("work", b""))
    transport.disconnect()


def test_bytes_that_are_not_stomp_make_a_new_connection(script: Script) -> None:
    message = Frame("MESSAGE", {"subscription": "1", "destination": "/queue/test.work", "message-id": "m"})

    def answer(frame: Frame) -> bytes:
        if frame.command == "SUBSCRIBE" and broker.connections == 1:
            return receipt(frame) + encode(message) + b"\xff\xfe\n\n\0"
        return receipt(frame)

    broker, inbox = script(answer), Inbox()
    transport = broker.transport()
    transport.connect(5)
    transport.subscribe("work", inbox)
    assert inbox.get().destination == "work"
    wait_until(lambda: broker.connections == 2 and transport.is_connected, 10, "a new connection")
    transport.disconnect()


def test_subscription_refused_after_a_loss_is_tried_again(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def answer(frame: Frame) -> bytes | None:
        if frame.command == "SEND" and broker.connections == 1:
            return None
        if frame.command == "SUBSCRIBE" and broker.connections in {2, 3}:
            return error("not yet", **{"receipt-id": frame.headers["receipt"]})
        return receipt(frame)

    broker = script(answer)
    transport = broker.transport()
    transport.connect(5)
    transport.subscribe("work", Inbox())
    with pytest.raises(Disconnected):
        transport.send(Send("work", b""))
    wait_until(lambda: broker.connections == 4 and transport.is_connected, 10, "the fourth connection")
    assert "accepted before: not yet" in caplog.text
    transport.send(Send("work", b""))
    transport.disconnect()


def test_posts_are_dropped_when_the_broker_does_not_read(script: Script) -> None:
    blocked, arrived = threading.Event(), list[str]()

    def answer(frame: Frame) -> bytes:
        if frame.command == "SEND":
            blocked.wait(20)
            arrived.append(frame.headers["destination"])
        return receipt(frame)

    transport = script(answer).transport()
    transport.connect(5)
    for _ in range(200):
        transport.post(Send("status", bytes(100_000), kind="topic"))
    assert transport.is_connected
    blocked.set()
    transport.send(Send("work", b""))
    assert arrived.pop() == "/queue/test.work"
    assert 0 < len(arrived) < 150
    transport.disconnect()


def test_refused_post_is_logged(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    def answer(frame: Frame) -> bytes:
        if frame.headers.get("destination") == "/topic/test.status":
            return error("not for you", **{"receipt-id": frame.headers["receipt"]})
        return receipt(frame)

    transport = script(answer).transport()
    transport.connect(5)
    transport.post(Send("status", b"", kind="topic"))
    transport.send(Send("work", b""))
    assert "not for you" in caplog.text
    assert transport.is_connected
    transport.disconnect()


def test_namespace_may_end_with_a_dot_or_be_empty(script: Script) -> None:
    seen: list[str] = []

    def answer(frame: Frame) -> bytes:
        if frame.command == "SEND":
            seen.append(frame.headers["destination"])
        return receipt(frame)

    broker = script(answer)
    for namespace in ("zocalo.", ""):
        transport = StompTransport([("127.0.0.1", broker.port)], "", "", namespace)
        transport.connect(5)
        transport.send(Send("work", b""))
        transport.disconnect()
    assert seen == ["/queue/zocalo.work", "/queue/work"]
