"""The commands of zocalo and workflows on our messages, queues, dead letters and recipes."""

from __future__ import annotations

import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import orjson
import pytest

from parvis.config import shipped_recipes
from running import Listener
from waiting import wait_until
from zocalo_site import Process, Site

SIMPLE = {
    "1": {"queue": "multiply", "parameters": {"multiply-by": "{factor}"}, "output": 2},
    "2": {"queue": "results"},
    "start": [[1, {"number": 4}]],
}


@contextmanager
def dispatcher(site: Site, world: str) -> Iterator[Process]:
    """Our dispatcher or theirs, each as its own world starts it."""
    command = ("parvis", "service") if world == "ours" else ("zocalo.service",)
    (site.recipes / "simple.json").write_text(json.dumps(SIMPLE))
    with site.running(*command, "-s", "Dispatcher", ready="Dispatcher") as running:
        yield running


@pytest.mark.parametrize("world", ["ours", "theirs"])
def test_either_go_starts_jobs_on_either_dispatcher(site: Site, world: str) -> None:
    results = Listener(site.transport, "results")
    with dispatcher(site, world), site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"):
        for number, command in enumerate((["parvis", "go"], ["zocalo.go"]), 1):
            run = site.run(
                *command, "-r", "simple", "-s", f"factor={number}", "-s", f"guid=job-{number}", "-n"
            )
            assert run.returncode == 0, run.stderr
        bodies = [orjson.loads(message.body) for message in results.wait_for(2)]
    found = {body["environment"]["ID"]: body["payload"]["number"] for body in bodies}
    assert found == {"job-1": 4, "job-2": 8}
    logbook = list((site.directory / "logbook").rglob("*-1"))
    assert len(logbook) == 1
    assert "zocalo.go.user" in logbook[0].read_text()


def test_pickup_sends_the_drop_files_of_both(site: Site) -> None:
    results = Listener(site.transport, "results")
    for number, command in enumerate((["parvis", "go"], ["zocalo.go"]), 1):
        run = site.run(*command, "-e", "cut-off", "-r", "simple", "-s", f"factor={number}", "-n")
        assert run.returncode == 0, run.stderr
    assert len(list(site.drop.iterdir())) == 2
    with dispatcher(site, "ours"), site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"):
        run = site.run("zocalo.pickup", "-w", "0", "-d", "0")
        assert run.returncode == 0, run.stderr
        results.wait_for(2)
    assert {payload["number"] for payload in results.payloads()} == {4, 8}
    assert list(site.drop.iterdir()) == []


def failing(number: int) -> dict[str, Any]:
    """A recipe for a number that fails twice, quickly."""
    node = {"queue": "multiply", "retries": 1, "retry-delay": 0.1, "output": 2}
    return {"1": node, "2": {"queue": "results"}, "start": [[1, {"number": number}]]}


def test_dead_letters_are_purged_reinjected_and_handled_anew(site: Site) -> None:
    with site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"):
        dead = Listener(site.transport, f"DLQ.{site.namespace}.multiply")
        site.start(failing(15), {"number": 15})
        (letter,) = dead.wait_for(1)
        assert letter.headers["parvis-tries"] == "2"
        site.transport.unsubscribe(letter.subscription)

        run = site.run("zocalo.dlq_purge", "--wait", "2", f"{site.namespace}.multiply")
        assert run.returncode == 0, run.stderr
        (file,) = (path for path in site.dead.rglob("msg-*") if path.is_file())
        dump = json.loads(file.read_text())
        assert dump["message"]["payload"] == {"number": 15}
        assert dump["header"]["parvis-reason"].startswith("ZeroDivisionError")

        dead = Listener(site.transport, f"DLQ.{site.namespace}.multiply")
        run = site.run("zocalo.dlq_reinject", "-r", str(file))
        assert run.returncode == 0, run.stderr
        assert not file.exists()
        (letter,) = dead.wait_for(1)
        assert letter.headers["parvis-tries"] == "2", "counted anew"
        assert letter.headers["dlq-reinjected"] == "True"
        site.transport.commit([letter], ())

        dump["message"]["payload"] = {"number": 16}  # mended by hand
        file.write_text(json.dumps(dump))
        results = Listener(site.transport, "results")
        run = site.run("zocalo.dlq_reinject", str(file))
        assert run.returncode == 0, run.stderr
        results.wait_for(1)
        assert results.payloads() == [{"number": 32}]


def test_queues_are_drained(site: Site) -> None:
    results = Listener(site.transport, "results")
    for number in (1, 2):
        site.start({**SIMPLE, "1": {"queue": "multiply", "output": 2}}, {"number": number})
    run = site.run("zocalo.queue_drain", "multiply", "elsewhere", "--wait", "0", "--stop", "1")
    assert run.returncode == 0, run.stderr
    assert "2 message(s) drained" in run.stdout
    run = site.run("zocalo.queue_drain", "elsewhere", ".", "--wait", "0", "--stop", "1")
    assert "2 message(s) drained" in run.stdout
    with site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"):
        results.wait_for(2)
    assert {payload["number"] for payload in results.payloads()} == {2, 4}


@pytest.mark.parametrize("transport", ["StompTransport", "ParvisTransport"])
@pytest.mark.parametrize("fail", [False, True])
def test_wrap_tells_our_services_how_the_job_went(
    site: Site, tmp_path: Path, transport: str, fail: bool
) -> None:
    ways = ("starting", "updates", "success", "failure", "completed")
    nodes: dict[str, Any] = {str(number): {"queue": f"told.{way}"} for number, way in enumerate(ways, 2)}
    outputs = {way: number for number, way in enumerate(ways, 2)}
    recipe = {"1": {"queue": "cluster", "output": outputs}, **nodes, "start": [[1, []]]}
    told = Listener(site.transport, *(f"told.{way}" for way in ways))
    submitted = Listener(site.transport, "cluster")
    site.start(recipe, {"fail": fail})
    wrapper = tmp_path / "recipewrapper"
    wrapper.write_bytes(submitted.wait_for(1)[0].body)
    run = site.run("zocalo.wrap", "-t", transport, "--wrap", "quick", "--recipewrapper", str(wrapper))
    assert run.returncode == 0, run.stderr
    expected = {"told.starting", "told.updates", "told.completed"}
    expected |= {"told.failure" if fail else "told.success"}
    assert {message.destination for message in told.wait_for(4)} == expected
    wait_until(lambda: any(card.get("task") == "quick" for card in site.cards), 10, "its status")


def test_their_validation_accepts_our_recipes(small_site: Site) -> None:
    recipes = [str(file) for file in sorted(shipped_recipes().glob("*.json"))]
    assert recipes
    run = small_site.run("workflows.validate_recipe", *recipes)
    assert run.returncode == 0, run.stdout + run.stderr


_MONITOR = """
import zocalo.configuration
from workflows.contrib.status_monitor import Monitor
zocalo.configuration.from_file().activate()
Monitor("{transport}").run()
"""


@pytest.mark.parametrize("transport", ["StompTransport", "ParvisTransport"])
def test_our_cards_show_in_their_monitor(site: Site, transport: str) -> None:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    monitor = subprocess.Popen(
        [sys.executable, "-c", _MONITOR.format(transport=transport)],
        env=site.environment(TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    shown = b""
    with site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier") as multiplier:
        end = time.monotonic() + 20
        wanted = [b"Multiplier", b"idle", f".{multiplier.pid}".encode()]
        while not all(word in shown for word in wanted) and time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                shown += os.read(ours, 65_536)
    monitor.kill()
    monitor.wait()
    os.close(ours)
    os.close(theirs)
    assert [word for word in wanted if word not in shown] == [], shown[-2000:]


def test_our_card_is_what_controllers_read(site: Site) -> None:
    with site.running("parvis", "service", "-s", "Multiplier", "--tag", "blue", ready="Multiplier"):
        card = next(card for card in site.cards if card.get("serviceclass") == "Multiplier")
    assert [int(part) for part in card["workflows"].split(".")] >= [3, 3]
    assert (card["service"], card["tag"]) == ("Multiplier", "blue")
    assert isinstance(card["status"], int)
    assert all(key.lstrip("-").isdecimal() for key in card["utilization"])


def test_their_cards_show_in_our_monitor(site: Site) -> None:
    with (
        site.running("zocalo.service", "-s", "Doubler", "--tag", "green", ready="Doubler"),
        site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"),
    ):
        run = site.run("parvis", "monitor", "--json")
    cards = {card["service_class"]: card for card in json.loads(run.stdout)["services"]}
    assert (cards["Doubler"]["state"], cards["Doubler"]["tag"]) == ("idle", "green")
    assert cards["Doubler"]["version"].startswith("zocalo ")
    assert cards["Multiplier"]["version"].startswith("parvis ")
