"""Recipes whose nodes are services of both worlds."""

from __future__ import annotations

import orjson

from running import Listener
from zocalo_site import Site

RECIPE = {
    "1": {"queue": "multiply", "parameters": {"multiply-by": 3}, "output": 2},
    "2": {"queue": "site.double", "output": 3},
    "3": {"queue": "multiply", "parameters": {"multiply-by": 5}, "output": 4},
    "4": {"queue": "results"},
    "start": [[1, []]],
}


def test_theirs_between_two_of_ours(site: Site) -> None:
    results = Listener(site.transport, "results")
    with (
        site.running("zocalo.service", "-s", "Doubler", ready="Doubler"),
        site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"),
    ):
        site.start(RECIPE, {"number": 7}, kept="this")
        (message,) = results.wait_for(1)
    body = orjson.loads(message.body)
    assert body["payload"] == {"number": 7 * 3 * 2 * 5}
    assert body["recipe-path"] == [1, 2, 3]
    assert body["environment"] == {"ID": "test-recipe", "kept": "this", "seen": 42, "doubled": True}
