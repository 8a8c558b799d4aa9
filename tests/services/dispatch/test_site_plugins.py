"""What a site's own package may add to the dispatcher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from parvis.config import Config
from parvis.service.testing import Run, run
from parvis_services.dispatch import plugins
from parvis_services.dispatch.dispatcher import Dispatcher

MODULE = """
def add_weather(message, parameters):
    parameters["weather"] = "fine"
    return message, parameters

def forgetful(message, parameters):
    return None

def in_the_morning(message, parameters):
    parameters["spoiled"] = True
    return parameters.get("time") == "morning"
"""
RECIPE = {
    "1": {"queue": "q", "parameters": {"weather": "{weather}", "spoiled": "{spoiled}"}},
    "start": [[1, []]],
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of installed packages."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parvis_test_site.py").write_text(MODULE)
    yield tmp_path
    plugins.filters.cache_clear()
    plugins.readiness_hooks.cache_clear()


def install(site: Path, group: str, name: str) -> None:
    information = site / "parvis_test_site-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: parvis-test-site\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\nsite = parvis_test_site:{name}\n")
    plugins.filters.cache_clear()
    plugins.readiness_hooks.cache_clear()


def dispatch(**parameters: Any) -> Run:
    return run(Dispatcher, {"custom_recipe": RECIPE, "parameters": parameters}, config=Config())


def test_a_filter_adds_parameters(site: Path) -> None:
    install(site, "zocalo.services.dispatcher.filters", "add_weather")
    done = dispatch()
    assert done.outcome.result == "done", done.outcome
    node = orjson.loads(done.outcome.sends[0].body)["recipe"]["1"]
    assert node["parameters"] == {"weather": "fine", "spoiled": "{spoiled}"}


def test_a_filter_that_returns_nothing_is_named_in_the_refusal(site: Path) -> None:
    install(site, "zocalo.services.dispatcher.filters", "forgetful")
    done = dispatch()
    assert done.outcome.result == "reject"
    assert "'site'" in done.outcome.reason


def test_a_readiness_hook_makes_a_recipe_wait(site: Path) -> None:
    install(site, "zocalo.services.dispatcher.ready_for_processing", "in_the_morning")
    (checkpoint,) = dispatch(time="evening").checkpoints
    assert checkpoint.delay == 2
    assert "spoiled" not in checkpoint.payload["parameters"]
    assert dispatch(time="morning").outcome.result == "done"
