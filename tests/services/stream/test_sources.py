"""Taking a stream from a real ZeroMQ socket, which breaks and comes back."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from parvis_services.stream import sources
from parvis_services.stream.decoder import MOST_PARTS, StreamDecoder
from parvis_services.stream.events import MalformedStream
from parvis_services.stream.ring import RingReader, RingWriter
from parvis_services.stream.sources import open_source
from waiting import wait_until


class Detector:
    """A socket that sends as a detector does."""

    def __init__(self, context: zmq.Context[Any], address: str, kind: int = zmq.PUSH) -> None:
        self._socket = context.socket(kind)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.setsockopt(zmq.SNDTIMEO, 20_000)
        self._socket.bind(address)
        self.address = self._socket.get_string(zmq.LAST_ENDPOINT)

    def send(self, *parts: bytes) -> None:
        self._socket.send_multipart(parts)

    def sends_to(self, source: sources.Source, content: bytes) -> bool:
        """Whether what is sent now comes to somebody."""
        with contextlib.suppress(zmq.Again):
            self._socket.send(content, zmq.NOBLOCK)
        return received(source, 0.05) == [content]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


def received(source: sources.Source, timeout: float = 20) -> list[bytes] | None:
    parts = source.receive(timeout)
    return None if parts is None else [bytes(part) for part in parts]


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:*", "tcp://[::1]:*", "ipc"])
def test_messages_come_whole_and_in_order(context: zmq.Context[Any], where: str, tmp_path: Path) -> None:
    detector = Detector(context, f"ipc://{tmp_path}/stream" if where == "ipc" else where)
    with closing(open_source(detector.address)) as source:
        assert source.receive(0) is None
        for number in range(100):
            detector.send(b"%d" % number, bytes(number))
        messages = [received(source) for _ in range(100)]
        assert messages == [[b"%d" % number, bytes(number)] for number in range(100)]
        assert source.lost == 0


def test_parts_stay_as_they_are(context: zmq.Context[Any]) -> None:
    detector = Detector(context, "tcp://127.0.0.1:*")
    with closing(open_source(detector.address)) as source:
        for number in range(20):
            detector.send(bytes([number]) * 100_000)
        kept = [source.receive(20) for _ in range(20)]
        assert [bytes(parts[0]) for parts in kept if parts] == [bytes([n]) * 100_000 for n in range(20)]


def test_a_detector_that_is_not_there_yet_and_comes_back(context: zmq.Context[Any], tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/stream"
    with closing(open_source(address)) as source:
        assert source.receive(0.01) is None
        for number in range(3):
            detector = Detector(context, address)
            detector.send(b"%d" % number)
            assert received(source) == [b"%d" % number]
            detector.close()


def test_a_detector_that_publishes(context: zmq.Context[Any]) -> None:
    detector = Detector(context, "tcp://127.0.0.1:*", zmq.XPUB)
    with closing(open_source(f"sub+{detector.address}")) as source:
        assert detector._socket.poll(20_000), "nobody subscribed"
        detector.send(b"published")
        assert received(source) == [b"published"]


def test_a_part_that_is_too_large(context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LARGEST_PART", 1000)
    detector = Detector(context, "tcp://127.0.0.1:*")
    with closing(open_source(detector.address)) as source:
        detector.send(b"good")
        assert received(source) == [b"good"]
        detector.send(bytes(1001))
        wait_until(lambda: detector.sends_to(source, b"next"), 20, "the connection to be made anew")


def test_somebody_else_at_the_address(context: zmq.Context[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = open_source(f"tcp://127.0.0.1:{port}")
        connection, _ = server.accept()
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(1000))
        assert source.receive(0.1) is None
        connection.close()
    with closing(source):
        detector = Detector(context, f"tcp://127.0.0.1:{port}")
        wait_until(lambda: detector.sends_to(source, b"next"), 20, "the detector to be connected")


def test_a_message_of_too_many_parts(context: zmq.Context[Any]) -> None:
    detector = Detector(context, "tcp://127.0.0.1:*")
    with closing(open_source(detector.address)) as source:
        detector.send(*[b"{}"] * 10_000)
        detector.send(b"next")
        parts = source.receive(20)
        assert parts is not None
        assert len(parts) == MOST_PARTS + 1
        with pytest.raises(MalformedStream, match="parts"):
            StreamDecoder().decode(parts)
        assert received(source) == [b"next"]


def test_the_address_of_a_ring() -> None:
    name = f"test-{uuid.uuid4().hex}"
    writer = RingWriter(name, 8, 1000)
    try:
        with closing(open_source(f"ring://{name}")) as source:
            assert isinstance(source, RingReader)
            writer.write([b"from memory"])
            assert received(source) == [b"from memory"]
    finally:
        writer.close(remove=True)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "i04",
        "tcp://host",
        "tcp://host:0",
        "tcp://host:65536",
        "tcp://*:9999",
        "udp://h:1",
        "ring://",
        "ring://a/b",
        "tcp://a b:1",
        "sub+ring://x",
        "sub+sub+tcp://h:1",
        "ipc://relative",
        "tcp://h:1;tcp://h:2",
        "ring://../x",
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match=r"no address of a stream|port|cannot name a ring"):
        open_source(address)
