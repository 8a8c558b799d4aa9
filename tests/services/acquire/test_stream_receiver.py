"""The receiver: from a detector's socket into the ring, whatever readers and receivers do."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # pyright: ignore[reportUnusedImport] - its filters unpack the images
import numpy as np
import pytest
import zmq

from parvis.config import Config, ConfigError, StompSettings
from parvis.service.host import Host
from parvis.transport.embedded import BrokerThread
from parvis_services.acquire.ceph_writer import CephWriter
from parvis_services.acquire.hdf5_writer import HDF5Writer
from parvis_services.acquire.stream_receiver import StreamReceiver
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.profiles import open_store
from parvis_services.stores.store import ImageStore
from parvis_services.stream import stream_v2
from parvis_services.stream.decoder import StreamDecoder
from parvis_services.stream.events import Event, Frame, SeriesEnd, SeriesStart
from parvis_services.stream.ring import RingReader, RingWriter
from parvis_services.stream.ring_layout import path_of
from running import NAMESPACE, in_thread, process_of
from stream_vectors import PACKED, frame, series_start
from waiting import wait_until


@pytest.fixture
def name() -> Iterator[str]:
    made = f"test-{uuid.uuid4().hex}"
    yield made
    for path in path_of(made).parent.glob(f"parvis-ring-{made}*"):
        path.unlink()


@pytest.fixture
def detector() -> Iterator[zmq.Socket[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDTIMEO, 20_000)
    socket.bind("tcp://127.0.0.1:*")
    yield socket
    context.destroy(linger=0)


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    with BrokerThread() as made:
        yield made


def settings(name: str, detector: zmq.Socket[Any], **ring: Any) -> dict[str, Any]:
    address = detector.get_string(zmq.LAST_ENDPOINT)
    return {name: {"stream": address, "ring": {"slots": 64, "slot_megabytes": 0.01, **ring}}}


def configured(broker: BrokerThread, detectors: dict[str, Any]) -> Config:
    config = Config(stomp=StompSettings("127.0.0.1", broker.port, "", "", NAMESPACE))
    return replace(config, storage={"parvis.detectors": detectors})


def send_series(detector: zmq.Socket[Any], frames: int, series: int = 7) -> None:
    events: list[Event] = [series_start(series), *(frame(number, series) for number in range(frames))]
    for event in [*events, SeriesEnd(series, "u")]:
        detector.send(stream_v2.encode(event))


def read_series(reader: RingReader) -> list[int]:
    """Numbers of the images of the next series."""
    numbers: list[int] = []
    while True:
        message = reader.receive(20)
        assert message is not None, "nothing came for 20 s"
        for event in StreamDecoder().decode(message):
            if isinstance(event, SeriesStart):
                numbers.clear()
            elif isinstance(event, Frame):
                numbers.append(event.number)
            else:
                return numbers


def test_two_readers_take_one_stream(broker: BrokerThread, name: str, detector: zmq.Socket[Any]) -> None:
    config = configured(broker, settings(name, detector))
    receiver = StreamReceiver(config)
    with in_thread(Host(config.transport(), [receiver])):
        send_series(detector, 20)
        for _ in range(2):
            with closing(RingReader(name)) as reader:
                assert read_series(reader) == list(range(20))
        figures = {figure.name: figure.value for figure in receiver.figures()}
        assert (figures["stream_messages"], figures["stream_refused"]) == (22, 0)
        assert figures["stream_bytes"] > 20 * 55
        assert receiver.doing() == "receiving"
    assert not path_of(name).exists(), "the ring is still there"


def test_images_go_into_a_store_and_into_files_from_one_stream(
    broker: BrokerThread, name: str, detector: zmq.Socket[Any], tmp_path: Path
) -> None:
    detectors = settings(name, detector)
    detectors[name] |= {"store": "here", "bucket": "images", "directory": str(tmp_path / "files")}
    (tmp_path / "store").mkdir()
    (tmp_path / "files").mkdir()
    config = configured(broker, detectors)
    config.storage["parvis.stores"] = {"here": {"directory": str(tmp_path / "store")}}
    config.storage["parvis.state_directory"] = str(tmp_path / "state")
    store = open_store("here", "manage", config.storage)
    store.make_bucket("images")
    place = SeriesPlace("standard", "images", "", 4077358, 7)
    with in_thread(
        Host(config.transport(), [kind(config) for kind in (StreamReceiver, CephWriter, HDF5Writer)])
    ):
        send_series(detector, 3)
        master = tmp_path / "files" / "4077358_7.nxs"
        wait_until(master.exists, 20, "the file")
        wait_until(lambda: place.manifest in keys(store), 20, "the manifest")
    stored = [store.get("images", place.frame(number)).data for number in (1, 2, 3)]
    assert stored == [PACKED] * 3
    with h5py.File(master) as file:
        read: Any = file["/entry/data/data"]
        assert np.array_equal(read[:], [np.arange(64, dtype=np.uint16).reshape(8, 8)] * 3)


def keys(store: ImageStore) -> list[str]:
    return [info.key for info in store.list_all("images")]


def test_the_detector_is_not_held_up_by_a_reader(
    broker: BrokerThread, name: str, detector: zmq.Socket[Any]
) -> None:
    config = configured(broker, settings(name, detector))
    with closing(RingReader(name)) as idle, in_thread(Host(config.transport(), [StreamReceiver(config)])):
        send_series(detector, 20)
        assert read_series(idle) == list(range(20))
        with closing(RingReader(name)) as keen:
            assert read_series(keen) == list(range(20))
            for series in range(8, 48):
                send_series(detector, 20, series)
                assert read_series(keen) == list(range(20))
            assert keen.lost == 0
        read_series(idle)
        assert idle.lost > 700


def test_a_message_too_large_for_the_ring(broker: BrokerThread, name: str, detector: zmq.Socket[Any]) -> None:
    config = configured(broker, settings(name, detector, slots=4))
    receiver = StreamReceiver(config)
    with in_thread(Host(config.transport(), [receiver])), closing(RingReader(name)) as reader:
        detector.send(bytes(30_000))
        send_series(detector, 1)
        assert read_series(reader) == [0]
        assert {figure.name: figure.value for figure in receiver.figures()}["stream_refused"] == 1


def connect(detector: zmq.Socket[Any], reader: RingReader) -> None:
    """Return when what the detector sends comes to the reader: what it sent to one that is dead is lost."""

    def comes_through() -> bool:
        with contextlib.suppress(zmq.Again):
            detector.send(stream_v2.encode(SeriesEnd(1)), zmq.NOBLOCK)
        return reader.receive(0.05) is not None

    wait_until(comes_through, 20, "the receiver to be connected")
    while reader.receive(0.1) is not None:
        pass


def site_file(directory: Path, detectors: dict[str, Any]) -> Path:
    import yaml

    site = directory / "site.yml"
    places = {"plugin": "storage", "parvis.detectors": detectors}
    site.write_text(yaml.safe_dump({"version": 1, "places": places, "environments": {"default": ["places"]}}))
    return site


def test_a_receiver_is_killed_and_another_goes_on(
    broker: BrokerThread, name: str, detector: zmq.Socket[Any], tmp_path: Path
) -> None:
    site = {"ZOCALO_CONFIG": str(site_file(tmp_path, settings(name, detector)))}
    with closing(RingReader(name)) as reader:
        with process_of(StreamReceiver, broker.port, site) as receiver:
            connect(detector, reader)
            send_series(detector, 5)
            assert read_series(reader) == list(range(5))
            receiver.send_signal(signal.SIGKILL)
            receiver.wait()
        with process_of(StreamReceiver, broker.port, site) as receiver:
            connect(detector, reader)
            send_series(detector, 6, series=8)
            assert read_series(reader) == list(range(6))
            assert reader.lost == 0
            assert _ends(receiver) == 0
        assert reader.receive(0) is None
    wait_until(lambda: not path_of(name).exists(), 10, "the ring to be taken away")


def _ends(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=20)


def test_mistakes(broker: BrokerThread, name: str, detector: zmq.Socket[Any]) -> None:
    with pytest.raises(ConfigError, match=f"parvis.detectors.{name} has no ring"):
        StreamReceiver(configured(broker, {name: {"stream": "tcp://127.0.0.1:1"}}))
    with closing(RingWriter(name, 64, 10_000)):
        receiver = StreamReceiver(configured(broker, settings(name, detector)))
        with pytest.raises(ConfigError, match=r"\.ring: ring .* has a writer already"):
            receiver.start()
