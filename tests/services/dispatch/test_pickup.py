"""The service that sends what was stored while the broker was away."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dead_letter_world import World, world_of
from parvis.cli.dropfile import store
from parvis.config import Config, ConfigError, StompSettings
from parvis.service.host import Host
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.dispatch.pickup import Pickup
from running import NAMESPACE, Listener, connected, in_thread
from waiting import wait_until

KINDS = [
    "embedded",
    pytest.param("activemq", marks=pytest.mark.real("activemq")),
    pytest.param("rabbitmq", marks=pytest.mark.real("rabbitmq")),
]
QUEUE = "processing_recipe"


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world_of(request.param, request, tmp_path, monkeypatch) as made:
        yield made


def config(port: int, directory: Path, **storage: object) -> Config:
    quick = {"parvis.pickup.interval": 0.05, "parvis.pickup.settle": 0}
    places = {"zocalo.go.fallback_location": str(directory), **quick, **storage}
    return replace(Config(stomp=StompSettings("127.0.0.1", port, "", "", NAMESPACE)), storage=places)


def store_one(directory: Path, name: str, age: float = 0) -> None:
    store(directory / name, {"zocalo.go.host": "here"}, {"recipes": ["mimas"], "parameters": {"name": name}})
    moment = time.time() - age
    os.utime(directory / name, (moment, moment))


def names(listener: Listener) -> list[str]:
    return [json.loads(message.body)["parameters"]["name"] for message in listener.messages]


def test_what_is_stored_is_sent_and_what_is_broken_set_aside(world: World) -> None:
    listener = Listener(world.transport, QUEUE)
    with world.hosting(Pickup):
        store_one(world.drop, "first")
        listener.wait_for(1)
        (world.drop / "bad").write_text("{")
        wait_until((world.drop / "broken" / "bad.reason").exists, 10, "it to be set aside")
        store_one(world.drop, "second")
        listener.wait_for(2)
        wait_until(lambda: [one.name for one in world.drop.iterdir()] == ["broken"], 10, "an empty directory")
    assert names(listener) == ["first", "second"]


def test_what_may_still_be_written_is_left(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    store_one(tmp_path, "new")
    store_one(tmp_path, "old", age=60)
    listener = Listener(transport, QUEUE)
    settings = config(broker.port, tmp_path, **{"parvis.pickup.settle": 30})
    with in_thread(Host(settings.transport(), [Pickup(settings)])):
        listener.wait_for(1)
    assert (names(listener), [one.name for one in tmp_path.iterdir()]) == (["old"], ["new"])


def test_it_waits_for_the_broker(tmp_path: Path) -> None:
    with BrokerThread() as first:
        settings = config(first.port, tmp_path)
        host = Host(settings.transport(), [Pickup(settings)])
        with in_thread(host):
            with connected(first.port) as transport:
                listener = Listener(transport, QUEUE)
                store_one(tmp_path, "before")
                listener.wait_for(1)
                transport.commit(listener.messages, ())
            first.stop()
            store_one(tmp_path, "meanwhile")
            with BrokerThread(port=first.port), connected(first.port) as transport:
                listener = Listener(transport, QUEUE)
                listener.wait_for(1)
                assert names(listener) == ["meanwhile"]
                wait_until(lambda: not list(tmp_path.iterdir()), 10, "an empty directory")
                host.stop()


@pytest.mark.parametrize("key", ["parvis.pickup.interval", "parvis.pickup.settle"])
@pytest.mark.parametrize("value", ["soon", -1, "nan"])
def test_settings_that_are_no_good(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=key):
        Pickup(config(1, tmp_path, **{key: value}))
