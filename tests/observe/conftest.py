"""Brokers for tests of what is known about queues."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from parvis.config import Config, JmxSettings, StompSettings
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from queue_worlds import TellingWorld, World, rabbitmq_config
from real.activemq.jolokia import managed
from real.activemq.server import ActiveMQ
from real.packages import Unavailable, unavailable
from real.rabbitmq.vhost import VirtualHost
from running import NAMESPACE

ACTIVEMQ = pytest.mark.real("activemq")
RABBITMQ = pytest.mark.real("rabbitmq")


@pytest.fixture(scope="module")
def activemq_with_jolokia(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ActiveMQ, int]]:
    with ExitStack() as stack:
        try:
            managed_broker = stack.enter_context(managed(tmp_path_factory.mktemp("activemq")))
        except Unavailable as error:
            unavailable(str(error))
        yield managed_broker


@pytest.fixture
def embedded(broker: BrokerThread, transport: StompTransport) -> TellingWorld:
    def own(queue: str) -> tuple[int, ...]:
        (one,) = [one for one in broker.statistics() if one.name == f"/queue/{queue}"]
        return one.size, one.in_flight, one.enqueued, one.dequeued, one.consumers

    settings = StompSettings("127.0.0.1", broker.port, "", "", NAMESPACE)
    return TellingWorld(Config(stomp=settings), transport, f"{NAMESPACE}.", "DLQ.", own)


@contextmanager
def joined(broker: ActiveMQ) -> Iterator[World]:
    """A namespace of its own on an ActiveMQ."""
    namespace = f"n{uuid.uuid4().hex}"
    settings = StompSettings("127.0.0.1", broker.port, broker.username, broker.password, namespace)
    transport = StompTransport(settings.hosts, settings.username, settings.password, namespace)
    transport.connect()
    yield World(Config(stomp=settings), transport, f"{namespace}.", "DLQ.")
    transport.disconnect()


@pytest.fixture
def activemq_alone(activemq: ActiveMQ) -> Iterator[World]:
    with joined(activemq) as world:
        yield world


@pytest.fixture
def activemq_world(activemq_with_jolokia: tuple[ActiveMQ, int]) -> Iterator[TellingWorld]:
    broker, port = activemq_with_jolokia

    def own(queue: str) -> tuple[int, ...]:
        bean = f"org.apache.activemq:type=Broker,brokerName=*,destinationType=Queue,destinationName={queue}"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jolokia/read/{bean}") as answer:
            (one,) = json.load(answer)["value"].values()
        names = ("QueueSize", "InFlightCount", "EnqueueCount", "DequeueCount", "ConsumerCount")
        return tuple(one[name] for name in names)

    with joined(broker) as world:
        yield TellingWorld(world.config, world.transport, world.prefix, world.dead, own)


@pytest.fixture
def jolokia(activemq_world: TellingWorld, activemq_with_jolokia: tuple[ActiveMQ, int]) -> TellingWorld:
    """ActiveMQ asked through Jolokia, as somebody who is allowed no statistics."""
    _, port = activemq_with_jolokia
    jmx = JmxSettings("127.0.0.1", port, "api/jolokia", "nobody", "needed")
    guest = replace(activemq_world.config.stomp, username="guest", password="guest")
    return replace(activemq_world, config=Config(stomp=guest, jmx=jmx))


@pytest.fixture
def rabbitmq_world(vhost: VirtualHost) -> Iterator[TellingWorld]:
    def own(queue: str) -> tuple[int, ...]:
        one = vhost.queue(queue)
        stats = one.get("message_stats", {})
        return (
            one.get("messages", -1),
            one.get("messages_unacknowledged", -1),
            stats.get("publish", -1),
            stats.get("ack", -1),
            one.get("consumers", -1),
        )

    transport = vhost.transport()
    transport.connect()
    yield TellingWorld(rabbitmq_config(vhost), transport, "", "dlq.", own)
    transport.disconnect()


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("activemq_world", marks=ACTIVEMQ),
        pytest.param("jolokia", marks=ACTIVEMQ),
        pytest.param("rabbitmq_world", marks=RABBITMQ),
    ]
)
def world(request: pytest.FixtureRequest) -> TellingWorld:
    return request.getfixturevalue(request.param)


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("activemq_alone", marks=ACTIVEMQ),
        pytest.param("rabbitmq_world", marks=RABBITMQ),
    ]
)
def broker_world(request: pytest.FixtureRequest) -> World:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["embedded", pytest.param("activemq_world", marks=ACTIVEMQ)])
def stomp_world(request: pytest.FixtureRequest) -> World:
    return request.getfixturevalue(request.param)
