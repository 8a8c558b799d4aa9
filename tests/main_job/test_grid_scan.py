"""The main job: real frames of a grid scan, from `go` to the centre of the crystal."""

from __future__ import annotations

from pathlib import Path

from facility import facility, sqlite_database
from grid_scan import COMPRESSED, FRAMES, check_results, collect, real_frames
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
