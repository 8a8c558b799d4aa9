"""Brokers, and ways to reach them, for the tests of transports."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from connecting import connecting
from parvis.transport.embedded import BrokerThread, Settings
from parvis.transport.stomp import StompTransport
from tcp_proxy import TcpProxy

pytest.register_assert_rewrite("transport.contract")


@dataclass(frozen=True)
class Broker:
    """Where a broker is, and the log-in."""

    kind: str
    port: int
    username: str
    password: str
    host: str = "127.0.0.1"


Connect = Callable[..., StompTransport]


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[Broker]:
    with BrokerThread(settings=Settings(login="parvis", passcode="parvis-test")) as thread:
        yield Broker("embedded", thread.port, "parvis", "parvis-test")


@pytest.fixture(params=["embedded", pytest.param("activemq", marks=pytest.mark.real("activemq"))])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker in turn."""
    if request.param == "embedded":
        return request.getfixturevalue("embedded_broker")
    server = request.getfixturevalue("activemq")
    return Broker("activemq", server.port, server.username, server.password)


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def connect(broker: Broker, namespace: str) -> Iterator[Connect]:
    """Makes transports that are connected, until the end of the test."""

    def make(port: int | None = None, **options: Any) -> StompTransport:
        return StompTransport(
            options.pop("hosts", [(broker.host, port or broker.port)]),
            options.pop("username", broker.username),
            options.pop("password", broker.password),
            options.pop("namespace", namespace),
            **options,
        )

    with connecting(make) as connect:
        yield connect


@pytest.fixture
def proxy(broker: Broker) -> Iterator[TcpProxy]:
    """A way to the broker that can be cut."""
    with closing(TcpProxy(broker.port)) as proxy:
        yield proxy
