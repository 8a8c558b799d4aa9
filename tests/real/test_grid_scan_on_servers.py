"""The main job on a real ActiveMQ and a real MariaDB with the real schema and sample data."""

from __future__ import annotations

from pathlib import Path

from facility import facility
from grid_scan import COMPRESSED, FRAMES, check_results, collect, real_frames
from real.activemq.server import ActiveMQ
from real.mariadb import MariaDb
from sample_ispyb import load_sample


def test_nineteen_real_frames_on_activemq_and_mariadb(
    tmp_path: Path, activemq: ActiveMQ, mariadb: MariaDb
) -> None:
    url = mariadb.create_database("grid_scan")
    load_sample(url).close()
    broker = {
        "PARVIS_STOMP_HOST": activemq.host,
        "PARVIS_STOMP_PORT": str(activemq.port),
        "PARVIS_STOMP_USERNAME": activemq.username,
        "PARVIS_STOMP_PASSWORD": activemq.password,
        "PARVIS_STOMP_PREFIX": "gridscan",
    }
    with facility(tmp_path, broker, url) as place:
        scan = place.new_grid(COMPRESSED, FRAMES)
        place.go("per-image-analysis-gridscan", scan.dcid)
        collecting = collect(real_frames(), scan.directory)
        check_results(scan, place.gda)
        collecting.join()
        assert sorted(place.gda.images(scan.dcid)) == list(range(1, FRAMES + 1))
