"""Subscriptions whose messages are acknowledged one at a time, in any order."""

from __future__ import annotations

import pytest

from inbox import Inbox
from parvis.transport.base import Send
from transport.conftest import Connect


def test_what_is_left_out_comes_again(connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    transport.send(*(Send("work", str(number).encode()) for number in range(4)))
    subscription = transport.subscribe("work", inbox, prefetch=4, individual=True)
    taken = [inbox.get() for _ in range(4)]
    for number in (3, 1):
        transport.commit([taken[number]], [])
    transport.unsubscribe(subscription)
    later = Inbox()
    connect().subscribe("work", later, prefetch=4)
    assert sorted(later.get().body for _ in range(2)) == [b"0", b"2"]


def test_with_what_is_sent_in_its_place(connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    transport.send(*(Send("work", str(number).encode()) for number in range(30)))
    subscription = transport.subscribe("work", inbox, prefetch=40, individual=True)
    taken = [inbox.get() for _ in range(30)]
    for message in taken[1::2]:
        transport.commit([message], [Send("more", message.body)])
    transport.unsubscribe(subscription)
    left, moved = Inbox(), Inbox()
    other = connect()
    other.subscribe("work", left, prefetch=40)
    other.subscribe("more", moved, prefetch=40)
    assert sorted(int(left.get().body) for _ in range(15)) == list(range(0, 30, 2))
    assert sorted(int(moved.get().body) for _ in range(15)) == list(range(1, 30, 2))
    assert (len(left.messages), len(moved.messages)) == (15, 15)


def test_never_together_with_another(connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    transport.send(Send("work", b"1"), Send("work", b"2"))
    transport.subscribe("work", inbox, prefetch=2, individual=True)
    first, second = inbox.get(), inbox.get()
    with pytest.raises(ValueError, match="on its own"):
        transport.commit([first, second], [])
    transport.commit([second], [])
    with pytest.raises(ValueError, match="only once"):
        transport.commit([second], [])
