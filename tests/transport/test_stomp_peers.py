"""The STOMP transport and other clients, unmodified: `workflows` and `stomp.py`, both ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
import stomp
import stomp.utils

from inbox import Inbox
from parvis.transport.base import Send
from transport.conftest import Broker, Connect

workflows_stomp = pytest.importorskip("workflows.transport.stomp_transport")


@pytest.fixture
def workflows_transport(broker: Broker, namespace: str) -> Iterator[Any]:
    """A connected StompTransport of `workflows`."""
    settings = {
        "--stomp-host": broker.host,
        "--stomp-port": broker.port,
        "--stomp-user": broker.username,
        "--stomp-pass": broker.password,
        "--stomp-prfx": namespace,
    }
    transport = type("Peer", (workflows_stomp.StompTransport,), {"config": settings})()
    transport.connect()
    yield transport
    transport.disconnect()


def test_workflows_to_us(connect: Connect, workflows_transport: Any) -> None:
    ours, inbox, news = connect(), Inbox(), Inbox()
    ours.subscribe("work", inbox)
    ours.subscribe_broadcast("transient.status", news)
    workflows_transport.send("work", {"payload": "é"}, headers={"workflows-recipe": True})
    message = inbox.get()
    assert json.loads(message.body) == {"payload": "é"}
    assert message.headers["workflows-recipe"] == "True"
    ours.commit([message], [])
    workflows_transport.broadcast_status({"host": "somewhere", "status": 2})
    assert json.loads(news.get().body) == {"host": "somewhere", "status": 2}


def test_we_to_workflows(connect: Connect, workflows_transport: Any) -> None:
    ours = connect()
    received: SimpleQueue[tuple[dict[str, Any], Any]] = SimpleQueue()
    workflows_transport.subscribe("work", lambda *message: received.put(message), acknowledgement=True)
    workflows_transport.subscribe_broadcast("transient.status", lambda *message: received.put(message))
    ours.send(Send("work", b'{"payload": [1, 2]}', {"workflows-recipe": "True", "a:b": "c\nd"}))
    header, message = received.get(timeout=10)
    assert message == {"payload": [1, 2]}
    assert header["workflows-recipe"] == "True"
    assert header["a:b"] == "c\nd"
    transaction = workflows_transport.transaction_begin(subscription_id=header["subscription"])
    workflows_transport.ack(header, transaction=transaction)
    workflows_transport.send("results", {"done": True}, transaction=transaction)
    workflows_transport.transaction_commit(transaction)
    results = Inbox()
    ours.subscribe("results", results)
    assert json.loads(results.get().body) == {"done": True}
    ours.post(Send("transient.status", b'{"status": 4}', kind="topic", persistent=False, expiration=15))
    assert received.get(timeout=10)[1] == {"status": 4}


def test_workflows_takes_over_what_we_leave(connect: Connect, workflows_transport: Any) -> None:
    ours, inbox = connect(), Inbox()
    ours.subscribe("work", inbox)
    workflows_transport.send("work", "text")
    inbox.get()
    ours.disconnect()
    received: SimpleQueue[tuple[dict[str, Any], Any]] = SimpleQueue()
    workflows_transport.subscribe("work", lambda *message: received.put(message), acknowledgement=True)
    header, message = received.get(timeout=10)
    assert message == "text"
    workflows_transport.nack(header)


class Listener(stomp.ConnectionListener):
    def __init__(self) -> None:
        self.frames: SimpleQueue[stomp.utils.Frame] = SimpleQueue()

    def on_message(self, frame: stomp.utils.Frame) -> None:
        self.frames.put(frame)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_stomp_py_both_ways(connect: Connect, broker: Broker, namespace: str, version: str) -> None:
    ours, inbox, listener = connect(), Inbox(), Listener()
    kinds = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}
    theirs = kinds[version]([(broker.host, broker.port)])
    theirs.set_listener("", listener)
    theirs.connect(broker.username, broker.password, wait=True)
    theirs.subscribe(f"/queue/{namespace}.to-them", id="7", ack="auto")
    ours.send(Send("to-them", "grüße".encode(), {"kind": "greeting"}))
    frame = listener.frames.get(timeout=10)
    assert frame.body == "grüße"
    assert frame.headers["kind"] == "greeting"
    ours.subscribe("to-us", inbox)
    for content_length in (True, False):  # on ActiveMQ: a message of bytes, or of text
        theirs.auto_content_length = content_length
        theirs.send(f"/queue/{namespace}.to-us", "grüße zurück", kind="reply")
        message = inbox.get()
        assert message.body.decode() == "grüße zurück"
        assert message.headers["kind"] == "reply"
        ours.commit([message], [Send("to-them", b"thanks")])
        assert listener.frames.get(timeout=10).body == "thanks"
    theirs.disconnect()
