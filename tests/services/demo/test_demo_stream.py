"""`parvis demo --stream`, from its first line to its last."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parvis_services.demo.flow import Flow, Rate

PARVIS = [sys.executable, "-m", "parvis"]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*PARVIS, *map(str, arguments)]
    variables = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=variables)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A configuration with two stores, one of which is away, and with what a demonstration is not to use."""
    login = {"access_key": "someone", "secret_key": "a secret that is kept"}
    away = {"endpoint": "http://127.0.0.1:9", "read": login, "write": login, "manage": login}
    (tmp_path / "shop").mkdir()
    stores = {"shop": {"directory": str(tmp_path / "shop")}, "away": away}
    content = {
        "version": 1,
        "stores": {"plugin": "storage", "parvis.stores": stores},
        "rest": {"plugin": "storage", "parvis.allowed_directories": ["/nowhere"]},
        "environments": {"default": ["stores", "rest"]},
    }
    file = tmp_path / "site.yml"
    file.write_text(json.dumps(content))
    return file


def test_the_crystal_is_found_without_a_file(tmp_path: Path, site: Path) -> None:
    place = tmp_path / "demo"
    done = run(
        "demo", "--stream", "--store", "shop", "--seed", 3, "--json", "--directory", place,
        ZOCALO_CONFIG=str(site),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["success"] is True
    assert len(found["images"]) == found["rows"] == found["datagrams"] == 140
    centre = found["centre"]["centre_x_box"], found["centre"]["centre_y_box"]
    assert math.dist(centre, found["true_centre_box"]) < 1.5
    stream = found["stream"]
    assert set(stream["counts"].values()) == {140}
    latency = stream["latency_seconds"]
    assert 0 < latency["frame_to_stored"]["p50"] < latency["frame_to_result"]["p50"]
    assert stream["series"].startswith("dir://shop/parvis-demo/")
    configured = {"ZOCALO_CONFIG": str(place / "configuration.yml")}
    manifest = json.loads(run("store", "manifest", stream["series"], "--json", **configured).stdout)
    assert (manifest["expected"], manifest["stored"], manifest["missing"]) == (140, 140, [])
    best = max(found["images"], key=lambda image: image["n_spots_total"])
    again = json.loads(run("analyse", best["file"], "--json", **configured).stdout)
    assert again["n_spots_total"] == best["n_spots_total"]
    assert not any("a secret" in file.read_text("latin-1") for file in place.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("store", "complaint"),
    [("nowhere", "no store 'nowhere'"), ("away", ": the store cannot be reached")],
)
def test_a_store_that_cannot_be_used_is_told_of_at_once(
    tmp_path: Path, site: Path, store: str, complaint: str
) -> None:
    options = ("--stream", "--store", store, "--directory", tmp_path / "demo")
    done = run("demo", *options, ZOCALO_CONFIG=str(site))
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Starting" not in done.stderr


def test_a_store_is_for_streams() -> None:
    done = run("demo", "--store", "shop")
    assert done.returncode == 2
    assert "--store is for --stream" in done.stderr


def test_rates_and_latencies_are_those_of_what_happened() -> None:
    rate = Rate()
    for tick in range(50):
        rate.update(tick / 10, tick // 2)
    assert rate.per_second(5) == pytest.approx(5, rel=0.1)
    rate.update(7.5, 24)
    assert rate.per_second(7.5) == 0
    flow = Flow()
    for number in range(100):
        flow.take({"file-received-at": 10.0, "file-seen-at": 10.25}, 10.5 + number)
    assert flow.latencies["frame_to_stored"] == {"p50": 0.25, "p99": 0.25}
    assert flow.latencies["frame_to_result"] == {"p50": 50.5, "p99": 99.5}
    assert Flow().latency("frame_to_result") is None
