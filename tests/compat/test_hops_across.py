"""Hops of foreign services in our host, and of ours in theirs."""

from __future__ import annotations

import time
from typing import Any

from parvis.observe.hops import QUEUE, Hop, Started, read_hops
from parvis.observe.storyteller import story_of
from running import Listener
from waiting import wait_until
from zocalo_site import Site

RECIPE: dict[str, Any] = {
    "1": {"queue": "site.double", "output": 2},
    "2": {"queue": "multiply", "output": 3},
    "3": {"queue": "results"},
    "start": [[1, []]],
}
HOPS = {"PARVIS_RECORDS_HOPS": "true"}


class Reports(Listener):
    """Hears reports of hops."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.transport, QUEUE)

    @property
    def hops(self) -> list[Hop]:
        return [hop for message in self.messages for hop in read_hops(message.body).hops]

    def wait_for_hops(self, count: int) -> list[Hop]:
        wait_until(lambda: len(self.hops) >= count, 20, f"{count} hops; there are {len(self.hops)}")
        return sorted(self.hops, key=lambda hop: hop.begun)


def test_theirs_in_our_host(small_site: Site) -> None:
    reports, results = Reports(small_site), Listener(small_site.transport, "results")
    with (
        small_site.running("parvis", "service", "-s", "site-services:doub", ready="Doubler", **HOPS),
        small_site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier", **HOPS),
    ):
        small_site.start(RECIPE, {"number": 5})
        results.wait_for(1)
        small_site.start(RECIPE, "a word")
        hops = reports.wait_for_hops(3)
    done = [hop for hop in hops if hop.result == "done"]
    assert [(hop.node, hop.service, [sent.node for sent in hop.sent]) for hop in done] == [
        (1, "The Doubler", [2]),
        (2, "Multiplier", [3]),
    ]
    (failed,) = [hop for hop in hops if hop.result != "done"]
    assert failed.reason == "what came is no number: 'a word'"
    assert [sent.kind for sent in failed.sent] == ["dead_letter"]
    story = story_of([Started("test-recipe", "x", 1.0, recipe=RECIPE)], hops, time.time(), 300)
    assert (story.nodes[1].given_up, story.nodes[2].outstanding, story.nodes[3].outstanding) == (1, 0, 1)


def test_ours_in_theirs(small_site: Site) -> None:
    reports, results = Reports(small_site), Listener(small_site.transport, "results")
    recipe = {**RECIPE, "1": {"queue": "multiply", "output": 3}}
    with small_site.running("zocalo.service", "-s", "multi", ready="Multiplier", **HOPS):
        small_site.start(recipe, {"number": 5})
        results.wait_for(1)
        small_site.start(recipe, {"number": 13})
        done, rejected = reports.wait_for_hops(2)
    assert [(sent.node, sent.kind) for sent in done.sent] == [(3, "message")]
    assert (rejected.result, rejected.reason) == ("reject", "13 is no good")
