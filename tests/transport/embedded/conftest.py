"""A broker, and raw clients for it, that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from parvis.transport.embedded import BrokerThread
from raw_stomp import Connect, RawClient


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    with BrokerThread() as running:
        yield running


@pytest.fixture
def connect(broker: BrokerThread) -> Iterator[Connect]:
    with ExitStack() as clients:

        def make(version: str = "1.2", **options: Any) -> RawClient:
            return clients.enter_context(RawClient(broker.port, version, **options))

        yield make
