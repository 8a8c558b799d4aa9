"""The object watcher: every mode, every output and payload, and what it asks of the store."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from parvis.config import Config
from parvis.service.flow_ledger import Ledger
from parvis.service.flow_limits import Limits
from parvis.service.flow_report import Report, Served
from parvis.service.testing import Run, run
from parvis_services.number_ranges import Range
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.manifest import Manifest
from parvis_services.stores.store import ObjectInfo
from parvis_services.watch.file_watcher import FileWatcher
from parvis_services.watch.object_watcher import ObjectWatcher
from watches import numbers, to_the_end

OUTPUTS = ["first", "every", "every-7", "last", "select-30", "20", "any", "finally", "timeout", "missing"]
SERIES = SeriesPlace("standard", "i04", "gridscans", 4077358, 3)
OBJECTS = "dir://ram/i04/gridscans/4077358/3"


class Site:
    """A store in a directory, and a configuration that names it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = DirectoryStore("ram", directory, "manage")
        self.config = Config(storage={"parvis.stores": {"ram": {"directory": str(directory)}}})

    def put(self, numbers: Iterable[int], place: SeriesPlace = SERIES) -> None:
        """Store images, and what else is beside them."""
        self.store.make_bucket(place.bucket)
        for key in (place.header, place.mask, place.pin("job")):
            self.store.put(place.bucket, key, b"something else", replace=True)
        for number in numbers:
            self.store.put(place.bucket, place.frame(number), b"x" * number)

    def put_manifest(self, told: list[Range], expected: int | None) -> str:
        """Store a manifest; return its address."""
        manifest = Manifest(dcid=4077358, series=3, ended="end message", told=told, expected=expected)
        self.store.put("i04", SERIES.manifest, manifest.dump())
        return f"{OBJECTS}/manifest"

    def look(self, parameters: Mapping[str, Any], payload: Any = None) -> Run:
        return run(ObjectWatcher, payload, parameters=parameters, outputs=OUTPUTS, config=self.config)

    def to_the_end(self, parameters: Mapping[str, Any], payload: Any = None) -> dict[str, list[Any]]:
        """Follow the checkpoints until there are no more; return everything sent, by output."""
        return to_the_end(lambda payload: self.look(parameters, payload), payload)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys each listing of a store had."""
    lengths: list[int] = []
    real = DirectoryStore.list_after

    def list_after(self: DirectoryStore, *arguments: Any) -> list[ObjectInfo]:
        page = real(self, *arguments)
        lengths.append(len(page))
        return page

    monkeypatch.setattr(DirectoryStore, "list_after", list_after)
    return lengths


def test_two_hundred_images_go_to_every_output_they_belong_to(site: Site) -> None:
    site.put(range(1, 201))
    sent = site.to_the_end({"objects": OBJECTS, "pattern-end": "200", "burst-limit": 40})
    assert numbers(sent["every"]) == list(range(1, 201))
    assert numbers(sent["first"]) == [1]
    assert numbers(sent["last"]) == [200]
    assert numbers(sent["every-7"]) == list(range(1, 201, 7))
    assert numbers(sent["select-30"])[:3] == [1, 7, 14]
    assert numbers(sent["20"]) == [20]
    count = {"images-expected": 200, "images-seen": 200}
    assert sent["any"] == [count]
    assert sent["finally"] == [{**count, "success": True, "missing": []}]
    assert sent["timeout"] == sent["missing"] == []


def test_a_payload_says_where_the_image_is_and_which_it_is(site: Site) -> None:
    site.put([7])
    parameters = {"store": "ram", "bucket": "i04", "prefix": "gridscans/4077358/3/", "pattern-start": 7}
    (image,) = site.look({**parameters, "pattern-end": 7}).sent("first")
    seen_at = image.pop("file-seen-at")
    etag = site.store.stat("i04", SERIES.frame(7)).etag
    assert image == {"file": f"{OBJECTS}/000007", "file-number": 7, "size": 7, "etag": etag}
    assert isinstance(seen_at, float)


def test_a_look_tells_of_no_more_than_its_limit_and_comes_back_at_once(
    site: Site, listings: list[int]
) -> None:
    site.put(range(1, 101))
    look = site.look({"objects": OBJECTS, "pattern-end": 100, "burst-limit": 10})
    assert numbers(look.sent("every")) == list(range(1, 11))
    assert look.checkpoints[0].delay == 0
    assert max(listings) == 10
    slow = site.look({"objects": OBJECTS, "pattern-end": 101, "burst-wait": 3})
    assert slow.checkpoints[0].delay == 3


@pytest.mark.parametrize("waits", [True, False])
def test_what_nobody_has_time_for_stays_in_the_checkpoint(site: Site, waits: bool) -> None:
    site.put(range(1, 301))
    watcher = ObjectWatcher(site.config)
    ledger = watcher.ledger = Ledger(Limits(fan_out=3))
    ledger.hear(Report("worker", queues={"output.2": Served(0, 1e6)}))
    parameters = {"objects": OBJECTS, "list-all": not waits, "pattern-end": 300, "timeout": 60}
    status = {
        "objects": OBJECTS,
        "first": 1,
        "last": 300,
        "seen": [[1, 5]],
        "start-time": 1.0,
        "last-seen": 2.0,
    }
    look = run(watcher, {"objectwatcher-status": status}, parameters=parameters, outputs=["every", "timeout"])
    assert numbers(look.sent("every")) == [6, 7, 8]
    assert look.sent("timeout") == []
    (checkpoint,) = look.checkpoints
    assert checkpoint.payload["objectwatcher-status"]["seen"] == [[1, 8]]
    assert checkpoint.delay == 0.5


def test_an_image_that_is_missing_does_not_hold_up_the_others(site: Site) -> None:
    parameters = {"objects": OBJECTS, "pattern-end": 10}
    site.put([1, 2, 5, 6, 8])
    look = site.look(parameters)
    assert numbers(look.sent("every")) == [1, 2, 5, 6, 8]
    site.put([4, 9])
    look = site.look(parameters, look.checkpoints[0].payload)
    assert numbers(look.sent("every")) == [4, 9]
    nothing = site.look(parameters, look.checkpoints[0].payload)
    assert nothing.everything == nothing.checkpoints
    assert nothing.checkpoints[0].delay == 1
    site.put([3, 7, 10])
    end = site.look(parameters, nothing.checkpoints[0].payload)
    assert numbers(end.sent("every")) == [3, 7, 10]
    assert end.sent("finally")[0]["success"] is True


def test_a_look_asks_for_what_is_new_and_for_one_stretch_with_gaps(site: Site, listings: list[int]) -> None:
    """However many images were seen: the listings of a look grow with neither them nor the gaps."""
    missing = [2, 1500, 2999]
    site.put(number for number in range(1, 3001) if number not in missing)
    parameters = {"objects": OBJECTS, "pattern-end": 4000, "burst-limit": 3000}
    look = site.look(parameters)
    assert len(look.sent("every")) == 2997
    listings.clear()
    site.put([3001, 3002])
    found: list[int] = []
    for _ in range(4):
        look = site.look(parameters, look.checkpoints[0].payload)
        found += numbers(look.sent("every"))
    assert found == [3001, 3002]
    assert len(listings) == 8
    assert max(listings) < 1000
    site.put(missing)
    for _ in missing:
        look = site.look(parameters, look.checkpoints[0].payload)
        found += numbers(look.sent("every"))
    assert sorted(found) == [*missing, 3001, 3002]
    assert len(json.dumps(look.checkpoints[0].payload)) < 300


def test_a_bucket_that_is_not_there_yet_is_waited_for_until_the_first_time_out(site: Site) -> None:
    parameters = {"objects": "dir://ram/4077358", "pattern-end": 3, "timeout": 1e9, "timeout-first": 60}
    look = site.look(parameters)
    assert look.everything == look.checkpoints
    status = look.checkpoints[0].payload["objectwatcher-status"] | {"start-time": 1000.0}
    end = site.look(parameters, {"objectwatcher-status": status})
    assert [sent.output for sent in end.everything] == ["timeout", "missing", "finally"]
    assert end.sent("timeout")[0]["file"] == "dir://ram/4077358/000001"


def test_a_time_out_says_what_is_missing_and_what_the_recipe_was_told_of(site: Site) -> None:
    parameters = {"objects": OBJECTS, "pattern-end": 9, "timeout": 60}
    site.put([1, 3, 4])
    status = site.look(parameters).checkpoints[0].payload["objectwatcher-status"]
    end = site.look(parameters, {"objectwatcher-status": status | {"last-seen": 1000.0}})
    assert [sent.output for sent in end.everything] == ["timeout", "missing", "any", "finally"]
    assert end.sent("timeout") == [{"file": f"{OBJECTS}/000002", "file-number": 2, "success": False}]
    count = {"images-expected": 9, "images-seen": 3}
    missing = [[2, 2], [5, 9]]
    assert end.sent("missing") == [{**count, "missing": missing, "told": [[1, 1], [3, 4]]}]
    assert end.sent("any") == [count]
    assert end.sent("finally") == [{**count, "success": False, "missing": missing}]


def test_all_that_is_stored_is_sent_and_nothing_is_waited_for(site: Site) -> None:
    there = [*range(1, 120), 125, 130]
    site.put(there)
    sent = site.to_the_end({"objects": OBJECTS, "list-all": True, "burst-limit": 50})
    assert numbers(sent["every"]) == there
    assert numbers(sent["last"]) == [130]
    (end,) = sent["finally"]
    assert (end["images-expected"], end["images-seen"], end["success"]) == (130, 121, False)
    assert sent["missing"][0]["missing"] == end["missing"] == [[120, 124], [126, 129]]
    assert sent["timeout"] == []


def test_a_bucket_of_the_first_object_store_tools_is_replayed(site: Site) -> None:
    place = SeriesPlace("prototype", "", "", 4077358, 0)
    site.put(range(1, 6), place)
    sent = site.to_the_end({"objects": "dir://ram/4077358", "list-all": True, "pattern-start": 2})
    assert [image["file"] for image in sent["every"]] == [f"dir://ram/4077358/{n:06d}" for n in range(2, 6)]
    assert sent["finally"][0]["images-expected"] == 4


def test_a_place_without_images_ends_at_once_without_success(site: Site) -> None:
    site.put([])
    sent = site.to_the_end({"objects": OBJECTS, "list-all": True, "pattern-start": 3})
    count = {"images-expected": 0, "images-seen": 0}
    assert sent["finally"] == [{**count, "success": False, "missing": []}]
    assert sent["every"] == sent["any"] == []


def test_the_safety_net_sends_what_is_stored_and_was_not_told(site: Site) -> None:
    site.put([*range(1, 151), 153, 154, 156, 200])
    manifest = site.put_manifest([(1, 20), (23, 152), (155, 160)], 160)
    payload = {"manifest": manifest, "images-expected": 160, "images-seen": 156, "success": False}
    sent = site.to_the_end({"manifest": True}, payload)
    assert numbers(sent["every"]) == [21, 22, 153, 154]
    assert numbers(sent["every-7"]) == [22]
    assert sent["finally"] == [{"images-expected": 160, "images-seen": 160, "success": True, "missing": []}]
    assert len(sent["any"]) == 1


def test_what_the_message_says_of_what_was_told_counts_more_than_the_manifest(site: Site) -> None:
    site.put(range(1, 6))
    manifest = site.put_manifest([(1, 5)], 9)
    told = site.to_the_end({"manifest": True}, {"manifest": manifest, "told": [], "images-expected": 6})
    assert numbers(told["every"]) == [1, 2, 3, 4, 5]
    assert told["missing"][0]["missing"] == [[6, 6]]
    at_a_place = site.to_the_end({"manifest": True, "objects": OBJECTS})
    assert at_a_place["every"] == at_a_place["any"] == []
    assert at_a_place["finally"][0]["images-expected"] == 9


def test_nothing_is_listed_if_the_recipe_was_told_of_all(site: Site, listings: list[int]) -> None:
    payload = {"manifest": f"{OBJECTS}/manifest", "told": [[1, 25]], "images-expected": 19}
    (end,) = site.to_the_end({"manifest": True}, payload)["finally"]
    assert end == {"images-expected": 19, "images-seen": 19, "success": True, "missing": []}
    assert listings == []


def test_a_series_that_never_was_is_missing_as_a_whole(site: Site) -> None:
    payload = {"manifest": None, "images-expected": 19, "images-seen": 0, "success": False}
    look = site.look({"manifest": True}, payload)
    assert [sent.output for sent in look.everything] == ["missing", "finally"]
    assert look.sent("missing")[0] == {
        "images-expected": 19,
        "images-seen": 0,
        "missing": [[1, 19]],
        "told": [],
    }


def test_a_file_watcher_takes_over_where_the_store_has_nothing(site: Site, tmp_path: Path) -> None:
    site.put([2, 3, 5])
    for number in range(1, 7):
        (tmp_path / f"grid_{number}.cbf").touch()
    payload = {"manifest": f"{OBJECTS}/manifest", "told": [[3, 3]], "images-expected": 6}
    (missing,) = site.to_the_end({"manifest": True}, payload)["missing"]
    parameters = {"pattern": str(tmp_path / "grid_%01d.cbf"), "pattern-start": 1, "pattern-end": 6}
    first = run(FileWatcher, missing, parameters={**parameters, "burst-limit": 2})
    second = run(FileWatcher, first.checkpoints[0].payload, parameters=parameters)
    assert numbers([*first.sent("every"), *second.sent("every")]) == [1, 4, 6]
    assert second.sent("finally") == [{"files-expected": 6, "files-seen": 6, "success": True}]


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({}, "objects must say where to look"),
        ({"store": "ram", "list-all": True}, "objects must say where to look"),
        ({"objects": OBJECTS}, "pattern-end"),
        ({"objects": "/data/grid_1", "list-all": True}, "s3://STORE/BUCKET/KEY"),
        ({"objects": "s3://ram/i04/x", "list-all": True}, "dir://"),
        ({"objects": "dir://tape/i04/x", "list-all": True}, "no store 'tape'"),
        ({"objects": "dir://ram/nowhere", "list-all": True}, "bucket"),
        ({"objects": "dir://ram/I04", "list-all": True}, "cannot name a bucket"),
        ({"objects": OBJECTS, "pattern": "%d", "list-all": True}, "exactly one number, such as %06d"),
        ({"objects": OBJECTS, "pattern": "../%06d", "list-all": True}, "cannot be the key"),
        ({"objects": OBJECTS, "pattern": "%02d", "pattern-end": 100}, "no room for number 100"),
        ({"objects": OBJECTS, "pattern-start": 5, "pattern-end": 4}, "no range"),
        ({"manifest": True, "objects": OBJECTS}, "without a manifest"),
    ],
)
def test_bad_parameters_are_rejected_with_what_is_wrong(
    site: Site, parameters: dict[str, Any], complaint: str
) -> None:
    site.store.make_bucket("i04")
    look = site.look(parameters)
    assert look.outcome.result == "reject"
    assert complaint in look.outcome.reason


@pytest.mark.parametrize("secret", ["wJalrXUtn/K7MDENG/bPxRfi", "wJalrXUtnK7MDENGbPxRfi" * 4])
@pytest.mark.parametrize("name", ["objects", "s3_url", "store", "bucket", "pattern"])
def test_a_login_is_refused_and_repeated_nowhere(
    site: Site, name: str, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"s3://AKIA:{secret}@rgw.example:7480/4077358"
    place = {} if name == "s3_url" else {"store": "ram", "bucket": "i04"}
    look = site.look({**place, name: url, "list-all": True})
    assert look.outcome.result == "reject"
    text = f"{look.outcome.reason} {caplog.text}"
    assert not any(secret[start : start + 8] in text for start in range(len(secret) - 8))
    assert "a store of the configuration" in look.outcome.reason


def test_a_store_that_does_not_answer_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    login = {"access_key": "reader", "secret_key": "not-to-be-seen"}
    ceph = {"endpoint": f"http://127.0.0.1:{port}", "read": login}
    config = Config(storage={"parvis.stores": {"ceph": ceph, "tape": {**ceph, "read": None, "write": login}}})
    parameters = {"objects": "s3://ceph/i04/1/1", "list-all": True}
    look = run(ObjectWatcher, None, parameters=parameters, config=config)
    assert look.outcome.result == "retry"
    assert "s3://ceph/i04" in look.outcome.reason
    assert "not-to-be-seen" not in look.outcome.reason
    refused = run(
        ObjectWatcher, None, parameters={**parameters, "objects": "s3://tape/i04/1/1"}, config=config
    )
    assert refused.outcome.result == "reject"
    assert "no login for the role 'read'" in refused.outcome.reason


def test_a_manifest_that_is_none_is_rejected(site: Site) -> None:
    site.store.make_bucket("i04")
    site.store.put("i04", SERIES.manifest, b"{}")
    look = site.look({"manifest": True}, {"manifest": f"{OBJECTS}/manifest"})
    assert look.outcome.result == "reject"
    assert "manifest" in look.outcome.reason
