"""HDF5Writer: a stream comes over a socket or a ring, and goes into files; kills, restarts, full disks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # pyright: ignore[reportUnusedImport] - its filters unpack the images
import numpy as np
import pytest
import zmq

from detector_frames import counts, frame, start
from parvis.config import Config, ConfigError
from parvis.transport.embedded import BrokerThread
from parvis_services.acquire import series_writer
from parvis_services.acquire.event_queue import Dropped, EventQueue
from parvis_services.acquire.hdf5_place import HDF5Place
from parvis_services.acquire.hdf5_writer import HDF5Writer
from parvis_services.acquire.series_writer import SeriesWriter
from parvis_services.paths import PathNotAllowed, PathRule
from parvis_services.stream import stream_v2
from parvis_services.stream.detectors import DetectorSettings
from parvis_services.stream.events import Event, Frame, SeriesEnd
from parvis_services.stream.ring import RingReader, RingWriter
from parvis_services.watch.file_watcher import FileWatcher
from parvis_services.watch.sources import Hdf5Images
from running import Listener, connected, hosted, recipe_message
from waiting import wait_until

_RUN = """
import json, sys, threading
from parvis.config import Config
from parvis_services.acquire.hdf5_writer import HDF5Writer
import logging
logging.basicConfig(level=logging.INFO)
writer = HDF5Writer(Config(storage=json.loads(sys.argv[1])))
writer.start()
sys.stdin.read()
writer.stop()
"""


def storage(directory: Path, address: str, **more: Any) -> dict[str, Any]:
    settings = {"stream": address, "directory": str(directory / "data"), "images_per_file": 4, **more}
    return {"parvis.detectors": {"eiger": settings}, "parvis.state_directory": str(directory / "state")}


@contextlib.contextmanager
def running(configured: dict[str, Any]) -> Generator[subprocess.Popen[bytes]]:
    """The writer in a process of its own, which ends it in good order unless it was killed."""
    command = [sys.executable, "-c", _RUN, json.dumps(configured)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield process
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()


def message(event: Event) -> bytes:
    """What a detector sends; there is a unique ID in everything."""
    return stream_v2.encode(replace(event, unique_id="a"))


class Detector:
    """Pushes its messages, as detectors do."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDTIMEO, 20_000)
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"

    def send(self, *events: Event) -> None:
        for event in events:
            self._socket.send(message(event), copy=False)

    def send_garbage(self) -> None:
        self._socket.send(b"\xa1garbage")

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture
def detector() -> Iterator[Detector]:
    made = Detector()
    yield made
    made.close()


def summary_of(directory: Path, name: str) -> dict[str, Any]:
    path = directory / "data" / f"{name}_summary.json"
    wait_until(path.exists, 20, path.name)
    return json.loads(path.read_text())


def images_of(master: Path) -> np.ndarray[Any, Any]:
    with h5py.File(master, "r") as file:
        data = file["entry/data/data"]
        assert isinstance(data, h5py.Dataset)
        return data[()]


def is_written(master: Path, number: int) -> bool:
    """Whether a file watcher sees an image, from 1."""
    source = Hdf5Images(str(master))
    try:
        return source.is_there(number)
    finally:
        source.close()


def test_readers_see_images_while_they_are_written(tmp_path: Path, detector: Detector) -> None:
    master = tmp_path / "data" / "4711_7.nxs"
    with running(storage(tmp_path, detector.address)):
        detector.send(start())
        wait_until(master.exists, 20, "the master")
        assert not (tmp_path / "data" / "4711_7_000001.h5").exists()
        for number in range(6):
            detector.send(frame(number))
            wait_until(lambda number=number: is_written(master, number + 1), 20, f"image {number + 1}")
            assert not is_written(master, number + 2)
        detector.send(*map(frame, range(6, 10)), SeriesEnd(7))
        summary = summary_of(tmp_path, "4711_7")
    assert (summary["written"], summary["missing"], summary["ended"]) == (10, [], "end message")
    np.testing.assert_array_equal(images_of(master), [counts(number) for number in range(10)])


def test_a_file_watcher_tells_of_images_while_they_are_written(
    tmp_path: Path, detector: Detector, broker: BrokerThread
) -> None:
    master = tmp_path / "data" / "4711_7.nxs"
    watch = recipe_message("filewatcher", {}, {"every": 2}, parameters={"hdf5": str(master)})
    with (
        running(storage(tmp_path, detector.address)),
        hosted(broker.port, FileWatcher),
        connected(broker.port) as transport,
    ):
        listener = Listener(transport, "results")
        detector.send(start(), *map(frame, range(5)))
        wait_until(master.exists, 20, "the master")
        transport.send(watch)
        listener.wait_for(5)
        assert not (tmp_path / "data" / "4711_7_summary.json").exists()
        detector.send(*map(frame, range(5, 10)), SeriesEnd(7))
        listener.wait_for(10)
    assert [image["hdf5-index"] for image in listener.payloads()] == list(range(10))


def test_a_killed_writer_goes_on_where_it_was(tmp_path: Path, detector: Detector) -> None:
    master = tmp_path / "data" / "4711_7.nxs"
    configured = storage(tmp_path, detector.address)
    with running(configured) as process:
        detector.send(start(), *map(frame, range(6)))
        wait_until(lambda: master.exists() and is_written(master, 6), 20, "image 6")
        process.kill()
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(tmp_path / "data" / "4711_7_000002.h5", "r", locking=False)
    with running(configured):
        detector.send(*map(frame, (5, 7, 8)), SeriesEnd(7))
        summary = summary_of(tmp_path, "4711_7")
    assert (summary["written"], summary["missing"], summary["duplicates"]) == (8, [[7, 7], [10, 10]], 1)
    images = images_of(master)
    for number in (0, 1, 2, 3, 4, 5, 7, 8):
        np.testing.assert_array_equal(images[number], counts(number))
    assert (images[6] == 2**32 - 1).all()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(
        ["4711_7.nxs", "4711_7_meta.h5", "4711_7_summary.json", *(f"4711_7_00000{n}.h5" for n in (1, 2, 3))]
    )


_FULL = """
import json, resource, sys
from pathlib import Path
from detector_frames import counts, frame, start
from parvis_services.acquire.nxmx_file import SeriesFile

room = 3 * frame(0, encoding="none").data.nbytes
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
series = SeriesFile.begin(start(), Path(sys.argv[1]), "x")
for number in range(10):
    if number == 6:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        series.append(frame(number, encoding="none"))
    except OSError as error:
        print(error, file=sys.stderr)
print(series.finish("end message").model_dump_json())
"""


def test_a_full_disk_costs_the_images_that_find_no_room(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    (gap,) = summary["failed"]
    assert summary["missing"] == [gap]
    assert 1 < gap[0] <= gap[1] == 6
    assert f"image {gap[0]} cannot be written" in done.stderr
    images = images_of(tmp_path / "x.nxs")
    for number in range(10):
        expected = 2**32 - 1 if gap[0] <= number + 1 <= gap[1] else counts(number)
        assert (images[number] == expected).all(), number


def test_a_ring_feeds_writers_that_do_not_wait_for_each_other(tmp_path: Path) -> None:
    ring = RingWriter(f"parvis-test-{tmp_path.name}", 64, 20_000)
    idle = RingReader(ring.name)
    configured = storage(tmp_path, "tcp://127.0.0.1:1", ring={"name": ring.name, "slots": 64})
    writer = HDF5Writer(Config(storage=configured))
    try:
        writer.start()
        ring.write([message(start(images=100))], keep=True)
        for number in range(100):
            ring.write([message(frame(number))])
            wait_until(
                lambda number=number: figure(writer, "frames_received") > number - 20, 20, "the reader"
            )
        ring.write([message(SeriesEnd(7))])
        assert summary_of(tmp_path, "4711_7")["missing"] == []
        assert idle.receive(1) is not None  # it was never asked for before, and nobody waited
    finally:
        writer.stop()
        idle.close()
        ring.close(remove=True)
    np.testing.assert_array_equal(images_of(tmp_path / "data" / "4711_7.nxs")[99], counts(99))


def figure(writer: HDF5Writer, name: str) -> float:
    return next(one.value for one in writer.figures() if one.name == name)


def test_what_cannot_be_read_is_counted(tmp_path: Path, detector: Detector) -> None:
    writer = HDF5Writer(Config(storage=storage(tmp_path, detector.address)))
    writer.start()
    try:
        detector.send(start())
        detector.send_garbage()
        detector.send(frame(0))
        wait_until(lambda: figure(writer, "frames_written") == 1, 20, "the image")
        assert figure(writer, "messages_garbage") == 1
        assert writer.doing() == "writing series 7 of data collection 4711"
        with pytest.raises(ConfigError, match="another process writes the files of this detector"):
            HDF5Writer(Config(storage=storage(tmp_path, detector.address))).start()
    finally:
        writer.stop()
    assert summary_of(tmp_path, "4711_7")["ended"] == "stopped"


Made = Callable[..., SeriesWriter]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Makes writers whose series go to the test's directory, each as if the one before had been killed."""

    def make(**more: Any) -> SeriesWriter:
        settings = DetectorSettings(stream="tcp://127.0.0.1:1", directory=tmp_path / "data", **more)
        place = HDF5Place("eiger", settings, PathRule({}))
        writer = SeriesWriter("eiger", settings, place, tmp_path / "eiger.json")
        writer.resume()
        return writer

    return make


def write(writer: SeriesWriter, *events: Event | Dropped) -> None:
    for event in events:
        writer.handle(event)


def test_a_series_ends_where_the_next_begins(tmp_path: Path, made: Made) -> None:
    write(made(), start(7), frame(0), start(8), frame(0, 8), SeriesEnd(8))
    assert summary_of(tmp_path, "4711_7")["ended"] == "next series"
    assert summary_of(tmp_path, "4711_8")["ended"] == "end message"


def test_a_series_goes_on_after_a_time_out(tmp_path: Path, made: Made) -> None:
    writer = made(series_timeout=0.01)
    write(writer, start(7), frame(0), Dropped(7, None, 4, 5))
    wait_until(lambda: (writer.idle(), writer.summary is None)[1], 10, "the end")
    assert summary_of(tmp_path, "4711_7")["ended"] == "time-out"
    write(writer, frame(1), frame(5), SeriesEnd(7))
    summary = summary_of(tmp_path, "4711_7")
    assert (summary["ended"], summary["written"], summary["dropped"]) == ("end message", 3, [[5, 5]])
    np.testing.assert_array_equal(images_of(tmp_path / "data" / "4711_7.nxs")[1], counts(1))


@pytest.mark.parametrize("unique_id", [None, "01HBV3"])
def test_what_is_over_is_not_written_again(tmp_path: Path, made: Made, unique_id: str | None) -> None:
    events = [replace(event, unique_id=unique_id) for event in (start(7), frame(0), frame(1), SeriesEnd(7))]
    write(made(), *events)
    before = sorted((tmp_path / "data").iterdir())
    write(made(), *events)  # as a ring tells it to those who come again
    assert sorted((tmp_path / "data").iterdir()) == before
    assert summary_of(tmp_path, "4711_7")["written"] == 2


def test_the_same_number_of_another_series_gets_other_files(tmp_path: Path, made: Made) -> None:
    writer = made()
    write(writer, start(7), frame(0), SeriesEnd(7), start(7), frame(1), SeriesEnd(7))
    assert summary_of(tmp_path, "4711_7")["missing"] == [[2, 10]]
    assert summary_of(tmp_path, "4711_7_2")["missing"] == [[1, 1], [3, 10]]


def test_images_of_a_series_nobody_announced_are_kept(tmp_path: Path, made: Made) -> None:
    write(made(), frame(0, 3), frame(1, 3), SeriesEnd(3))
    assert summary_of(tmp_path, "none_3")["written"] == 2
    np.testing.assert_array_equal(images_of(tmp_path / "data" / "none_3.nxs"), [counts(0), counts(1)])


def test_a_place_that_cannot_be_used_costs_no_series_after_it(
    tmp_path: Path, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").write_text("in the way")
    writer = made()
    write(writer, start(7), frame(0), frame(1), SeriesEnd(7))
    assert "files of series 7 cannot be made" in caplog.text
    assert "lost images: 2" in caplog.text
    (tmp_path / "data").unlink()
    write(writer, start(8), frame(0, 8), SeriesEnd(8))
    assert summary_of(tmp_path, "4711_8")["written"] == 1
    assert writer.failed == 2


def test_files_that_could_not_be_made_are_made_later(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_writer, "_TRY_AGAIN", 0.0)
    (tmp_path / "data").write_text("in the way")
    writer = made()
    write(writer, start(7), frame(0))
    (tmp_path / "data").unlink()
    write(writer, frame(1), SeriesEnd(7))
    summary = summary_of(tmp_path, "4711_7")
    assert (summary["written"], summary["dropped"]) == (1, [[1, 1]])


def test_dropped_images_are_named(tmp_path: Path, made: Made, caplog: pytest.LogCaptureFixture) -> None:
    write(made(), start(7), frame(0), Dropped(7, None, 1, 4), frame(5), SeriesEnd(7))
    assert summary_of(tmp_path, "4711_7")["dropped"] == [[2, 5]]
    assert "missing images: 8 (2-5, 7-10), of which 4 were dropped" in caplog.text


def test_a_queue_that_is_full_refuses_images_and_nothing_else() -> None:
    sent = frame(0)
    queue = EventQueue(2 * sent.data.nbytes + 500)
    taken = [queue.put(frame(number)) for number in range(3)]
    assert taken == [True, True, False]
    for number in (2, 3, 5):
        queue.drop(frame(number))
    assert queue.put(SeriesEnd(7))
    assert queue.held_bytes <= 2 * sent.data.nbytes + 500
    first = queue.take(0)
    assert isinstance(first, Frame)
    assert not queue.put(frame(6))  # the one that was taken still counts
    assert queue.put(SeriesEnd(7))
    rest = [queue.take(0) for _ in range(5)]
    assert isinstance(rest[0], Frame)
    assert rest[1:] == [Dropped(7, None, 2, 3), Dropped(7, None, 5, 5), SeriesEnd(7), SeriesEnd(7)]
    assert queue.take(0) is None
    assert queue.held_bytes == 0
    assert queue.dropped == 3


def test_nothing_in_the_stream_leads_out_of_the_directory(tmp_path: Path, made: Made) -> None:
    hostile = {"dcid": "../../../etc/x", "file_name": "../x", "directory": "/"}
    write(made(), start(7, appendix=hostile), frame(0), SeriesEnd(7))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]
    assert summary_of(tmp_path, "none_7")["written"] == 1


def test_places_are_filled_in_and_checked(tmp_path: Path) -> None:
    def place(directory: str, **site: Any) -> HDF5Place:
        settings = DetectorSettings(stream="tcp://127.0.0.1:1", directory=Path(directory))
        return HDF5Place("eiger", settings, PathRule(site))

    filled = place(f"{tmp_path}/{{date}}/{{detector}}/{{dcid}}")
    expected = (tmp_path / "2026-11-20" / "eiger" / "4711", "4711_7")
    assert filled.of(4711, 7, date(2026, 11, 20)) == expected
    with pytest.raises(ValueError, match="directory: only"):
        place("/data/{user}")
    with pytest.raises(ValueError, match="only"):
        place("/data/{dcid.__class__}")
    elsewhere = place("/elsewhere", **{"parvis.allowed_directories": [str(tmp_path)]})
    with pytest.raises(PathNotAllowed):
        elsewhere.of(1, 1, date(2026, 11, 20))
    settings = DetectorSettings(stream="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match="directory"):
        HDF5Place("eiger", settings, PathRule({}))
