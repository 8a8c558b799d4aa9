"""Error nodes and joins on real brokers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from parvis.config import Config
from parvis.recipe.envelope import Envelope
from parvis.service.base import Service, Step
from parvis.service.contract import Anything, Outputs
from parvis.service.host import Host
from parvis.transport.base import BrokerRefused, Message, Send, Transport
from parvis.transport.stomp import StompTransport
from parvis_services.operate.join import Join
from real.activemq.server import ActiveMQ
from real.rabbitmq.vhost import VirtualHost
from running import Listener, in_thread
from sample_services import Multiplier, Number
from waiting import wait_until


class Splitter(Service[Anything, Anything]):
    """Sends numbers, one by one."""

    name: ClassVar[str] = "Splitter"
    queue: ClassVar[str] = "split"
    outputs: ClassVar[Outputs] = {"each": Number}

    def process(self, payload: Any, step: Step[Anything]) -> None:
        for number in payload.model_dump()["numbers"]:
            step.send("each", {"number": number})


@pytest.fixture(
    params=[
        pytest.param("activemq", marks=pytest.mark.real("activemq")),
        pytest.param("rabbitmq", marks=pytest.mark.real("rabbitmq")),
    ]
)
def connect(request: pytest.FixtureRequest) -> Callable[[], Transport]:
    """Makes transports, not yet connected, to each broker in turn."""
    if request.param == "rabbitmq":
        return request.getfixturevalue("vhost").transport
    server: ActiveMQ = request.getfixturevalue("activemq")
    namespace = f"recipes-{uuid.uuid4().hex[:8]}"
    address = [(server.host, server.port)]
    return lambda: StompTransport(address, server.username, server.password, namespace)


@pytest.fixture
def transport(connect: Callable[[], Transport]) -> Iterator[Transport]:
    connected = connect()
    connected.connect()
    yield connected
    connected.disconnect()


def is_taken(transport: Transport, sends: Sequence[Send]) -> bool:
    """Send, if the queue is there: on RabbitMQ the services make theirs when they start."""
    try:
        transport.send(*sends)
    except BrokerRefused:
        return False
    return True


def test_a_fan_out_with_failures_is_joined(
    connect: Callable[[], Transport], transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    recipe: dict[str, Any] = {
        "1": {"queue": "split", "output": {"each": 2}, "priority": 9},
        "2": {"queue": "multiply", "output": 3, "error": [3, 4], "retries": 1, "retry-delay": 0.5},
        "3": {"queue": "join", "parameters": {"wait-for": {"2": 5}}, "output": 5},
        "4": {"queue": "failed"},
        "5": {"queue": "joined"},
        "6": {"queue": "join", "parameters": {"wait-for": {"2": 99}, "timeout": 1}, "output": {"timeout": 5}},
        "start": [[1, {"numbers": [1, 13, 15, 2, 3]}]],
    }
    late = {**recipe, "2": {**recipe["2"], "output": 6, "error": [4]}}
    heard = Listener(transport, "failed", "joined")
    host = Host(connect(), [service(Config()) for service in (Join, Multiplier, Splitter)])
    with in_thread(host):
        for content, recipe_id in ((recipe, "whole"), (late, "late")):
            begin = list(Envelope(content, 0, None, environment={"ID": recipe_id}).start())
            wait_until(lambda begin=begin: is_taken(transport, begin), 20, "the first queue")
        heard.wait_for(6, timeout=30)
    by_recipe: dict[str, list[Any]] = {"whole": [], "late": []}
    for message in heard.messages:
        envelope = Envelope.parse(message.body)
        if message.destination == "joined":
            by_recipe[str(envelope.recipe_id)].append(envelope.payload)
    ((whole,), (late_one,)) = by_recipe["whole"], by_recipe["late"]
    results = whole["arrived"]["2"]
    assert sorted(entry["number"] for entry in results if "number" in entry) == [2, 4, 6]
    assert sorted(entry["error"]["tries"] for entry in results if "error" in entry) == [1, 2]
    assert (len(late_one["arrived"]["2"]), late_one["missing"]) == (3, {"2": 96})


@pytest.mark.real("rabbitmq")
def test_an_error_node_whose_queue_nobody_made_leaves_a_whole_dead_letter(vhost: VirtualHost) -> None:
    recipe: dict[str, Any] = {
        "1": {"queue": "multiply", "output": 2, "error": 3},
        "2": {"queue": "results"},
        "3": {"queue": "nobody.listens"},
        "start": [[1, {"number": 13}]],
    }
    transport = vhost.transport()
    transport.connect()
    with in_thread(Host(vhost.transport(), [Multiplier(Config())])):
        begin = list(Envelope(recipe, 0, None, environment={"ID": "one"}).start())
        wait_until(lambda: is_taken(transport, begin), 20, "the queue")
        wait_until(
            lambda: any(q["name"] == "dlq.multiply" for q in vhost.api("GET", "queues")), 30, "dead letters"
        )
        letters: list[Message] = []
        transport.subscribe("dlq.multiply", letters.append, absolute=True)
        wait_until(lambda: letters, 30, "the dead letter")
    transport.disconnect()
    headers = letters[0].headers
    assert headers["parvis-reason"].startswith(
        "13 is no good; the broker refused what Multiplier wants to send"
    )
    assert "nobody.listens" in headers["parvis-reason"]
    assert headers["parvis-route"] == "1 multiply"
    assert letters[0].body == begin[0].body
