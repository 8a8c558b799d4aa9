"""The main job without files: real frames, from the detector's stream to the centre of the crystal."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from facility import Facility, Scan, facility, sqlite_database
from grid_scan import FRAMES, PLAIN, check_results, collect, lines_of, plain_frames
from parvis.transport.base import Transport
from parvis.transport.embedded.thread import BrokerThread
from parvis_services.demo.stage import SERVICES
from parvis_services.simulate.collect import Pace
from parvis_services.simulate.detector_stream import DetectorStream, Exposure, Faults, Sent
from parvis_services.simulate.stream_images import images_of_files
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.manifest import Manifest
from running import Listener, broker_environment, connected

RECIPE = "per-image-analysis-stream"
LETTERS = ("cephwriter", "objectwatcher", "filewatcher", "per_image_analysis", "reduce.xray_centering")
EARS = """{
"1": {"queue": "cephwriter", "parameters": {"dcid": "{ispyb_dcid}"},
      "output": {"last": 3, "finally": [2, 3]}},
"2": {"queue": "objectwatcher", "parameters": {"manifest": true}, "output": {"every": 4, "finally": 4}},
"3": {"queue": "heard"},
"4": {"queue": "net"},
"start": [[1, {}]]}"""


class Beamline:
    """A facility whose detector streams into a store in a directory."""

    def __init__(
        self, place: Facility, transport: Transport, detector: DetectorStream, frames: list[Path]
    ) -> None:
        self.place = place
        self.frames = frames
        self.store = DirectoryStore("ram", place.directory / "store")
        self.letters = Listener(transport, *(f"DLQ.test.{queue}" for queue in LETTERS))
        self.heard = Listener(transport, "heard")
        self.net = Listener(transport, "net")
        self._detector = detector
        self._images = images_of_files(frames)
        self._ears = place.directory / "ears.json"
        self._ears.write_text(EARS)
        self._series = 0

    def stream(self, dcid: int, faults: Faults = Faults(), **exposure: Any) -> Sent:  # noqa: B008 - it is frozen
        """Let the detector send all frames at 50 a second."""
        self._series += 1
        settings = Exposure(
            pace=Pace(50.0), series=self._series, appendix={"dcid": dcid}, faults=faults, **exposure
        )
        return self._detector.send(self._images, settings)

    def go(self, dcid: int) -> None:
        """Start the recipe, and one that listens."""
        self.place.go(RECIPE, dcid, "-f", str(self._ears))

    def manifest(self, dcid: int) -> Manifest:
        """The manifest of the series that was sent last."""
        place = SeriesPlace("standard", "beamline", "", dcid, self._series)
        return Manifest.load(self.store.get(place.bucket, place.manifest).data)


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beamline]:
    directory = tmp_path_factory.mktemp("beamline")
    frames = plain_frames(directory / "frames")
    (directory / "store").mkdir()
    DirectoryStore("ram", directory / "store").make_bucket("beamline")
    with (
        contextlib.closing(DetectorStream("tcp://127.0.0.1:*")) as detector,
        BrokerThread(port=0) as broker,
        connected(broker.port) as transport,
        facility(
            directory,
            broker_environment(broker.port) | site(directory, detector.address),
            sqlite_database(directory),
            {**SERVICES, "CephWriter": 1, "ObjectWatcher": 1},
        ) as place,
    ):
        yield Beamline(place, transport, detector, frames)


def site(directory: Path, stream: str) -> dict[str, str]:
    """The configuration of a beamline, and the variable that leads processes to it."""
    settings = {
        "plugin": "storage",
        "parvis.stores": {"ram": {"directory": str(directory / "store")}},
        "parvis.detectors": {"eiger": {"stream": stream, "store": "ram", "bucket": "beamline"}},
        "parvis.state_directory": str(directory / "state"),
    }
    file = directory / "site.yml"
    file.write_text(yaml.safe_dump({"version": 1, "site": settings, "environments": {"default": ["site"]}}))
    return {"ZOCALO_CONFIG": str(file)}


def findings(scan: Scan) -> dict[int, dict[str, Any]]:
    """What was found on each image, without where the image is."""
    return {
        number: {key: value for key, value in line.items() if not key.startswith("file")}
        for number, line in lines_of(scan).items()
    }


def test_streamed_frames_give_the_results_of_files(beamline: Beamline) -> None:
    place = beamline.place
    of_files = place.new_grid(PLAIN, FRAMES)
    place.go("per-image-analysis-gridscan", of_files.dcid)
    collecting = collect(beamline.frames, of_files.directory, longest_interval=0.01)
    check_results(of_files, place.gda)
    collecting.join()
    for number, version in enumerate(("v2", "v1"), start=1):
        scan = place.new_grid(PLAIN, FRAMES)
        beamline.go(scan.dcid)
        assert beamline.stream(scan.dcid, version=version).sent == FRAMES
        check_results(scan, place.gda)
        assert findings(scan) == findings(of_files)
        assert beamline.manifest(scan.dcid).stored == FRAMES
        beamline.heard.wait_for(2 * number)
        beamline.net.wait_for(number)
    ends = [payload for payload in beamline.heard.payloads() if "success" in payload]
    assert [end["images-seen"] for end in ends] == [FRAMES, FRAMES]
    assert len(beamline.heard.messages) == 4
    nets = [(end["images-seen"], end["success"]) for end in beamline.net.payloads()]
    assert nets == [(FRAMES, True)] * 2
    assert beamline.letters.messages == []


def test_what_the_stream_does_not_bring_comes_from_the_file(beamline: Beamline) -> None:
    scan = beamline.place.new_grid("thau_2.nxs", FRAMES)
    beamline.place.go(RECIPE, scan.dcid)
    beamline.stream(scan.dcid, Faults(skipped=frozenset({4, 5, 19})))
    writer = [sys.executable, str(Path(__file__).parents[1] / "nexus_detector.py")]
    place = (str(scan.directory), "thau_2", "0")
    with subprocess.Popen([*writer, *place, *map(str, beamline.frames)]) as writing:
        check_results(scan, beamline.place.gda)
        assert writing.wait(timeout=60) == 0
    from_file = [number for number, line in lines_of(scan).items() if line["file"].endswith(".nxs")]
    assert sorted(from_file) == [4, 5, 19]
    assert beamline.manifest(scan.dcid).missing == [(4, 5), (19, 19)]
    assert beamline.letters.messages == []
