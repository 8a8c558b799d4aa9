"""`parvis go --wait` for recipes in which nothing reports back: the records tell their end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from parvis.cli import main
from parvis.cli.own_collector import own_collector
from parvis.config import Config
from parvis.observe.hop_recorder import HopRecorder
from parvis.service.host import Host
from parvis.transport.embedded import BrokerThread
from parvis_services.dispatch.dispatcher import Dispatcher
from running import broker_environment, hosted, in_thread, transport_to
from sample_services import Multiplier

CHAIN: dict[str, Any] = {
    "1": {"queue": "multiply", "output": 2},
    "2": {"queue": "multiply", "output": 3},
    "3": {"queue": "multiply"},
    "start": [[1, {"number": 2}]],
}


@pytest.fixture
def place(broker: BrokerThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A dispatcher, a service, and a collector that keeps records; nothing waits for long to be stuck."""
    for name in [name for name in os.environ if name.startswith(("PARVIS_STOMP", "ZOCALO_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "parvis.yaml").write_text(
        "version: 1\n"
        "patience:\n  plugin: storage\n  parvis.records.stuck_after: 1\n"
        "environments:\n  default:\n    plugins: [patience]\n"
    )
    monkeypatch.setenv("ZOCALO_CONFIG", str(tmp_path / "parvis.yaml"))
    monkeypatch.setenv("PARVIS_RECORDS_DIRECTORY", str(tmp_path / "records"))
    monkeypatch.setenv("PARVIS_RECORDS_HOPS", "true")
    for name, value in broker_environment(broker.port).items():
        if name.startswith("PARVIS_"):
            monkeypatch.setenv(name, value)
    config = Config.load()
    dispatcher = Host(transport_to(broker.port), [Dispatcher(config)])
    with (
        own_collector(config),
        in_thread(dispatcher),
        hosted(broker.port, Multiplier, observers=[HopRecorder()]),
    ):
        yield tmp_path


def go(place: Path, recipe: dict[str, Any], *more: str) -> Result:
    file = place / "recipe.json"
    file.write_text(json.dumps(recipe))
    return CliRunner().invoke(main, ["go", "-f", str(file), "--no-dcid", "--wait=40", *more])


def test_the_end_of_a_recipe_in_which_nothing_reports_back(place: Path):
    result = go(place, CHAIN)
    assert result.exit_code == 0, result.output
    assert "Finished: 4 messages handled" in result.stdout
    result = go(place, CHAIN, "--json")
    end = json.loads(result.stdout.splitlines()[-1])
    assert end == {"event": "end", "success": True, "reason": None, "images": 0, "state": "finished"}


def test_from_a_machine_without_records(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PARVIS_RECORDS_DIRECTORY")
    monkeypatch.setenv("PARVIS_STATE_DIRECTORY", str(place / "elsewhere"))
    result = go(place, CHAIN)
    assert result.exit_code == 0, result.output
    assert "Finished: 4 messages handled" in result.stdout


def test_dead_letters_fail_it(place: Path):
    result = go(place, {**CHAIN, "start": [[1, {"number": 13}]]})
    assert result.exit_code == 1
    assert "13 is no good" in result.stderr


def test_what_nobody_takes_is_not_waited_for(place: Path):
    recipe = {**CHAIN, "3": {"queue": "multiply", "output": 4}, "4": {"queue": "nobody.listens"}}
    result = go(place, recipe, "--json")
    end = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert (end["success"], end["state"]) == (False, "unknown")
    assert "nobody.listens" in end["reason"]


def test_a_recipe_that_does_not_end_in_time(place: Path):
    waiting = {**CHAIN, "3": {"queue": "multiply", "transport-delay": 30}}
    result = go(place, waiting, "--wait=3")
    assert result.exit_code == 1
    assert "No end within 3 s. Waiting until" in result.stderr
