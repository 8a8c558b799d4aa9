"""Figures of queues and looks into them, on all brokers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from parvis.cli import main
from parvis.config import Config, JmxSettings, RabbitMQAPISettings, StompSettings
from parvis.observe.queue_figures import (
    BODY_LIMIT,
    HEADER_LIMIT,
    NoFigures,
    NoPeek,
    QueueFigures,
    QueueSource,
    open_queue_source,
)
from parvis.transport.base import Disconnected, Send
from parvis.transport.embedded import BrokerThread
from queue_worlds import TellingWorld, World, make_queue, management_url, rabbitmq_config
from real.activemq.server import ActiveMQ
from real.rabbitmq.vhost import VirtualHost
from running import NAMESPACE, Listener
from waiting import wait_until

ACTIVEMQ = pytest.mark.real("activemq")
RABBITMQ = pytest.mark.real("rabbitmq")


@pytest.fixture
def source(world: World) -> Iterator[QueueSource]:
    with closing(open_queue_source(world.config)) as opened:
        yield opened


def queue_named(source: QueueSource, absolute: str) -> QueueFigures | None:
    return next((one for one in source.figures() if (one.kind, one.absolute) == ("queue", absolute)), None)


def test_figures_are_the_brokers_own(world: TellingWorld, source: QueueSource) -> None:
    """10 messages sent, 4 acknowledged, 3 handed out."""
    make_queue(world, "work")
    world.transport.send(*(Send("work", f"{number}".encode()) for number in range(10)))
    listener = Listener(world.transport)
    world.transport.subscribe("work", listener.messages.append, prefetch=3)
    for first in (0, 2):
        listener.wait_for(first + 2)
        world.transport.commit(listener.messages[first : first + 2], ())
    listener.wait_for(7)
    absolute = f"{world.prefix}work"

    def told() -> tuple[int | None, ...]:
        one = queue_named(source, absolute)
        return (one.held, one.in_flight, one.enqueued, one.dequeued, one.clients) if one else ()

    wait_until(lambda: told() == (6, 3, 10, 4, 1), 20, "the figures of what was sent and taken")
    wait_until(lambda: told() == world.own(absolute), 20, "the figures that the broker itself tells")
    one = queue_named(source, absolute)
    assert one is not None
    assert (one.name, one.dead_letters) == ("work", False)
    facts = source.broker_facts()
    assert (facts.product, bool(facts.version)) == (source.product, True)
    assert facts.queues is not None
    assert facts.queues >= 1


def test_topics_and_dead_letters_are_told_apart(world: World, source: QueueSource) -> None:
    world.transport.subscribe_broadcast("news", lambda _: None)
    world.transport.send(Send("news", b"read all about it", kind="topic"))
    dead = f"{world.dead}{world.prefix}work"
    make_queue(world, "work")
    world.transport.send(Send(dead, b"late", absolute=True))

    def found() -> dict[tuple[str, str], QueueFigures]:
        return {(one.kind, one.absolute): one for one in source.figures()}

    topic = ("topic", f"{world.prefix}news")
    wait_until(lambda: topic in found() and (found()[topic].enqueued or 0) >= 1, 20, "the topic")
    assert found()[topic].clients == 1
    wait_until(lambda: ("queue", dead) in found() and found()[("queue", dead)].held == 1, 20, "the dead one")
    assert found()[("queue", dead)].dead_letters
    assert not [one for one in found().values() if "Advisory" in one.absolute]


def test_looking_leaves_all_where_it_is(stomp_world: World) -> None:
    world = stomp_world
    world.transport.send(*(Send("work", f"{number}".encode(), {"n": str(number)}) for number in range(6)))
    with closing(open_queue_source(world.config)) as source:
        for _ in range(3):
            seen = source.peek(f"{world.prefix}work", 2, 1)
            assert [(one.place, one.body, one.headers["n"]) for one in seen] == [
                (2, b"1", "1"),
                (3, b"2", "2"),
            ]
            assert len(source.peek(f"{world.prefix}work", 100)) == 6
            assert source.peek(f"{world.prefix}work", 100, 6) == []
        oldest = source.oldest(f"{world.prefix}work")
        assert oldest is not None
        assert 0 <= oldest < 60
        with pytest.raises(ValueError, match="1000"):
            source.peek(f"{world.prefix}work", 1001)
    listener = Listener(world.transport, "work")
    taken = listener.wait_for(6)
    assert [one.body for one in taken] == [b"%d" % number for number in range(6)]
    assert not any(one.redelivered for one in taken)


def test_messages_in_flight_are_seen_too(stomp_world: World) -> None:
    stomp_world.transport.send(*(Send("work", b"%d" % number) for number in range(3)))
    listener = Listener(stomp_world.transport)
    stomp_world.transport.subscribe("work", listener.messages.append, prefetch=1)
    listener.wait_for(1)
    with closing(open_queue_source(stomp_world.config)) as source:
        assert [one.body for one in source.peek(f"{stomp_world.prefix}work")] == [b"0", b"1", b"2"]


def test_large_and_hostile_messages_are_clipped(embedded: World) -> None:
    evil = "\x1b]0;title\x07[bold]" * 1500
    embedded.transport.send(Send("work", b"\x1b[2J" * 2_500_000, {"evil": evil}))
    with closing(open_queue_source(embedded.config)) as source:
        (seen,) = source.peek(f"{NAMESPACE}.work")
    assert (len(seen.body), seen.size) == (BODY_LIMIT, 10_000_000)
    assert len(seen.headers["evil"]) == HEADER_LIMIT


def test_a_lost_connection_is_made_again(embedded: World, broker: BrokerThread) -> None:
    embedded.transport.send(Send("work", b"1"))
    with closing(open_queue_source(embedded.config)) as source:
        assert queue_named(source, f"{NAMESPACE}.work")
        broker.disconnect_all()

        def told() -> bool:
            with suppress(Disconnected):
                return queue_named(source, f"{NAMESPACE}.work") is not None
            return False

        wait_until(told, 10, "figures on a new connection")


@ACTIVEMQ
def test_who_may_not_ask_is_told_what_to_enable(activemq_world: World) -> None:
    guest = replace(activemq_world.config.stomp, username="guest", password="guest")
    with pytest.raises(NoFigures, match=r"not authorized.*plugin jmx"):
        open_queue_source(Config(stomp=guest))
    nobody = JmxSettings("127.0.0.1", 1, "api/jolokia", "u", "secret-word")
    with pytest.raises(
        NoFigures, match=r"Jolokia at http://127.0.0.1:1/api/jolokia cannot be reached"
    ) as why:
        open_queue_source(Config(stomp=guest, jmx=nobody))
    assert "secret-word" not in str(why.value)


@ACTIVEMQ
def test_jolokia_adds_what_the_statistics_do_not_tell(jolokia: World, activemq_world: World) -> None:
    config = replace(activemq_world.config, jmx=jolokia.config.jmx)
    with closing(open_queue_source(config)) as source:
        facts = source.broker_facts()
    assert source.origin == "statistics over STOMP"
    assert facts.connections is not None
    assert facts.connections >= 2
    assert facts.heap is not None
    assert 0 < facts.heap < 100


@RABBITMQ
def test_on_rabbitmq_each_look_counts_so_it_is_refused_where_that_kills(vhost: VirtualHost) -> None:
    vhost.api("PUT", "queues", "gone", {"durable": True})
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 2,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "gone",
    }
    vhost.api("PUT", "queues", "limited", {"durable": True, "arguments": arguments})
    vhost.publish("limited", b"mortal", {})
    with closing(open_queue_source(rabbitmq_config(vhost))) as source:
        with pytest.raises(NoPeek, match=r"gives a message up after 2 returns.*--at-a-price"):
            source.peek("limited")
        looks = []
        for _ in range(3):
            looks += source.peek("limited", at_a_price=True)
        assert [one.redelivered for one in looks] == [False, True, True]
        wait_until(lambda: source.peek("gone"), 10, "the message to have died of being looked at")


@RABBITMQ
def test_on_rabbitmq_a_look_marks_and_keeps_the_order(vhost: VirtualHost) -> None:
    vhost.api("PUT", "queues", "classic", {"durable": True})
    for number in range(4):
        vhost.publish(
            "classic", b"%d" % number, {"headers": {"n": number, "deep": [1]}, "timestamp": 1_700_000_000}
        )
    with closing(open_queue_source(rabbitmq_config(vhost))) as source:
        seen = source.peek("classic", 2, 1)
        assert [(one.place, one.body, one.headers["n"]) for one in seen] == [(2, b"1", "1"), (3, b"2", "2")]
        assert seen[0].sent == 1_700_000_000
        assert [(one.body, one.redelivered) for one in source.peek("classic")] == [
            (b"0", True),
            (b"1", True),
            (b"2", True),
            (b"3", False),
        ]


@RABBITMQ
def test_on_rabbitmq_queues_may_have_any_name(vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "\x1b[2Jevil/%2F ?\u202e[red]"
    vhost.api("PUT", "queues", name, {"durable": True})
    vhost.server.api(
        "POST",
        f"exchanges/{vhost.name}/amq.default/publish",
        {"routing_key": name, "properties": {}, "payload": "in there", "payload_encoding": "string"},
    )
    with closing(open_queue_source(rabbitmq_config(vhost))) as source:
        (one,) = source.figures()
        assert one.absolute == name
        assert [seen.body for seen in source.peek(name)] == [b"in there"]
    file = json.dumps(
        {
            "version": 1,
            "broker": {"plugin": "pika", **_login(vhost), **_address(vhost)},
            "api": {"plugin": "rabbitmqapi", **_login(vhost), "base_url": management_url(vhost)},
            "environments": {"live": ["broker", "api"], "default": "live"},
        }
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "zocalo.yml"
        path.write_text(file)
        monkeypatch.setenv("ZOCALO_CONFIG", str(path))
        for words in (["list", "--all"], ["peek", name]):
            result = CliRunner().invoke(main, ["queue", *words, "-t", "PikaTransport"])
            assert result.exit_code == 0, result.output
            assert all(sign.isprintable() or sign == "\n" for sign in result.stdout)
            assert "evil/%2F" in result.stdout


def _login(vhost: VirtualHost) -> dict[str, str]:
    server = vhost.server
    return {"username": server.username, "password": server.password}


def _address(vhost: VirtualHost) -> dict[str, Any]:
    return {"host": vhost.server.host, "port": vhost.server.port, "vhost": vhost.name}


@RABBITMQ
def test_rabbitmq_without_its_management_says_what_to_enable(vhost: VirtualHost) -> None:
    config = replace(rabbitmq_config(vhost), rabbitmqapi=RabbitMQAPISettings("http://127.0.0.1:1", "u", "p"))
    with pytest.raises(NoFigures, match="rabbitmq_management"):
        open_queue_source(config)


@ACTIVEMQ
def test_figures_over_tls(activemq_with_jolokia: tuple[ActiveMQ, int]) -> None:
    broker, _ = activemq_with_jolokia
    settings = StompSettings(
        "localhost",
        broker.tls_port,
        broker.username,
        broker.password,
        "",
        tls=True,
        tls_ca=str(broker.ca_file),
    )
    with closing(open_queue_source(Config(stomp=settings))) as source:
        assert source.product == "ActiveMQ"
        source.figures()
