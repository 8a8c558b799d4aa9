"""Consumers of different priority."""

from __future__ import annotations

from inbox import Inbox
from parvis.transport.base import Send
from transport.conftest import Connect


def test_consumer_of_higher_priority_gets_messages_first(connect: Connect) -> None:
    transport, often, seldom = connect(), Inbox(), Inbox()
    transport.subscribe("work", seldom, prefetch=10)
    transport.subscribe("work", often, prefetch=2, priority=5)
    transport.send(*(Send("work", str(number).encode()) for number in range(4)))
    assert [often.get().body for _ in range(2)] == [b"0", b"1"]
    assert [seldom.get().body for _ in range(2)] == [b"2", b"3"]
