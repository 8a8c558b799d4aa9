"""Sites at which zocalo and Parvis live beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from parvis.transport.embedded import BrokerThread
from zocalo_site import Site, stomp_site

pytest.importorskip("zocalo")

MakeSite = Callable[..., Site]


@pytest.fixture(scope="session")
def small_broker() -> Iterator[int]:
    """The port of an embedded broker."""
    with BrokerThread() as thread:
        yield thread.port


@pytest.fixture(params=["embedded", pytest.param("activemq", marks=pytest.mark.real("activemq"))])
def make_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeSite]:
    """Makes a site with each broker in turn; `transport` is the one that the configuration asks for."""
    if request.param == "embedded":
        port, login = request.getfixturevalue("small_broker"), ("", "")
    else:
        server = request.getfixturevalue("activemq")
        port, login = server.port, (server.username, server.password)
    with ExitStack() as stack:

        def make(transport: str = "StompTransport") -> Site:
            site = stomp_site(port, tmp_path / "site", login, transport)
            site.open()
            stack.callback(site.transport.disconnect)
            return site

        yield make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """A site as most are: with the STOMP transport of `workflows`."""
    return make_site()


@pytest.fixture
def small_site(small_broker: int, tmp_path: Path) -> Iterator[Site]:
    """A site with an embedded broker, for what has nothing to do with the broker."""
    site = stomp_site(small_broker, tmp_path / "site", ("", ""))
    site.open()
    yield site
    site.transport.disconnect()
