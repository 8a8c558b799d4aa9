"""Services killed at random moments of a grid scan: same results, nothing missing, nothing twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from facility import Facility, facility, sqlite_database
from grid_scan import FRAMES, PLAIN, check_results, collect, plain_frames
from parvis.transport.embedded.thread import BrokerThread
from running import Listener, broker_environment, connected
from waiting import wait_until

ROUNDS = 20
RECIPE = "per-image-analysis-gridscan"


def kill_one(place: Facility, chance: random.Random, moment: float) -> str:
    """Kill a random service at a moment from now; return its name."""
    due = time.monotonic() + moment
    wait_until(lambda: time.monotonic() >= due, 60, "the moment")
    number, name = chance.choice(sorted(place.supervisor.process_ids.items()))
    os.kill(number, signal.SIGKILL)
    return name


@pytest.mark.timeout(300)
def test_twenty_scans_with_a_service_killed_in_each(tmp_path: Path) -> None:
    chance = random.Random(20)
    with (
        BrokerThread(port=0) as broker,
        facility(tmp_path, broker_environment(broker.port), sqlite_database(tmp_path)) as place,
        connected(broker.port) as transport,
    ):
        outputs = Listener(transport, "heard")
        frames = plain_frames(tmp_path / "frames")
        for number in range(1, ROUNDS + 1):
            scan = place.new_grid(PLAIN, FRAMES)
            place.go(RECIPE, scan.dcid, "-f", str(recipe_with_ears(tmp_path)))
            collecting = collect(frames, scan.directory, seed=number, longest_interval=0.08)
            killed = kill_one(place, chance, chance.uniform(0, 2.5))
            try:
                check_results(scan, place.gda)
            except AssertionError as error:
                raise AssertionError(f"round {number}, {killed} killed: {error}") from error
            collecting.join()
            heard = outputs.wait_for(3 * number)
            assert len(heard) == 3 * number, f"round {number}, {killed} killed: an output came twice"


def recipe_with_ears(directory: Path) -> Path:
    """A recipe that listens to `first`, `last` and `finally` of a file watcher on the same files."""
    file = directory / "ears.json"
    file.write_text(
        """{
        "1": {"queue": "filewatcher", "output": {"first": 2, "last": 2, "finally": 2},
              "parameters": {"pattern": "{ispyb_image_directory}{ispyb_image_pattern}",
                             "pattern-start": "{ispyb_image_first}", "pattern-end": "{ispyb_image_last}"}},
        "2": {"queue": "heard"},
        "start": [[1, {}]]}"""
    )
    return file
