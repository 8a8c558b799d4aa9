"""The AMQP transport and the transport of `workflows` for RabbitMQ, unmodified, both ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from inbox import Inbox
from parvis.recipe.envelope import Envelope
from parvis.transport.amqp import AmqpTransport
from parvis.transport.base import Send
from real.rabbitmq.vhost import VirtualHost

workflows_pika = pytest.importorskip("workflows.transport.pika_transport")
workflows_recipe = pytest.importorskip("workflows.recipe")
pytestmark = pytest.mark.real("rabbitmq")

Heard = SimpleQueue[tuple[dict[str, Any], Any]]


@pytest.fixture
def ours(vhost: VirtualHost) -> Iterator[AmqpTransport]:
    """Our transport, connected; and queues, as the other makes none."""
    vhost.make_queues("work", "results")
    transport = vhost.transport()
    transport.connect(10)
    yield transport
    transport.disconnect()


@pytest.fixture
def theirs(vhost: VirtualHost) -> Iterator[Any]:
    """A connected PikaTransport."""
    settings = {
        "--rabbit-host": vhost.server.host,
        "--rabbit-port": vhost.server.port,
        "--rabbit-user": vhost.server.username,
        "--rabbit-pass": vhost.server.password,
        "--rabbit-vhost": vhost.name,
    }
    transport = type("Peer", (workflows_pika.PikaTransport,), {"config": settings})()
    transport.connect()
    yield transport
    transport.disconnect()


RECIPE = {"1": {"queue": "work", "output": 2}, "2": {"queue": "results"}, "start": [[1, []]]}


def test_they_to_us(ours: AmqpTransport, theirs: Any) -> None:
    inbox, news = Inbox(), Inbox()
    ours.subscribe("work", inbox)
    ours.subscribe_broadcast("transient.status", news)
    theirs.send("work", {"payload": "é"}, headers={"workflows-recipe": True, "number": 7})
    message = inbox.get()
    assert json.loads(message.body) == {"payload": "é"}
    assert (message.headers["workflows-recipe"], message.headers["number"]) == ("True", "7")
    ours.commit([message], [])
    theirs.broadcast_status({"host": "somewhere", "status": 2, "workflows": "3.3"})
    assert json.loads(news.get().body)["host"] == "somewhere"


def test_we_to_them(ours: AmqpTransport, theirs: Any) -> None:
    heard: Heard = SimpleQueue()
    theirs.subscribe("work", lambda *message: heard.put(message), acknowledgement=True)
    ours.send(Send("work", b'{"payload": [1, 2]}', {"workflows-recipe": "True", "a:b": "c\nd"}))
    header, message = heard.get(timeout=10)
    assert message == {"payload": [1, 2]}
    assert header["workflows-recipe"] is True
    assert header["a:b"] == "c\nd"
    results = Inbox()
    ours.subscribe("results", results)
    theirs.send("results", {"done": True})
    theirs.ack(header)
    assert json.loads(results.get().body) == {"done": True}


def test_status_of_ours_is_heard_by_them(ours: AmqpTransport, theirs: Any) -> None:
    heard: Heard = SimpleQueue()
    ours.unsubscribe(ours.subscribe_broadcast("transient.status", Inbox()))  # the exchange must be there
    theirs.subscribe_broadcast("transient.status", lambda *message: heard.put(message))
    ours.post(Send("transient.status", b'{"status": 4}', kind="topic", persistent=False, expiration=15))
    assert heard.get(timeout=10)[1] == {"status": 4}


def test_their_recipe_wrapper_takes_and_continues_a_recipe_of_ours(ours: AmqpTransport, theirs: Any) -> None:
    results = Inbox()
    ours.subscribe("results", results)
    heard: SimpleQueue[tuple[Any, dict[str, Any], Any]] = SimpleQueue()
    workflows_recipe.wrap_subscribe(theirs, "work", lambda *message: heard.put(message), acknowledgement=True)
    (send,) = Envelope(RECIPE, 0, None, environment={"ID": "abc"}).start()
    body = json.loads(send.body) | {"payload": 21}
    ours.send(Send("work", json.dumps(body).encode(), send.headers))
    wrapper, header, payload = heard.get(timeout=10)
    wrapper.send(2 * payload)
    theirs.ack(header)
    message = results.get()
    envelope = Envelope.parse(message.body)
    assert (envelope.payload, envelope.pointer, envelope.recipe_id) == (42, 2, "abc")
    assert message.headers["workflows-recipe"] == "True"


def test_what_they_refuse_goes_to_the_dead_letters(ours: AmqpTransport, theirs: Any) -> None:
    dead = Inbox()
    ours.subscribe("dlq.work", dead)
    heard: Heard = SimpleQueue()
    theirs.subscribe("work", lambda *message: heard.put(message), acknowledgement=True)
    ours.send(Send("work", b'"poison"', {"note": "kept"}))
    theirs.nack(heard.get(timeout=10)[0], requeue=False)
    letter = dead.get()
    assert (letter.body, letter.headers["note"]) == (b'"poison"', "kept")


def test_they_read_dead_letters_of_ours(ours: AmqpTransport, theirs: Any) -> None:
    inbox = Inbox()
    ours.subscribe("work", inbox)
    theirs.send("work", "poison")
    message = inbox.get()
    ours.commit([message], [ours.dead_letter(message, {"parvis-reason": "bad"})])
    heard: Heard = SimpleQueue()
    theirs.subscribe("dlq.work", lambda *message: heard.put(message), acknowledgement=True)
    header, body = heard.get(timeout=10)
    assert body == "poison"
    assert header["parvis-reason"] == "bad"
    assert header["x-death"][0]["queue"] == "work"
    assert header["x-death"][0]["time"].timestamp() > 0
    theirs.ack(header)
