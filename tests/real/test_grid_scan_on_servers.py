"""The main job on a real ActiveMQ and a real MariaDB with the real schema and sample data, and its trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facility import Facility, facility
from grid_scan import COMPRESSED, FRAMES, check_results, collect, real_frames
from parvis.cli.own_collector import own_collector
from parvis.config import Config, StompSettings
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
    settings = StompSettings(
        activemq.host, activemq.port, activemq.username, activemq.password, broker["PARVIS_STOMP_PREFIX"]
    )
    records = {"PARVIS_RECORDS_DIRECTORY": str(tmp_path / "records")}
    with (
        own_collector(Config(stomp=settings), tmp_path / "records") as variables,
        facility(tmp_path, {**broker, **records, **variables}, url) as place,
    ):
        scan = place.new_grid(COMPRESSED, FRAMES)
        place.go("per-image-analysis-gridscan", scan.dcid)
        collecting = collect(real_frames(), scan.directory)
        check_results(scan, place.gda)
        collecting.join()
        assert sorted(place.gda.images(scan.dcid)) == list(range(1, FRAMES + 1))
        check_trace(place)


def check_trace(place: Facility) -> None:
    """The one recipe, traced over all its services, and over checkpoints."""
    line = json.loads(place.parvis("trace", "--json").stdout)
    recipe_id = line["recipe_id"]
    followed = place.parvis("trace", recipe_id[:8], "--follow")
    assert followed.returncode == 0, followed.stderr
    told = json.loads(place.parvis("trace", recipe_id, "--all", "--json").stdout)
    assert (told["state"], told["notes"]) == ("finished", [])
    nodes: dict[str, dict[str, Any]] = {node["queue"]: node for node in told["nodes"]}
    for queue in ("per_image_analysis", "ispyb_pia", "jsonlines", "notify_gda"):
        counts = {name: nodes[queue][name] for name in ("sent", "handled", "outstanding", "unaccounted")}
        assert counts == {"sent": FRAMES, "handled": FRAMES, "outstanding": 0, "unaccounted": 0}, queue
    assert nodes["reduce.xray_centering"]["handled"] >= FRAMES
    services = {hop["service"] for hop in told["timeline"]}
    assert services >= {"Dispatcher", "FileWatcher", "PerImageAnalysis", "XRayCentring", "JSONLines"}
    checkpoints = {edge["source"] for edge in told["edges"] if edge["kind"] == "checkpoint"}
    assert nodes["reduce.xray_centering"]["node"] in checkpoints, "where the whole grid is put together"
    shown = place.parvis("trace", recipe_id)
    assert "Finished" in shown.stdout
    sections = place.parvis("trace", "--logbook", recipe_id)
    assert sections.stdout.count('"recipes": [') == 2, "in what came in and what was made of it"
