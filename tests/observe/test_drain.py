"""Messages moved from one queue to another."""

from __future__ import annotations

import threading
from contextlib import closing
from queue import SimpleQueue
from typing import Any

import pytest

from parvis.observe.drain import BY_HEADER, DiedAgain, drain, place
from parvis.observe.queue_figures import open_queue_source
from parvis.service.identity import IDENTITY
from parvis.transport.base import Message, Send
from parvis.transport.embedded import BrokerThread
from queue_worlds import World, make_queue
from running import NAMESPACE, Listener, recipe_message


def test_draining_moves_all_and_keeps_their_headers(broker_world: World) -> None:
    transport = broker_world.transport
    make_queue(broker_world, "work")
    make_queue(broker_world, "elsewhere")
    transport.send(*(Send("work", b"%d" % n, {"n": str(n)}, priority=n) for n in range(5)))
    moved: list[int] = []
    here, there = place("work", transport.namespace), place("elsewhere", transport.namespace)
    count = drain(transport, here, there, told=lambda one: moved.append(one.number), wait=0, stop=0.4)
    assert (count, moved) == (5, [1, 2, 3, 4, 5])
    listener = Listener(transport, "elsewhere")
    taken = listener.wait_for(5)
    assert sorted((one.body, one.headers["n"], one.headers["priority"]) for one in taken) == [
        (b"%d" % n, str(n), str(n)) for n in range(5)
    ]


def test_draining_dead_letters_brings_them_back_to_be_tried_anew(broker_world: World) -> None:
    transport = broker_world.transport
    make_queue(broker_world, "work")
    listener = Listener(transport, "work")
    transport.send(recipe_message("work", {"number": 1}))
    (message,) = listener.wait_for(1)
    transport.commit([message], [transport.dead_letter(message, {"parvis-reason": "it was cold"})])
    dead = place(f"{broker_world.dead}{broker_world.prefix}work", transport.namespace)
    assert drain(transport, dead, None, told=lambda _: None, wait=0, stop=0.4) == 1
    again = listener.wait_for(2)[1]
    assert again.body == message.body
    assert again.headers["dlq-reinjected"] == "True"
    assert again.headers["note"] == "kept"
    assert BY_HEADER == "."


def test_what_dies_again_does_not_go_round_and_round(embedded: World) -> None:
    transport = embedded.transport
    dead = f"DLQ.{NAMESPACE}.work"
    for n in range(3):
        transport.send(Send(dead, b"%d" % n, {IDENTITY: f"id-{n}"}, absolute=True))

    arrived: SimpleQueue[Message | None] = SimpleQueue()

    def die_again() -> None:
        while (message := arrived.get()) is not None:
            transport.commit([message], [transport.dead_letter(message, {})])

    transport.subscribe("work", arrived.put)
    service = threading.Thread(target=die_again)
    service.start()
    moved: list[bytes] = []
    with pytest.raises(DiedAgain, match="was brought back and died again"):
        drain(
            transport,
            place(dead, transport.namespace),
            None,
            told=lambda one: moved.append(one.message.body),
            wait=0.05,
            stop=5,
        )
    arrived.put(None)
    service.join()
    assert moved == [b"0", b"1", b"2"]
    with closing(open_queue_source(embedded.config)) as source:
        assert len(source.peek(dead, 100)) == 3


def test_draining_loses_and_doubles_nothing_when_the_connection_is_cut(
    embedded: World, broker: BrokerThread
) -> None:
    embedded.transport.send(*(Send("work", b"%d" % n) for n in range(40)))

    def told(moved: Any) -> None:
        if moved.number % 10 == 5:
            broker.disconnect_all()

    here, there = place("work", NAMESPACE), place("elsewhere", NAMESPACE)
    drain(embedded.transport, here, there, told=told, wait=0, stop=1.5)
    sizes = {one.name: one.size for one in broker.statistics()}
    assert sizes[f"/queue/{NAMESPACE}.work"] == 0
    assert sizes[f"/queue/{NAMESPACE}.elsewhere"] == 40
    with closing(open_queue_source(embedded.config)) as source:
        found = source.peek(f"{NAMESPACE}.elsewhere", 100)
    assert sorted(int(one.body) for one in found) == list(range(40))
