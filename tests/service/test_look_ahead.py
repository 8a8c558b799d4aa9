"""A service is told of the message that comes next, while it handles the one before."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from parvis.config import Config
from parvis.service.base import BatchService, Step
from parvis.service.contract import Outputs
from parvis.service.host import Host
from parvis.transport.base import Send, Transport
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from real.activemq.server import ActiveMQ
from real.rabbitmq.vhost import VirtualHost
from running import Listener, connected, in_thread, recipe_message, transport_to
from sample_services import FactorParameters, Looker, Number
from tcp_proxy import TcpProxy
from waiting import wait_until

LIMIT = 20
ALL = [1, 2, 3, 4, 5, 6]

Connect = Callable[[], Transport]


class GatheringLooker(BatchService[Number, FactorParameters]):
    """Takes batches, and so is told of nothing."""

    name: ClassVar[str] = "GatheringLooker"
    queue: ClassVar[str] = "look"
    Payload: ClassVar[type[BaseModel]] = Number
    Parameters: ClassVar[type[BaseModel]] = FactorParameters
    outputs: ClassVar[Outputs] = {"result": Number}
    default_output: ClassVar[str | None] = "result"
    batch_size: ClassVar[int] = 1

    def prepare(self, payload: Number, parameters: FactorParameters) -> None:  # noqa: ARG002
        raise SystemExit("nobody should ask")

    def process_batch(self, batch: Sequence[tuple[Number, Step[FactorParameters]]]) -> None:
        for payload, step in batch:
            step.send("result", {"number": payload.number})


def number(which: Any) -> Send:
    return recipe_message("look", {"number": which}, parameters={"multiply-by": 7})


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("activemq", marks=pytest.mark.real("activemq")),
        pytest.param("rabbitmq", marks=pytest.mark.real("rabbitmq")),
    ]
)
def connect(request: pytest.FixtureRequest) -> Connect:
    """Makes transports, not yet connected, to each broker in turn."""
    if request.param == "rabbitmq":
        vhost: VirtualHost = request.getfixturevalue("vhost")
        vhost.make_queues("look")
        return vhost.transport
    if request.param == "embedded":
        broker: BrokerThread = request.getfixturevalue("broker")
        return lambda: transport_to(broker.port)
    server: ActiveMQ = request.getfixturevalue("activemq")
    namespace = f"look-{uuid.uuid4().hex[:8]}"
    return lambda: StompTransport([(server.host, server.port)], server.username, server.password, namespace)


@pytest.fixture
def client(connect: Connect) -> Iterator[Transport]:
    transport = connect()
    transport.connect()
    yield transport
    transport.disconnect()


def test_the_next_message_is_at_hand_while_one_is_handled(connect: Connect, client: Transport) -> None:
    """On every broker, with no more than two handed out at a time; and what `prepare` raises is no matter."""
    service = Looker(Config())
    service.last = ALL[-1]
    results = Listener(client, "results")
    with in_thread(Host(connect(), [service])):
        client.send(*map(number, ALL))
        results.wait_for(len(ALL))
    assert [payload["number"] for payload in results.payloads()] == ALL
    assert service.told == [(one, 7) for one in ALL[1:]]


def test_a_message_that_comes_while_one_is_handled_is_told(
    broker: BrokerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: not only when the transport notices that nobody has read for a while."""
    monkeypatch.setattr("parvis.transport.wire._AWAY", 3600.0)
    service = Looker(Config())
    with connected(broker.port) as client, in_thread(Host(transport_to(broker.port), [service])):
        results = Listener(client, "results")
        client.send(number(0))
        results.wait_for(1)  # from then on it is the host that reads, when it has nothing else to do
        service.last = 2
        client.send(number(1))
        wait_until(lambda: 1 in service.begun, LIMIT, "the first message to be in hand")
        client.send(number(2))
        results.wait_for(3)
    assert service.told == [(2, 7)]


def test_who_was_idle_is_told_of_nothing(broker: BrokerThread) -> None:
    """It would only be a detour for a message that is handled at once."""
    service = Looker(Config())
    with connected(broker.port) as client, in_thread(Host(transport_to(broker.port), [service])):
        results = Listener(client, "results")
        for one in ALL:
            client.send(number(one))
            results.wait_for(one)
    assert service.told == []


def test_what_cannot_be_read_is_not_told_and_set_aside_in_its_turn(broker: BrokerThread) -> None:
    service = Looker(Config())
    service.go_on.clear()
    with connected(broker.port) as client, in_thread(Host(transport_to(broker.port), [service])):
        letters, results = Listener(client, "DLQ.test.look"), Listener(client, "results")
        client.send(number(1), number("many"), number(3))
        wait_until(lambda: service.begun, LIMIT, "the first message to be in hand")
        service.go_on.set()
        results.wait_for(2)
        letters.wait_for(1)
    assert {one for one, _ in service.told} <= {3}
    assert service.begun == [1, 3]


def test_after_a_lost_connection_everything_is_handled_and_told_anew(broker: BrokerThread) -> None:
    service = Looker(Config())
    service.go_on.clear()
    with contextlib.closing(TcpProxy(broker.port)) as proxy, connected(broker.port) as client:
        results = Listener(client, "results")
        host_transport = transport_to(proxy.port)
        with in_thread(Host(host_transport, [service])):
            client.send(*map(number, (1, 2)))
            wait_until(lambda: service.told, LIMIT, "the second message to be told")
            first = host_transport.connection
            proxy.cut()
            wait_until(
                lambda: host_transport.is_connected and host_transport.connection > first,
                LIMIT,
                "a new connection",
            )
            service.go_on.set()
            results.wait_for(2)
    assert sorted(payload["number"] for payload in results.payloads()) == [1, 2]
    assert service.begun == [1, 1, 2]
    assert service.told[0] == (2, 7)


def test_what_another_process_may_have_died_of_is_not_told(broker: BrokerThread) -> None:
    service = Looker(Config())
    with connected(broker.port) as client:
        results = Listener(client, "results")
        client.send(number(1), number(2))
        with connected(broker.port) as other:  # takes both, and goes away with them
            Listener(other, "look").wait_for(2)
        with in_thread(Host(transport_to(broker.port), [service])):
            results.wait_for(2)
    assert (service.told, service.begun) == ([], [])  # a child process did it


def test_a_service_that_takes_batches_is_not_told(broker: BrokerThread) -> None:
    with (
        connected(broker.port) as client,
        in_thread(Host(transport_to(broker.port), [GatheringLooker(Config())])),
    ):
        results = Listener(client, "results")
        client.send(*map(number, ALL))
        results.wait_for(len(ALL))
