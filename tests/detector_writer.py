"""A detector that sends what it is told to, and a CephWriter that stores it in a directory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import yaml
import zmq

from parvis.config import Config, StompSettings
from parvis.recipe.envelope import RECIPE_HEADER, dump_json
from parvis.service.host import Host
from parvis.transport.base import Message, Send, Transport
from parvis_services.acquire.ceph_writer import CephWriter
from parvis_services.stores.directory import DirectoryStore
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.manifest import Manifest
from parvis_services.stores.profiles import open_store
from parvis_services.stream import stream_v1, stream_v2
from parvis_services.stream.events import Bytes, Event, Frame, Header, SeriesEnd, SeriesStart
from running import NAMESPACE, Listener, in_thread
from waiting import wait_until

BUCKET = "images"
SHAPE = (8, 8)


def content(number: int, size: int = 0) -> bytes:
    """What is in an image, counted from 1: never twice the same."""
    return number.to_bytes(4, "little") * max(SHAPE[0] * SHAPE[1] // 2, size // 4)


class Detector:
    """A socket that pushes messages.

    Args:
        version: Of the stream.
        waiting: How many messages may wait here.
        gives_up: Whether it drops what cannot be sent at once, as real ones do; otherwise it waits.

    Attributes:
        address: Where it is.
        refused: How many messages could not be sent at once.
    """

    def __init__(
        self, version: Literal["v1", "v2"] = "v2", waiting: int = 64, *, gives_up: bool = False
    ) -> None:
        self._version = version
        self._gives_up = gives_up
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, waiting)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind("tcp://127.0.0.1:*")
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.refused = 0

    def send(self, parts: Sequence[Bytes]) -> None:
        """Send a message; count it if somebody keeps us waiting."""
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            self.refused += 1
            if self._gives_up:
                return
            assert self._socket.poll(30_000, zmq.POLLOUT), "nobody takes the stream"
            self._socket.send_multipart(parts)

    def tell(self, event: Event) -> None:
        """Send an event."""
        self.send(stream_v1.encode(event) if self._version == "v1" else [stream_v2.encode(event)])

    def start(
        self,
        dcid: Any,
        images: int | None,
        *,
        series: int = 1,
        unique_id: str | None = "first",
        mask: bool = False,
        shape: tuple[int, int] = SHAPE,
    ) -> None:
        """Begin a series, once there is somebody who takes it."""
        assert self._socket.poll(30_000, zmq.POLLOUT), "nobody takes the stream"
        header = Header(shape=shape, dtype="uint16", images=images, wavelength=1.0, distance=0.2)
        pixels = np.eye(*shape, dtype=np.uint32) if mask else None
        appendix = None if dcid is None else {"dcid": dcid}
        self.tell(SeriesStart(series, self._unique(unique_id), header, pixels, appendix))

    def image(self, number: int, *, series: int = 1, unique_id: str | None = "first", size: int = 0) -> None:
        """Send an image, counted from 1."""
        data = content(number, size)
        shape = SHAPE if not size else (len(data) // 2 // 256, 256)
        self.tell(
            Frame(series, number - 1, memoryview(data), "none", "uint16", shape, self._unique(unique_id))
        )

    def images(self, numbers: Sequence[int], **how: Any) -> None:
        """Send some images."""
        for number in numbers:
            self.image(number, **how)

    def end(self, *, series: int = 1, unique_id: str | None = "first") -> None:
        """End a series."""
        self.tell(SeriesEnd(series, self._unique(unique_id)))

    def close(self) -> None:
        """Go away."""
        self._socket.close()
        self._context.term()

    def _unique(self, unique_id: str | None) -> str | None:
        return unique_id if self._version == "v2" else None


class Site:
    """A place with a store, a detector and what a writer keeps.

    Args:
        directory: For all of it.
        port: Of the broker.
        address: Of the detector.
        profile: Of the store, if it is not the one in the directory.
        settings: Of the detector beside the usual ones.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        address: str,
        *,
        profile: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.port = port
        self.objects = directory / "store"
        self.objects.mkdir(parents=True)
        self.journals = directory / "state" / "cephwriter" / "sim"
        usual = {"stream": address, "store": "memory", "bucket": BUCKET, "memory": 16, "uploaders": 4}
        self.storage = {
            "parvis.stores": {"memory": dict(profile or {"directory": str(self.objects)})},
            "parvis.detectors": {"sim": {**usual, **settings}},
            "parvis.state_directory": str(directory / "state"),
        }
        self.file = directory / "site.yml"
        document = {"version": 1, "site": {"plugin": "storage", **self.storage}}
        self.file.write_text(yaml.safe_dump({**document, "environments": {"default": ["site"]}}))

    @property
    def config(self) -> Config:
        """The configuration."""
        return replace(
            Config(stomp=StompSettings("127.0.0.1", self.port, "", "", NAMESPACE)), storage=self.storage
        )

    @property
    def store(self) -> DirectoryStore:
        """The store, to look into."""
        store = open_store("memory", "read", self.storage)
        assert isinstance(store, DirectoryStore)
        return store

    @contextlib.contextmanager
    def writer(self) -> Iterator[CephWriter]:
        """A writer in a thread of this process."""
        service = CephWriter(self.config)
        with in_thread(Host(self.config.transport(), [service])):
            wait_until(service.doing, 20, "the writer")
            yield service

    def place(self, dcid: int, series: int = 1, repeat: int = 1) -> SeriesPlace:
        """Where a series is."""
        return SeriesPlace("standard", BUCKET, "", dcid, series, repeat)

    def stored(self, place: SeriesPlace) -> dict[int, bytes]:
        """The images that are stored, by number."""
        if not (self.objects / place.bucket).exists():
            return {}
        keys = [one.key for one in self.store.list_all(place.bucket, place.frames_prefix)]
        numbers = {number: key for key in keys if (number := place.number_of(key)) is not None}
        return {number: self.store.get(place.bucket, key).data for number, key in numbers.items()}

    def manifest(self, place: SeriesPlace, timeout: float = 20) -> Manifest:
        """The manifest of a series, once it is there."""
        found: list[Manifest] = []

        def look() -> bool:
            with contextlib.suppress(Exception):
                found[:] = [Manifest.load(self.store.get(place.bucket, place.manifest).data)]
            return bool(found)

        wait_until(look, timeout, f"the manifest {place.manifest}")
        return found[0]


def attach(
    dcid: int, outputs: Sequence[str], recipe: str = "recipe-1", *, aloud: bool = False, **parameters: Any
) -> Send:
    """A message that attaches a recipe; what leaves at an output goes to the queue of its name.

    If `aloud`, images go to a topic, for which nothing is held back.
    """
    nodes: dict[str, Any] = {
        str(number): {"topic" if aloud and output == "every" else "queue": queue_of(recipe, output)}
        for number, output in enumerate(outputs, 2)
    }
    node = {
        "queue": "cephwriter",
        "parameters": {"dcid": dcid, **parameters},
        "output": {output: number for number, output in enumerate(outputs, 2)},
    }
    body = {
        "recipe": {"1": node, **nodes, "start": [[1, []]]},
        "recipe-pointer": 1,
        "recipe-path": [],
        "environment": {"ID": recipe},
        "payload": [],
    }
    return Send("cephwriter", dump_json(body), {RECIPE_HEADER: "True"})


def queue_of(recipe: str, output: str) -> str:
    """Where what a recipe sends at an output goes."""
    return f"{recipe}.{output}"


class Recipe:
    """A recipe that is attached to a data collection, and hears what it is told."""

    def __init__(
        self, transport: Transport, dcid: int, *others: str, name: str = "recipe-1", **parameters: Any
    ) -> None:
        outputs = ["every", "finally", *others]
        self._heard = {output: Listener(transport, queue_of(name, output)) for output in outputs}
        transport.send(attach(dcid, outputs, name, **parameters))

    def told(self, output: str = "every") -> list[Any]:
        """The payloads that came at an output."""
        return self._heard[output].payloads()

    def numbers(self, output: str = "every") -> list[int]:
        """The numbers of the images that came at an output, in order of arrival."""
        return [image["file-number"] for image in self.told(output)]

    def first_told_at(self) -> float:
        """When the broker got the first image, seconds since 1970."""
        return min(int(one.headers["timestamp"]) for one in self._heard["every"].messages) / 1000

    def wait_for(self, images: int, timeout: float = 20) -> None:
        """Return when it was told of so many images."""
        self._heard["every"].wait_for(images, timeout)

    def end(self, timeout: float = 30) -> Mapping[str, Any]:
        """What it was told at the end."""
        self._heard["finally"].wait_for(1, timeout)
        (over,) = self.told("finally")
        return over


def hear(transport: Transport, recipe: str) -> list[int]:
    """Numbers of the images that a recipe tells aloud, in a list that grows."""
    heard: list[int] = []

    def take(message: Message) -> None:
        heard.append(orjson.loads(message.body)["payload"]["file-number"])

    transport.subscribe_broadcast(queue_of(recipe, "every"), take)
    return heard


class Sending(threading.Thread):
    """A detector at work: a series at a pace, whatever happens at the other end, until it is told to end."""

    def __init__(self, detector: Detector, dcid: int, images: int, rate: float, size: int = 0) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.is_over = threading.Event()
        self._detector = detector
        self._dcid = dcid
        self._images = images
        self._interval = 1 / rate
        self._size = size

    def run(self) -> None:
        """Send."""
        self._detector.start(self._dcid, self._images)
        begun = time.monotonic()
        for number in range(1, self._images + 1):
            if self.is_over.wait(max(0.0, begun + number * self._interval - time.monotonic())):
                return
            self._detector.image(number, size=self._size)
            self.sent = number
