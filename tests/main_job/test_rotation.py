"""Per-image analysis of rotation scans: images evenly chosen, results in the database and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from facility import Facility, Scan, facility, sqlite_database
from grid_scan import FRAMES, check_numbers, lines_of, plain_frames
from parvis.transport.embedded.thread import BrokerThread
from parvis_services.simulate.collect import copy_frames
from real_data import real_data
from running import broker_environment
from waiting import wait_until

CYSTEINE = 15
SERVICES = dict.fromkeys(["Dispatcher", "FileWatcher", "PerImageAnalysis", "ISPyBPIA", "JSONLines"], 1)


def wait_for_rows(scan: Scan, images: int) -> None:
    wait_until(lambda: len(scan.rows()) == images, 60, "a row for each image")
    wait_until(lambda: len(lines_of(scan)) == images, 60, "a line for each image")


@pytest.fixture
def place(tmp_path: Path):
    with (
        BrokerThread(port=0) as broker,
        facility(tmp_path, broker_environment(broker.port), sqlite_database(tmp_path), SERVICES) as running,
    ):
        yield running


def test_a_rotation_scan_of_real_frames(place: Facility) -> None:
    scan = place.new_collection("SAD", "l-cyst_01_#####.cbf.bz2", CYSTEINE, axis_range=0.1)
    place.go("per-image-analysis-rotation", scan.dcid)
    copy_frames(sorted(real_data("l_cysteine").glob("*.cbf.bz2")), scan.directory)
    wait_for_rows(scan, CYSTEINE)
    expected = json.loads(real_data("dials_reference.json").read_text())["images"]
    found = lines_of(scan)
    for number in (1, 2):
        fields = expected[f"l_cysteine/l-cyst_01_{number:05d}.cbf.bz2"]
        for name in ("n_spots_total", "n_spots_no_ice", "n_spots_4A", "total_intensity"):
            assert found[number][name] == fields[name], f"image {number}: {name}"


def test_a_rotation_scan_in_swmr_mode(place: Facility, tmp_path: Path) -> None:
    scan = place.new_collection("SAD", "thau_2.nxs", FRAMES, axis_range=0.1)
    place.go("per-image-analysis-rotation-swmr", scan.dcid)
    detector = [sys.executable, str(Path(__file__).parents[1] / "nexus_detector.py")]
    frames = plain_frames(tmp_path / "frames")
    subprocess.run([*detector, str(scan.directory), "thau_2", "1", *map(str, frames)], check=True, timeout=90)
    wait_for_rows(scan, FRAMES)
    check_numbers(lines_of(scan))
