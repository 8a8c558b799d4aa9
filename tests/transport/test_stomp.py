"""The STOMP transport with the brokers it is for."""

from __future__ import annotations

import ssl

import pytest

from inbox import Inbox
from parvis.transport.base import BrokerRefused, Disconnected, Send
from parvis.transport.stomp import StompTransport
from real.activemq.server import ActiveMQ
from real.daemon import free_ports
from transport.conftest import Connect
from transport.contract import TransportContract


class TestStompTransport(TransportContract):
    """The embedded broker, and ActiveMQ where it can be had."""


def test_wrong_password(connect: Connect) -> None:
    with pytest.raises(BrokerRefused, match="refused the log-in") as caught:
        connect(password="sesame-open")
    assert "sesame" not in str(caught.value)


def test_nobody_there(connect: Connect) -> None:
    port = free_ports(1)[0]
    transport = StompTransport([("127.0.0.1", port)], "somebody", "secret", "test")
    with pytest.raises(Disconnected, match=f"127.0.0.1:{port} cannot be reached") as caught:
        transport.connect(0.3)
    assert "secret" not in str(caught.value)
    assert not transport.is_connected


def test_bad_selector_refuses_the_subscription_only(connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    with pytest.raises(BrokerRefused, match="work"):
        transport.subscribe("work", inbox, selector="beamline = = 'i03'")
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"1"))
    assert inbox.get().body == b"1"


def test_wildcards_take_from_several_queues(connect: Connect, namespace: str) -> None:
    transport, inbox = connect(), Inbox()
    transport.send(Send("a.one", b"1"), Send("a.two", b"2"))
    with pytest.raises(BrokerRefused):
        transport.subscribe("a.>", inbox, selector="beamline = = 'i03'")
    transport.subscribe("a.>", inbox, prefetch=10)
    messages = inbox.take(2)
    assert {message.destination: message.body for message in messages} == {"a.one": b"1", "a.two": b"2"}


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "a/b", "x" * 256])
def test_names_that_cannot_be(connect: Connect, name: str) -> None:
    transport = connect()
    with pytest.raises(ValueError, match="cannot name a queue"):
        transport.subscribe(name, Inbox())
    with pytest.raises(ValueError, match="cannot name a queue"):
        transport.subscribe_broadcast(name, Inbox())
    with pytest.raises(ValueError, match="cannot name a queue"):
        Send(name, b"")


def test_mistakes_in_the_arguments() -> None:
    with pytest.raises(ValueError, match="at least one broker"):
        StompTransport([], "u", "p", "test")
    with pytest.raises(ValueError, match="line ends") as caught:
        StompTransport([("localhost", 1)], "u", "p\nq", "test")
    assert "p\nq" not in str(caught.value)
    transport = StompTransport([("localhost", 1)], "u", "p", "test")
    with pytest.raises(ValueError, match="at least 1 message"):
        transport.subscribe("work", Inbox(), prefetch=0)


@pytest.fixture
def guest(activemq: ActiveMQ, namespace: str) -> StompTransport:
    """A transport for somebody who may only use queues named `open.`..."""
    transport = StompTransport([("127.0.0.1", activemq.port)], "guest", "guest", namespace)
    transport.connect(10)
    return transport


@pytest.mark.real("activemq")
def test_refused_message_undoes_the_transaction(guest: StompTransport) -> None:
    inbox, results = Inbox(), Inbox()
    guest.subscribe("open.work", inbox)
    guest.subscribe("open.results", results)
    guest.send(Send("open.work", b"job"))
    job = inbox.get()
    with pytest.raises(BrokerRefused, match="not authorized"):
        guest.commit([job], [Send("open.results", b"never"), Send("closed", b"never")])
    again = inbox.get()
    assert (again.body, again.redelivered, again.message_id) == (b"job", True, job.message_id)
    guest.commit([again], [Send("open.results", b"set aside")], timeout=10)
    assert results.get().body == b"set aside"
    guest.disconnect()


@pytest.mark.real("activemq")
def test_refused_sends_and_subscriptions(guest: StompTransport) -> None:
    with pytest.raises(BrokerRefused, match="not authorized"):
        guest.send(Send("closed", b""))
    with pytest.raises(BrokerRefused, match="not authorized"):
        guest.send(Send("open.work", b"never"), Send("closed", b"never"))
    with pytest.raises(BrokerRefused, match="not authorized"):
        guest.subscribe("closed", Inbox())
    inbox = Inbox()
    guest.subscribe("open.work", inbox)
    guest.send(Send("open.work", b"1"))
    assert inbox.get().body == b"1"
    guest.disconnect()


@pytest.mark.real("activemq")
def test_tls_checks_the_broker(activemq: ActiveMQ, namespace: str) -> None:
    hosts = [("localhost", activemq.tls_port)]
    stranger = StompTransport(hosts, "parvis", "parvis-test", namespace, tls=ssl.create_default_context())
    with pytest.raises(BrokerRefused, match="certificate"):
        stranger.connect(10)
    trusted = ssl.create_default_context(cafile=str(activemq.ca_file))
    transport, inbox = StompTransport(hosts, "parvis", "parvis-test", namespace, tls=trusted), Inbox()
    transport.connect(10)
    transport.subscribe("work", inbox, prefetch=10)
    body = bytes(range(256)) * 16384
    transport.send(*(Send("work", b"%d" % number + body) for number in range(3)))
    messages = inbox.take(3)
    assert [message.body for message in messages] == [b"%d" % number + body for number in range(3)]
    transport.commit(messages, [Send("work", b"end")])
    assert inbox.get().body == b"end"
    transport.disconnect()


@pytest.mark.real("activemq")
def test_without_tls_at_a_port_with(activemq: ActiveMQ, namespace: str) -> None:
    transport = StompTransport([("127.0.0.1", activemq.tls_port)], "parvis", "parvis-test", namespace)
    with pytest.raises((BrokerRefused, Disconnected), match=str(activemq.tls_port)):
        transport.connect(1)
