"""`parvis simulate detector`, as who receives its stream sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zmq

from parvis_services.simulate.collect import GridScan, collect
from parvis_services.simulate.detector_stream import (
    CannotSend,
    DetectorStream,
    Exposure,
    Faults,
    Format,
    Sent,
)
from parvis_services.simulate.detectors import detector
from parvis_services.simulate.stream_images import StreamImages, images_of_files, images_of_scan
from parvis_services.stream.decoder import StreamDecoder
from parvis_services.stream.events import Event, Frame, MalformedStream, SeriesEnd, SeriesStart
from parvis_services.stream.geometry import experiment_of
from parvis_services.stream.image_files import NoSeries
from parvis_services.xray.analysis import analyse
from parvis_services.xray.grid import Grid
from parvis_services.xray.images import open_image
from parvis_services.xray.kernels.bitshuffle_lz4 import decode

SCAN = GridScan(Grid(3, 1), detector("pilatus-300k"), seed=5)
FORMATS: tuple[Format, ...] = ("v1", "v2")


class Receiver:
    """Takes a stream, in a thread, until the sender has gone.

    Attributes:
        events: What was said.
        malformed: What could not be read, and why not.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.malformed: list[str] = []
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._gone = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def connect(self, address: str) -> None:
        self._socket.connect(address)
        self._thread.start()

    def wait(self) -> list[Event]:
        self._thread.join(30)
        assert not self._thread.is_alive(), "the sender does not go"
        self._socket.disable_monitor()
        self._context.destroy(0)
        return self.events

    @property
    def numbers(self) -> list[int]:
        """The numbers of the images, from 1."""
        return [event.number + 1 for event in self.events if isinstance(event, Frame)]

    def _receive(self) -> None:
        decoder = StreamDecoder()
        while self._socket.poll(20) or not self._gone.poll(0):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
                self.events += decoder.decode([memoryview(part) for part in parts])
            except zmq.Again:
                continue
            except MalformedStream as error:
                self.malformed.append(str(error))


def streamed(images: StreamImages, exposure: Exposure) -> tuple[Sent, Receiver]:
    receiver = Receiver()
    stream = DetectorStream("tcp://127.0.0.1:*")
    receiver.connect(stream.address)
    try:
        stream.wait_for_receiver()
        sent = stream.send(images, exposure)
    finally:
        stream.close()
    receiver.wait()
    return sent, receiver


@pytest.fixture(scope="module")
def images() -> StreamImages:
    return images_of_scan(SCAN)


@pytest.mark.parametrize("version", FORMATS)
def test_chunks_of_a_file_are_streamed_as_they_are(tmp_path: Path, version: Format) -> None:
    written = collect(SCAN, tmp_path, kind="nexus")
    assert written.master is not None
    _, receiver = streamed(images_of_files([written.master]), Exposure(version, appendix={"dcid": 7}))
    start, *frames, end = receiver.events
    assert isinstance(start, SeriesStart)
    assert isinstance(end, SeriesEnd)
    assert (start.header.images, start.appendix) == (3, {"dcid": 7})
    with h5py.File(written.files[0]) as file:
        data = file["data"]
        assert isinstance(data, h5py.Dataset)
        chunks = [data.id.read_direct_chunk((place, 0, 0))[1] for place in range(3)]
    assert [bytes(frame.data) for frame in frames if isinstance(frame, Frame)] == chunks


@pytest.mark.parametrize("version", FORMATS)
def test_an_analysis_finds_on_the_stream_what_it_finds_on_the_file(tmp_path: Path, version: Format) -> None:
    written = collect(SCAN, tmp_path)
    _, receiver = streamed(images_of_files(written.files), Exposure(version))
    start, *frames, _ = receiver.events
    assert isinstance(start, SeriesStart)
    for file, frame in zip(written.files, frames, strict=True):
        assert isinstance(frame, Frame)
        dtype = np.dtype(frame.dtype)
        counts = decode(bytes(frame.data), frame.shape, dtype, np.empty(frame.shape, dtype))
        experiment = experiment_of(start.header, frame.shape, dtype, start.mask)
        assert analyse(experiment.image(counts, "stream")) == analyse(open_image(file))


@pytest.mark.parametrize("version", FORMATS)
def test_faults_are_as_they_were_asked_for(images: StreamImages, version: Format) -> None:
    faults = Faults(frozenset({2}), frozenset({3}), no_end=True, garbage=True)
    sent, receiver = streamed(images, Exposure(version, repeat=3, faults=faults))
    assert receiver.numbers == [1, 2, 2, 4, 5, 6, 7, 8, 9]
    assert not any(isinstance(event, SeriesEnd) for event in receiver.events)
    assert len(receiver.malformed) == sent.garbage == 7
    assert (sent.images, sent.sent, sent.twice, sent.skipped, sent.ended) == (9, 9, 1, 1, False)


def test_a_receiver_that_takes_nothing_is_given_up(images: StreamImages) -> None:
    stream = DetectorStream("tcp://127.0.0.1:*", patience=0.2)
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVHWM, 1)
        with pytest.raises(CannotSend, match="nobody connected"):
            stream.wait_for_receiver()
        socket.connect(stream.address)
        stream.wait_for_receiver()
        with pytest.raises(CannotSend, match="took nothing for 0"):
            stream.send(images, Exposure(repeat=1000))
        stream.close(at_once=True)


def test_a_rate_is_kept_or_it_is_said_that_it_was_not() -> None:
    def sent(**values: Any) -> Sent:
        return Sent(series=1, images=100, rate_wanted=100.0, sent=100, **values)

    assert sent(rate=99.9, late_seconds=0.04).kept
    assert not sent(rate=97.0, late_seconds=0.04).kept
    assert not sent(rate=99.9, late_seconds=0.06).kept
    assert sent(rate=97.0).as_dict()["rate_kept"] is False


def test_files_that_no_detector_could_stream_are_refused(tmp_path: Path) -> None:
    cbf, nexus = collect(SCAN, tmp_path), collect(SCAN, tmp_path / "nexus", kind="nexus")
    with pytest.raises(NoSeries, match="give many of those, or one HDF5"):
        images_of_files([*nexus.files, *cbf.files])


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Any]:
    """Starts `parvis simulate detector` for a small scan; gives the process and its address."""
    address = f"ipc://{tmp_path / 'socket'}"
    scan = ["--columns", "3", "--rows", "1", "--detector", "pilatus-300k", "--bind", address]
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> tuple[subprocess.Popen[str], str]:
        words = [sys.executable, "-m", "parvis", "simulate", "detector", *scan, *options]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True))
        return started[-1], address

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_command_says_what_it_sent(command: Any) -> None:
    process, address = command("--json", "--dcid", "3", "--rate", "200", "--format", "v1")
    receiver = Receiver()
    receiver.connect(address)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    receiver.wait()
    said = json.loads(out)
    assert (said["images"], said["sent"], said["rate_wanted"], said["ended"]) == (3, 3, 200.0, True)
    assert len(said["centre_box"]) == 2
    assert receiver.numbers == [1, 2, 3]


def test_ctrl_c_ends_the_series(command: Any) -> None:
    process, address = command("--rate", "1", "--repeat", "100")
    receiver = Receiver()
    receiver.connect(address)
    while "Waiting" not in (line := process.stderr.readline()):
        assert line
    while not receiver.numbers:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert isinstance(receiver.wait()[-1], SeriesEnd)
    assert "Interrupted." in process.stderr.read()


def test_wrong_calls_are_refused(command: Any) -> None:
    for options, complaint in (
        (("--fast", "--rate", "5"), "contradict"),
        (("--dcid", "5", "--appendix", "x"), "give one"),
    ):
        process, _ = command(*options)
        assert process.wait(30) == 2
        assert complaint in process.stderr.read()
    process, _ = command("--bind", "tcp://nowhere.invalid:1")
    assert process.wait(60) == 1
    assert "cannot listen at" in process.stderr.read()
