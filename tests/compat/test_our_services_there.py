"""Services of ours, run by `zocalo.service` and by the starter of `workflows`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import orjson
import pytest

from compat.conftest import MakeSite
from parvis.transport.base import Send
from running import Listener
from waiting import wait_until
from zocalo_site import Process, Site, letters, node

RECIPE = {
    "1": {"queue": "site.double", "output": 2},
    "2": {"queue": "multiply", "parameters": {"multiply-by": 5}, "output": {"result": 3, "again": 4}},
    "3": {"queue": "site.double", "output": 4},
    "4": {"queue": "results"},
    "start": [[1, []]],
}
TRANSPORTS = pytest.mark.parametrize("transport", ["StompTransport", "ParvisTransport"])


@TRANSPORTS
def test_one_of_ours_between_two_of_theirs(make_site: MakeSite, transport: str) -> None:
    site = make_site(transport)
    results = Listener(site.transport, "results")
    with (
        site.running("zocalo.service", "-s", "Doubler", ready="Doubler"),
        site.running("zocalo.service", "-s", "multi", "--tag", "blue", ready="Multiplier") as multiplier,
    ):
        site.start(RECIPE, {"number": 3}, kept=True)
        body = orjson.loads(results.wait_for(1)[0].body)
        assert body["payload"] == {"number": 60}
        assert body["recipe-path"] == [1, 2, 3]
        assert body["environment"] == {"ID": "test-recipe", "kept": True, "seen": 6, "doubled": True}
        card = next(card for card in site.cards if card["serviceclass"] == "Multiplier")
        assert (card["service"], card["tag"], "zocalo" in card) == ("Multiplier", "blue", True)
        run = site.run("zocalo.shutdown", "-s", "Multiplier")
        assert run.returncode == 0, run.stderr
        assert multiplier.end() == 0


@TRANSPORTS
def test_failures_end_as_in_our_host(make_site: MakeSite, transport: str) -> None:
    site = make_site(transport)
    results, dead = Listener(site.transport, "results"), letters(site, "multiply")
    once = {"retries": 1, "retry-delay": 0.1}
    with site.running("zocalo.service", "-s", "Multiplier", ready="Multiplier") as multiplier:
        for number in (13, 14, 15, 1):
            site.start(node("multiply", **once), {"number": number})
        site.start(node("multiply"), "no number")
        site.transport.send(Send("multiply", b"\xff not even text"))
        results.wait_for(1)
        told = sorted(letter.headers["parvis-reason"] for letter in dead.wait_for(5))
        assert told[0] == "13 is no good"
        assert told[1] == "14 is not ready"
        assert told[2].startswith("Multiplier takes recipe messages only")
        assert told[3].startswith("ZeroDivisionError: 15 is a surprise")
        queue = f"/queue/{site.namespace}.multiply"
        assert {letter.headers["original-destination"] for letter in dead.messages} == {queue}
        traces = [letter.headers.get("parvis-traceback", "") for letter in dead.messages]
        assert any("in process" in trace for trace in traces)
        assert multiplier.process.poll() is None
        assert "set aside" in multiplier.text
        assert "dead letter: 13 is no good" in multiplier.text


def test_what_kills_is_handled_in_a_child_the_next_time(make_site: MakeSite) -> None:
    site = make_site("ParvisTransport")
    results, dead = Listener(site.transport, "results"), letters(site, "multiply")
    with site.running("zocalo.service", "-s", "Multiplier", "--restart", ready="Multiplier"):
        site.start(node("multiply"), {"number": 666})
        (letter,) = dead.wait_for(1, timeout=60)
        assert "SIGKILL" in letter.headers["parvis-reason"]
        site.start(node("multiply"), {"number": 2})
        results.wait_for(1, timeout=40)


@TRANSPORTS
def test_batches(make_site: MakeSite, transport: str) -> None:
    site = make_site(transport)
    results, dead = Listener(site.transport, "results"), letters(site, "gather")
    with site.running("zocalo.service", "-s", "Gatherer", ready="Gatherer"):
        for number in (1, 2, 3, 4, 5, 6, 7):
            site.start(node("gather"), {"number": number})
        results.wait_for(2)
        gathered = [payload["numbers"] for payload in results.payloads()]
        assert sorted(number for batch in gathered for number in batch) == [1, 2, 3, 4, 5, 6, 7]
        assert max(map(len, gathered)) == 5
        for number in (8, 15, 9):
            site.start(node("gather"), {"number": number})
        (letter,) = dead.wait_for(1)
        assert orjson.loads(letter.body)["payload"] == {"number": 15}


def test_the_starter_of_workflows_alone(site: Site) -> None:
    stomp = site.settings["broker"]
    results = Listener(site.transport, "results")
    starter = Path(site.directory, "starter.py")
    starter.write_text("from workflows.contrib.start_service import ServiceStarter\nServiceStarter().run()\n")
    options = [
        f"--stomp-{name}={stomp[key]}"
        for name, key in (("host", "host"), ("port", "port"), ("prfx", "prefix"))
    ]
    options += [f"--stomp-user={stomp['username']}", f"--stomp-pass={stomp['password']}"]
    command = [sys.executable, str(starter), "-s", "Multiplier", "-t", "ParvisTransport", *options]
    with site.running(*command, ready="Multiplier", ZOCALO_CONFIG="") as running:
        site.start(node("multiply"), {"number": 21})
        results.wait_for(1)
        assert results.payloads() == [{"number": 42}]
        assert _children(running) == 1


def _children(running: Process) -> int:
    import psutil

    return len(psutil.Process(running.pid).children())


def test_a_real_service_of_ours(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site("ParvisTransport")
    file = tmp_path / "lines.jsonl"
    recipe = {"1": {"queue": "jsonlines", "parameters": {"output_filename": str(file)}}, "start": [[1, []]]}
    with site.running("zocalo.service", "-s", "ParvisJSONLines", ready="JSONLines") as lines:
        for number in range(3):
            site.start(recipe, {"number": number})
        wait_until(lambda: file.exists() and file.read_text().count("\n") == 3, 10, "three lines")
        lines.process.send_signal(signal.SIGINT)
        lines.end()
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [0, 1, 2]


def test_each_of_our_services_is_announced_there() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]
    there = set(points["workflows.services"].values())
    assert there == {f"parvis.compat.services:{name}" for name in points["parvis.services"]}
