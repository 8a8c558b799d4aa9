"""What recipes are told that are attached to the images of a detector."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from detector_writer import Detector, Recipe, Site, attach, queue_of
from parvis.service import flow_ledger
from parvis.service.host import Host
from parvis.transport.base import Message
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.acquire.ceph_writer import CephWriter
from running import Listener, in_thread
from waiting import wait_until


@pytest.fixture
def detector() -> Iterator[Detector]:
    made = Detector()
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, broker: BrokerThread, detector: Detector) -> Site:
    return Site(tmp_path, broker.port, detector.address)


def test_a_recipe_is_told_of_each_image_at_the_outputs_that_it_wants(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    outputs = ["first", "last", "4", "every-3", "select-3", "any", "timeout"]
    with site.writer():
        recipe = Recipe(transport, 17, *outputs)
        detector.start(17, 10)
        detector.images(range(1, 11))
        detector.end()
        over = recipe.end()
    assert sorted(recipe.numbers()) == list(range(1, 11))
    assert recipe.numbers("first") == [1]
    assert recipe.numbers("last") == [10]
    assert recipe.numbers("4") == [4]
    assert sorted(recipe.numbers("every-3")) == [1, 4, 7, 10]
    assert sorted(recipe.numbers("select-3")) == [1, 6, 10]
    assert recipe.told("any") == [{"images-expected": 10, "images-seen": 10}]
    assert recipe.told("timeout") == []
    assert over == {
        "images-expected": 10,
        "images-seen": 10,
        "success": True,
        "manifest": "dir://memory/images/17/1/manifest",
        "missing": [],
        "dropped": [],
        "told": [[1, 10]],
    }
    (first,) = recipe.told("first")
    stored = site.store.stat("images", "17/1/000001")
    assert first["file"] == "dir://memory/images/17/1/000001"
    assert (first["size"], first["etag"]) == (stored.size, stored.etag)
    assert first["file-received-at"] <= first["file-seen-at"]


def test_images_are_told_of_behind_header_and_mask_and_the_end_behind_the_manifest(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    place = site.place(17)
    series = site.objects / "images" / place.frames_prefix
    in_the_way = [series / "mask", series / "manifest"]
    for path in in_the_way:
        path.mkdir(parents=True)
    with site.writer() as writer:
        recipe = Recipe(transport, 17)
        detector.start(17, 3, mask=True)
        detector.images([1, 2, 3])
        detector.end()
        wait_until(lambda: len(site.stored(place)) == 3, 20, "the images")
        wait_until(lambda: writer.doing() == "error", 20, "the mask to be in trouble")
        assert recipe.told() == []
        in_the_way[0].rmdir()
        recipe.wait_for(3)
        assert site.store.stat(place.bucket, place.mask).modified <= recipe.first_told_at() + 0.001
        wait_until(lambda: writer.doing() == "error", 20, "the manifest to be in trouble")
        assert recipe.told("finally") == []
        in_the_way[1].rmdir()
        assert recipe.end()["success"] is True
    assert site.manifest(place).stored == 3


def test_recipes_before_during_and_after_a_series(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    with site.writer():
        before = Recipe(transport, 17, name="before")
        detector.start(17, 60)
        detector.images([1, 2, 3])
        before.wait_for(3)
        during = Recipe(transport, 17, name="during")
        during.wait_for(3)
        detector.images(range(4, 61))
        detector.end()
        before.end()
        during.end()
        after = Recipe(transport, 17, name="after", **{"burst-limit": 1})
        assert after.end(timeout=5)["success"] is True
    with site.writer():
        long_after = Recipe(transport, 17, name="long-after")
        assert long_after.end()["success"] is True
    for recipe in (before, during, after, long_after):
        assert sorted(recipe.numbers()) == list(range(1, 61))


def test_recipes_of_other_data_collections_do_not_hold_one_up(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    with site.writer():
        for number in range(20):
            Recipe(transport, 1000 + number, name=f"idle-{number}")
        recipe = Recipe(transport, 17)
        detector.start(17, 30)
        detector.images(range(1, 31))
        detector.end()
        recipe.end(timeout=10)
    assert sorted(recipe.numbers()) == list(range(1, 31))


def test_a_data_collection_of_which_no_series_comes(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    with site.writer():
        recipe = Recipe(transport, 17, "any", "timeout", **{"timeout-first": 0.3, "timeout": 600})
        over = recipe.end()
    nothing = {"images-expected": None, "images-seen": 0, "success": False}
    assert recipe.told("timeout") == [{**nothing, "dcid": 17}]
    assert over == {**nothing, "manifest": None, "missing": [], "dropped": [], "told": []}
    assert recipe.told("any") == []


def test_a_series_that_gets_stuck(site: Site, detector: Detector, transport: StompTransport) -> None:
    with site.writer():
        recipe = Recipe(transport, 17, "any", "timeout", timeout=0.5)
        detector.start(17, 10)
        detector.images([1, 2, 4])
        over = recipe.end()
    assert recipe.told("timeout") == [{"images-expected": 10, "images-seen": 3, "success": False, "dcid": 17}]
    assert (over["success"], over["images-seen"]) == (False, 3)
    assert (over["missing"], over["told"]) == ([[3, 3], [5, 10]], [[1, 2], [4, 4]])


def test_gaps_are_told_at_the_end(
    tmp_path: Path, broker: BrokerThread, detector: Detector, transport: StompTransport
) -> None:
    site = Site(tmp_path, broker.port, detector.address, series_timeout=0.6)
    with site.writer():
        recipe = Recipe(transport, 17, "timeout")
        detector.start(17, 6)
        detector.images([1, 2, 4, 5])
        over = recipe.end()
    assert (over["success"], over["images-seen"]) == (False, 4)
    assert (over["missing"], over["dropped"]) == ([[3, 3], [6, 6]], [])
    assert recipe.told("timeout") == []


def test_a_series_of_which_nobody_knows_how_long_it_is(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    with site.writer():
        recipe = Recipe(transport, 17, "first", "last", "select-2", "every-2")
        detector.start(17, None)
        detector.images(range(1, 8))
        detector.end()
        over = recipe.end()
    assert (over["success"], over["images-expected"], over["images-seen"]) == (True, None, 7)
    assert (recipe.numbers("first"), recipe.numbers("last")) == ([1], [7])
    assert sorted(recipe.numbers("select-2")) == [1, 7]
    assert sorted(recipe.numbers("every-2")) == [1, 3, 5, 7]


def test_what_nobody_takes_is_held_back(
    tmp_path: Path,
    broker: BrokerThread,
    detector: Detector,
    transport: StompTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow_ledger, "_GRACE", 1.0)
    site = Site(tmp_path, broker.port, detector.address)
    limited = replace(site.config, storage={**site.storage, "parvis.flow.fan_out": 5})
    with in_thread(Host(limited.transport(), [CephWriter(limited)])):
        recipe = Recipe(transport, 17, timeout=0.2)
        detector.start(17, 20)
        detector.images(range(1, 21))
        detector.end()
        site.manifest(site.place(17))
        recipe.wait_for(5)
        assert recipe.told("finally") == []
        over = recipe.end()  # once it is known that nobody says what they have taken
    assert (over["success"], sorted(recipe.numbers())) == (True, list(range(1, 21)))


NO_GOOD: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = [
    ({}, None, "dcid"),
    ({"dcid": "somewhere"}, None, "dcid"),
    ({"dcid": 18}, {"series": "{name}"}, "is not of data collection 18"),
    ({"dcid": 17}, {"series": "{name}", "cursor": 3}, "no line"),
    ({"dcid": 17}, {"series": "{name}", "cursor": -1}, "cursor"),
]


def test_messages_that_are_no_good(site: Site, detector: Detector, transport: StompTransport) -> None:
    dead = Listener(transport, "DLQ.test.cephwriter")
    with site.writer():
        detector.start(17, 1)
        detector.image(1)
        detector.end()
        site.manifest(site.place(17))
        (journal,) = site.journals.glob("*.journal")
        for count, (parameters, status, reason) in enumerate(NO_GOOD, 1):
            send = attach(17, ["every"])
            body = orjson.loads(send.body)
            body["recipe"]["1"]["parameters"] = parameters
            if status is not None:
                named = {key: journal.stem if value == "{name}" else value for key, value in status.items()}
                body["payload"] = {"cephwriter-status": {"start-time": 0, **named}}
            transport.send(replace(send, body=orjson.dumps(body)))
            dead.wait_for(count)
            assert reason in " ".join(map(str, dead.messages[-1].headers.values()))


def test_paths_in_a_message_lead_nowhere(
    site: Site, detector: Detector, transport: StompTransport, tmp_path: Path
) -> None:
    secret = tmp_path / "17.1.journal"
    secret.write_text('["series",{},1]\n')
    with site.writer():
        parameters: dict[str, Any] = {"timeout-first": 0.1}
        send = attach(17, ["finally"], "recipe-1", **parameters)
        body = orjson.loads(send.body)
        status = {"start-time": 0, "series": f"../../../{secret.stem}"}
        body["payload"] = {"cephwriter-status": status}
        heard = Listener(transport, queue_of("recipe-1", "finally"))
        transport.send(replace(send, body=orjson.dumps(body)))
        heard.wait_for(1)
    assert heard.payloads()[0]["manifest"] is None


def test_status_card_and_metrics_say_how_it_gets_on(
    site: Site, detector: Detector, transport: StompTransport
) -> None:
    cards: list[dict[str, Any]] = []

    def take(message: Message) -> None:
        cards.append(orjson.loads(message.body))

    transport.subscribe_broadcast("transient.status", take)
    config = replace(site.config, storage={**site.storage, "parvis.metrics.port": 0})
    with in_thread(Host(config.transport(), [CephWriter(config)])):
        recipe = Recipe(transport, 17)
        detector.start(17, 3)
        detector.images([1, 2, 3])
        detector.end()
        recipe.end()
        wait_until(
            lambda: any(card.get("parvis-figures", {}).get("frames_told") == 3 for card in cards),
            20,
            "a card",
        )
        port = next(card["metrics"] for card in cards if card.get("metrics"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
    (card, *_) = [card for card in cards if card.get("parvis-figures", {}).get("frames_told") == 3]
    assert card["parvis-figures"]["frames_stored"] == 3
    assert card["parvis-doing"] in {"receiving", "idle"}
    assert 'parvis_frames_stored_total{service="CephWriter"} 3.0' in metrics
    assert 'parvis_held_bytes{service="CephWriter"} 0.0' in metrics
