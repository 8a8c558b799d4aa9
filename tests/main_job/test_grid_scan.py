"""The main job: real frames of a grid scan, from `go` to the centre of the crystal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from facility import facility, sqlite_database
from grid_scan import COMPRESSED, FRAMES, check_results, collect, plain_frames, real_frames
from parvis.transport.embedded.thread import BrokerThread
from running import Listener, broker_environment, connected


def test_nineteen_real_frames_give_the_numbers_of_dials_and_the_centre(tmp_path: Path) -> None:
    with (
        BrokerThread(port=0) as broker,
        facility(tmp_path, broker_environment(broker.port), sqlite_database(tmp_path)) as place,
        connected(broker.port) as transport,
    ):
        letters = Listener(transport, "DLQ.test.per_image_analysis", "DLQ.test.notify_gda")
        scan = place.new_grid(COMPRESSED, FRAMES)
        place.go("per-image-analysis-gridscan", scan.dcid)
        collecting = collect(real_frames(), scan.directory)
        check_results(scan, place.gda)
        collecting.join()
        assert sorted(place.gda.images(scan.dcid)) == list(range(1, FRAMES + 1))
        assert letters.messages == []


def test_the_same_frames_as_hdf5_in_swmr_mode_give_the_same_numbers(tmp_path: Path) -> None:
    frames = plain_frames(tmp_path / "frames")
    with (
        BrokerThread(port=0) as broker,
        facility(tmp_path, broker_environment(broker.port), sqlite_database(tmp_path)) as place,
    ):
        scan = place.new_grid("thau_2.nxs", FRAMES)
        place.go("per-image-analysis-gridscan-swmr", scan.dcid)
        detector = [sys.executable, str(Path(__file__).parents[1] / "nexus_detector.py")]
        with subprocess.Popen([*detector, str(scan.directory), "thau_2", "1", *map(str, frames)]) as writing:
            check_results(scan, place.gda)
            assert writing.wait(timeout=60) == 0
        assert sorted(place.gda.images(scan.dcid)) == list(range(1, FRAMES + 1))
