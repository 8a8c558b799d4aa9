"""The main job: real frames of a grid scan, from `go` to the centre of the crystal."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from facility import Facility, facility, sqlite_database
from parvis.transport.embedded.thread import BrokerThread
from parvis_services.simulate.collect import copy_frames
from real_data import real_data
from running import broker_environment
from waiting import wait_until

FRAMES = 19
INTEGERS = ("n_spots_total", "n_spots_no_ice", "n_spots_4A", "total_intensity")


def real_frames() -> list[Path]:
    return sorted(real_data("thaumatin_grid").glob("*.cbf.bz2"))


def reference() -> dict[int, dict[str, Any]]:
    """What DIALS says of some of the frames, by image number."""
    content = json.loads(real_data("dials_reference.json").read_text())
    return {
        int(name[-12:-8]): fields
        for name, fields in content["images"].items()
        if name.startswith("thaumatin_grid/")
    }


def collect(directory: Path, seed: int = 1) -> threading.Thread:
    """Copy the real frames one by one at random intervals, in a thread."""
    chance = random.Random(seed)
    intervals = [chance.uniform(0, 0.15) for _ in range(FRAMES)]
    thread = threading.Thread(target=copy_frames, args=(real_frames(), directory, intervals))
    thread.start()
    return thread


def results_of(place: Facility) -> dict[int, dict[str, Any]]:
    """What was written of each image, by number; none may be there twice."""
    lines = [json.loads(line) for line in place.wait_for_result("results.jsonl").read_text().splitlines()]
    by_number = {line["file-pattern-index"]: line for line in lines}
    assert len(by_number) == len(lines), "an image was written twice"
    return by_number


def check(place: Facility, dcid: int) -> None:
    """Everything that must have come of the real frames."""
    centring = place.wait_for_result("Dials5AResults.json", timeout=100)
    wait_until(lambda: len(place.rows(dcid)) == FRAMES, 30, "a row for each image")
    wait_until(lambda: len(set(place.gda.images())) == FRAMES, 30, "a datagram for each image")
    wait_until(lambda: len(results_of(place)) == FRAMES, 30, "a line for each image")
    assert json.loads(centring.read_text())["best_image"] == 3
    found = results_of(place)
    expected = reference()
    assert len(expected) == 6
    for number, fields in expected.items():
        for name in INTEGERS:
            assert found[number][name] == fields[name], f"image {number}: {name}"
        for name in fields.keys() - {*INTEGERS, "n_strong_pixels"}:
            assert found[number][name] == pytest.approx(fields[name], rel=1e-6), f"image {number}: {name}"
    assert place.rows(dcid) == [(number, found[number]["n_spots_total"]) for number in range(1, FRAMES + 1)]


def test_nineteen_real_frames_give_the_numbers_of_dials_and_the_centre(tmp_path: Path) -> None:
    with (
        BrokerThread(port=0) as broker,
        facility(tmp_path, broker_environment(broker.port), sqlite_database(tmp_path)) as place,
    ):
        dcid = place.new_grid("thau_3_2_####.cbf.bz2", FRAMES)
        place.go("per-image-analysis-gridscan", dcid)
        collecting = collect(place.image_directory)
        check(place, dcid)
        collecting.join()
        assert sorted(place.gda.images()) == list(range(1, FRAMES + 1))
