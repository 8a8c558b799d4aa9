"""Both worlds on RabbitMQ, theirs with their own transport and with ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from real.rabbitmq.vhost import VirtualHost
from running import Listener
from waiting import wait_until
from zocalo_site import Site, node

pytestmark = pytest.mark.real("rabbitmq")
QUEUES = ("multiply", "site.double", "site.fragile", "results", "processing_recipe")
MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(vhost: VirtualHost, tmp_path: Path) -> Iterator[MakeSite]:
    """Makes a site with RabbitMQ; `transport` is the one that the configuration asks for."""
    server = vhost.server
    login = {"username": server.username, "password": server.password}
    with ExitStack() as stack:

        def make(transport: str) -> Site:
            broker = {
                "plugin": "pika",
                "host": server.host,
                "port": server.port,
                "vhost": vhost.name,
                **login,
            }
            site = Site(broker | {"vhost": vhost.name}, vhost.transport(), tmp_path / "site", transport)
            api = {"plugin": "rabbitmqapi", "base_url": f"http://{server.host}:{server.management_port}/api"}
            site.configure(
                management={**api, **login, "vhost": vhost.name},
                environments={
                    "live": ["broker", "by-default", "hello", "places", "management"],
                    "default": "live",
                },
            )
            vhost.make_queues(*QUEUES)  # their transport makes none
            site.open()
            site.transport.unsubscribe(site.transport.subscribe_broadcast("command", lambda _: None))
            stack.callback(site.transport.disconnect)
            return site

        yield make


@pytest.mark.parametrize("transport", ["PikaTransport", "ParvisTransport"])
def test_nodes_of_both_worlds(make_site: MakeSite, transport: str) -> None:
    site = make_site(transport)
    recipe = {
        "1": {"queue": "multiply", "parameters": {"multiply-by": 3}, "output": 2},
        "2": {"queue": "site.double", "output": 3},
        "3": {"queue": "results"},
        "start": [[1, []]],
    }
    results, dead = Listener(site.transport, "results"), Listener(site.transport, "dlq.multiply")
    with (
        site.running("zocalo.service", "-s", "Doubler", ready="Doubler"),
        site.running("zocalo.service", "-s", "Multiplier", ready="Multiplier"),
    ):
        site.start(recipe, {"number": 7})
        body = orjson.loads(results.wait_for(1)[0].body)
        assert body["payload"] == {"number": 42}
        assert body["recipe-path"] == [1, 2]
        site.start(recipe, {"number": 13})
        (letter,) = dead.wait_for(1)
        assert letter.headers["parvis-reason"] == "13 is no good"


def test_theirs_in_our_host(make_site: MakeSite) -> None:
    site = make_site("PikaTransport")
    results, dead = Listener(site.transport, "results"), Listener(site.transport, "dlq.site.fragile")
    refused = Listener(site.transport, "dlq.site.double")
    with (
        site.running("parvis", "service", "-s", "site-services:Doubler", ready="Doubler") as doubler,
        site.running("parvis", "service", "-s", "site-services:Fragile", ready="Fragile"),
    ):
        site.start(node("site.double"), {"number": 4})
        site.start(node("site.double"), "a word")
        site.start(node("site.fragile", **{"retries": 1, "retry-delay": 0.1}), {"raise": True})
        results.wait_for(1)
        assert results.payloads() == [{"number": 8}]
        (letter,) = refused.wait_for(1)
        assert letter.headers["parvis-reason"] == "what came is no number: 'a word'"
        (letter,) = dead.wait_for(1)
        assert letter.headers["parvis-tries"] == "2"
        run = site.run("zocalo.shutdown", "-s", "Doubler")
        assert run.returncode == 0, run.stderr
        assert doubler.end() == 0


def test_dead_letters_are_counted_purged_and_reinjected(make_site: MakeSite) -> None:
    site = make_site("PikaTransport")
    results = Listener(site.transport, "results")
    with site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"):
        dead = Listener(site.transport, "dlq.multiply")
        site.start(node("multiply"), {"number": 13})
        (letter,) = dead.wait_for(1)
        site.transport.unsubscribe(letter.subscription)

        run = site.run("zocalo.dlq_purge", "--wait", "2", "multiply")
        assert run.returncode == 0, run.stderr
        (file,) = (path for path in site.dead.rglob("msg-*") if path.is_file())
        dump = json.loads(file.read_text())
        assert dump["header"]["parvis-reason"] == "13 is no good"
        dump["message"]["payload"] = {"number": 12}
        file.write_text(json.dumps(dump))
        run = site.run("zocalo.dlq_reinject", "-r", str(file))
        assert run.returncode == 0, run.stderr
        results.wait_for(1)
        assert results.payloads() == [{"number": 24}]


def test_dead_letters_are_counted(make_site: MakeSite, vhost: VirtualHost) -> None:
    site = make_site("PikaTransport")
    with site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"):
        dead = Listener(site.transport, "dlq.multiply")
        site.start(node("multiply"), {"number": 13})
        (letter,) = dead.wait_for(1)
        site.transport.unsubscribe(letter.subscription)
    # The broker counts every five seconds.
    wait_until(
        lambda: (
            "DLQ for multiply contains 1 entries" in site.run("zocalo.dlq_check", "-n", vhost.name).stdout
        ),
        60,
        "the dead letter to be counted",
    )
