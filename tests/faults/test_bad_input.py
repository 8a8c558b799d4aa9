"""Bad input of every kind: a clear error or a dead letter with its reason, and no instance dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facility import Facility, Scan, facility, sqlite_database
from grid_scan import COMPRESSED, real_frames
from parvis.recipe.envelope import dump_json
from parvis.transport.base import Message, Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, broker_environment, recipe_message
from waiting import wait_until

ONE_EACH: dict[str, int] = dict.fromkeys(
    ("Dispatcher", "FileWatcher", "PerImageAnalysis", "XRayCentring", "ISPyBPIA", "JSONLines"), 1
)
DEAD = ("processing_recipe", "filewatcher", "per_image_analysis", "reduce.xray_centering", "ispyb_pia")


class Letters:
    """The dead letters of all services."""

    def __init__(self, transport: StompTransport) -> None:
        self._listener = Listener(transport, *[f"DLQ.test.{queue}" for queue in DEAD])

    def wait_for_marked(self, marker: str) -> Message:
        """Return the dead letter with a header `marker`."""
        wait_until(lambda: self._marked(marker), 30, "the dead letter")
        return self._marked(marker)[0]

    def _marked(self, marker: str) -> list[Message]:
        return [letter for letter in self._listener.messages if letter.headers.get("marker") == marker]

    def wait_for(self, text: str, timeout: float = 120) -> Message:
        """Return the dead letter whose reason says `text`."""
        wait_until(lambda: self._with(text), timeout, f"a dead letter about {text!r}")
        return self._with(text)[0]

    def _with(self, text: str) -> list[Message]:
        return [letter for letter in self._listener.messages if text in letter.headers["parvis-reason"]]


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerThread]:
    with BrokerThread(port=0) as running:
        yield running


@pytest.fixture(scope="module")
def place(broker: BrokerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    """A facility none of whose instances dies while these tests run."""
    directory = tmp_path_factory.mktemp("facility")
    environment = broker_environment(broker.port)
    with facility(directory, environment, sqlite_database(directory), ONE_EACH) as running:
        logs = directory / "logs"
        wait_until(
            lambda: all("ready:" in (logs / f"{name}.log").read_text() for name in ONE_EACH), 60, "services"
        )
        before = running.supervisor.process_ids
        yield running
        assert running.supervisor.process_ids == before, "an instance has died"


@pytest.fixture
def letters(transport: StompTransport) -> Letters:
    return Letters(transport)


def send(transport: StompTransport, queue: str, payload: Any, **node: Any) -> None:
    transport.send(recipe_message(queue, payload, **node))


def test_a_truncated_image(place: Facility, transport: StompTransport, letters: Letters) -> None:
    scan = place.new_grid(COMPRESSED, 1)
    file = scan.directory / "truncated_0001.cbf.bz2"
    original = real_frames()[0].read_bytes()
    file.write_bytes(original[: len(original) // 2])
    send(transport, "per_image_analysis", {"file": str(file), "file-number": 1})
    letter = letters.wait_for(str(file))
    assert "cut short" in letter.headers["parvis-reason"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("empty.cbf", b"", "empty"),
        ("text.cbf", b"this is no image", "neither CBF nor HDF5"),
        ("lies.cbf", b"###CBF: VERSION 1.5\r\nnothing else", "lies.cbf"),
    ],
)
def test_a_file_that_is_no_image(
    place: Facility, transport: StompTransport, letters: Letters, name: str, content: bytes, complaint: str
) -> None:
    file = place.directory / name
    file.write_bytes(content)
    send(transport, "per_image_analysis", {"file": str(file), "file-number": 1})
    letter = letters.wait_for(str(file))
    assert complaint in letter.headers["parvis-reason"]


@pytest.mark.parametrize(
    ("queue", "payload", "complaint"),
    [
        ("per_image_analysis", {"file-number": 1}, "payload: file: field required"),
        ("per_image_analysis", {"file": ["a"], "file-number": 1}, "file ['a']"),
        ("per_image_analysis", {"file": "/x.cbf", "parameters": {"scan_range": "1,9"}}, "one single image"),
        ("per_image_analysis", {"file": "relative.cbf"}, "not an absolute path"),
        ("per_image_analysis", 42, "payload"),
        ("filewatcher", {"filewatcher-status": {"seen-files": -3}}, "seen-files"),
        ("reduce.xray_centering", {"file-number": "x", "n_spots_total": 1}, "file-number 'x'"),
        ("ispyb_pia", {"n_spots_total": 4}, "file-number"),
    ],
)
def test_a_malformed_payload(
    place: Facility, transport: StompTransport, letters: Letters, queue: str, payload: Any, complaint: str
) -> None:
    parameters = {"dcid": 1, "pattern": "/d/%d", "pattern-start": 1, "pattern-end": 2}
    send(transport, queue, payload, parameters=parameters)
    letters.wait_for(complaint)


@pytest.mark.parametrize("body", [b"", b"{", b"[1, 2]", b"\x00\xff", b'{"recipes": 5}', b'"text"'])
def test_a_message_that_is_no_request(
    place: Facility, transport: StompTransport, letters: Letters, body: bytes
) -> None:
    marker = str(len(body)) + body.hex()
    transport.send(Send("processing_recipe", body, {"marker": marker}))
    assert letters.wait_for_marked(marker).body == body


@pytest.mark.parametrize(
    ("recipe", "parameters", "complaint"),
    [
        ("../../etc/passwd", {}, "../../etc/passwd"),
        ("no-such-recipe", {}, "no-such-recipe"),
        ("per-image-analysis-gridscan", {"ispyb_dcid": 987654}, "987654"),
        ("per-image-analysis-gridscan", {"ispyb_dcid": "1; DROP TABLE DataCollection"}, "ispyb_dcid"),
        ("per-image-analysis-gridscan", {"guid": "../../../tmp"}, "guid"),
    ],
)
def test_a_request_that_cannot_be_met(
    place: Facility,
    transport: StompTransport,
    letters: Letters,
    recipe: str,
    parameters: dict[str, Any],
    complaint: str,
) -> None:
    request = {"recipes": [recipe], "parameters": parameters}
    transport.send(Send("processing_recipe", dump_json(request)))
    letters.wait_for(complaint)


def test_go_refuses_a_data_collection_that_does_not_exist_if_it_waits(place: Facility) -> None:
    done = place.parvis("go", "-r", "per-image-analysis-gridscan", "--wait=20", "424242")
    assert done.returncode == 1
    assert "424242" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_that_reaches_for_attributes(
    place: Facility, transport: StompTransport, letters: Letters
) -> None:
    scan = place.new_grid(COMPRESSED, 1)
    custom = {"1": {"queue": "q", "parameters": {"x": "{ispyb_dcid.__class__}"}}, "start": [[1, []]]}
    request = {"custom_recipe": custom, "parameters": {"ispyb_dcid": scan.dcid}}
    transport.send(Send("processing_recipe", dump_json(request)))
    letters.wait_for("__class__")


def test_a_recipe_with_an_unknown_queue_is_found_before_it_runs(place: Facility) -> None:
    shipped = json.loads(
        (Path(__file__).parents[2] / "recipes" / "per-image-analysis-gridscan.json").read_text()
    )
    shipped["2"]["queue"] = "per_image_analysys"
    file = place.directory / "misspelt.json"
    file.write_text(json.dumps(shipped))
    done = place.parvis("recipe", "check", str(file))
    assert done.returncode == 1
    assert "per_image_analysys" in done.stdout + done.stderr
    assert "per_image_analysis" in done.stdout + done.stderr
    scan = place.new_grid(COMPRESSED, 1)
    started = place.parvis("go", "-f", str(file), scan.dcid)
    assert started.returncode == 0
    assert "per_image_analysys" in started.stderr


def broken_series(scan: Scan) -> Path:
    """An HDF5 series of four frames, the third of which is damaged; return its master file."""
    import h5py
    import numpy as np

    from parvis_services.nxmx_files import Series
    from parvis_services.simulate.detectors import detector
    from parvis_services.simulate.header import Header
    from parvis_services.simulate.nexus import frames_to_nexus

    model = detector("eiger-500k")
    header = Header(
        detector=model.name,
        wavelength=0.98,
        distance=0.2,
        beam_xy=(500.0, 250.0),
        pixel_size=(model.pixel_size, model.pixel_size),
        sensor_thickness=model.sensor_thickness,
        count_cutoff=model.count_cutoff,
    )
    chance = np.random.default_rng(1)
    frames = [chance.poisson(1.0, model.shape).astype(np.int32) for _ in range(4)]
    series = Series(scan.directory, "broken_2", 4, model.shape)
    master = frames_to_nexus(frames, header, series)
    with h5py.File(scan.directory / "broken_2_000001.h5") as data:
        places: list[int] = []

        def note(_name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim == 3:
                places.append(item.id.get_chunk_info_by_coord((2, 0, 0)).byte_offset)

        data.visititems(note)
    with (scan.directory / "broken_2_000001.h5").open("r+b") as raw:
        raw.seek(places[0] + 12)
        raw.write(b"\xff" * 4000)
    return master


def test_an_hdf5_file_with_a_broken_chunk(
    place: Facility, transport: StompTransport, letters: Letters
) -> None:
    scan = place.new_grid("broken_2.nxs", 4)
    master = broken_series(scan)
    place.go("per-image-analysis-gridscan-swmr", scan.dcid)
    letter = letters.wait_for("frame 2")
    assert str(master) in letter.headers["parvis-reason"]
    wait_until(lambda: len(scan.rows()) == 3, 120, "the rows of the other frames")
    assert [number for number, _ in scan.rows()] == [1, 2, 4]


def wait_for_job(place: Facility, scan: Scan, *more: str) -> tuple[int, str]:
    """Exit code and error output of `go --wait` on a grid scan whose images are there."""
    done = place.parvis("go", "-r", "per-image-analysis-gridscan", *more, "--wait=60", scan.dcid, timeout=80)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_who_waits_hears_of_an_image_that_cannot_be_analysed(place: Facility) -> None:
    scan = place.new_grid(COMPRESSED, 2)
    whole, cut = real_frames()[:2]
    (scan.directory / whole.name).write_bytes(whole.read_bytes())
    (scan.directory / cut.name).write_bytes(cut.read_bytes()[:100_000])
    code, said = wait_for_job(place, scan)
    assert code == 1
    assert "cut short" in said
    assert "PerImageAnalysis" in said


def test_who_waits_hears_of_a_recipe_whose_watcher_is_refused(place: Facility) -> None:
    scan = place.new_grid(COMPRESSED, 1)
    parameters = {"pattern": "relative_%d.cbf", "pattern-start": 1, "pattern-end": 2}
    recipe = {"1": {"queue": "filewatcher", "parameters": parameters}, "start": [[1, []]]}
    file = place.directory / "refused.json"
    file.write_text(json.dumps(recipe))
    done = place.parvis("go", "-f", str(file), "--wait=60", scan.dcid, timeout=80)
    assert done.returncode == 1
    assert "FileWatcher" in done.stderr
    assert "relative_%d.cbf" in done.stderr
