"""What runs in processes of its own beside what is measured: detector, bare socket, spotfinding alone."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import zmq
from images import stream_images

from parvis_services.simulate.collect import Pace
from parvis_services.simulate.detector_stream import CannotSend, DetectorStream, Exposure, Sent
from parvis_services.simulate.stream_images import StreamImages
from parvis_services.stream import stream_v2
from parvis_services.xray.analysis import analyse
from parvis_services.xray.images import Buffers
from parvis_services.xray.stored_image import FrameDecoder

_CONTEXT: Final = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Series:
    """A series that was sent.

    Attributes:
        sent: What the detector says of it.
        times: When each image left, seconds since 1970.
        size: Bytes of the messages.
    """

    sent: Sent
    times: Sequence[float]

    @property
    def size(self) -> float:
        return self.sent.bytes / self.sent.images


class Camera:
    """A detector that waits to be told to send a series."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.address: str = pipe.recv()

    def send(
        self, files: Sequence[Path], size: str, rate: float | None, repeat: int, series: int, dcid: int | None
    ) -> Series:
        """Send a series and return when it is sent; `repeat` is how often the frames come."""
        self._pipe.send(
            (
                files,
                size,
                Exposure("v2", pace=Pace(rate), repeat=repeat, series=series, appendix={"dcid": dcid}),
            )
        )
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def prepare(self, files: Sequence[Path], size: str) -> None:
        """Have the frames ready before they are wanted."""
        self._pipe.send((files, size, None))
        self._pipe.recv()


def _sent(stream: DetectorStream, images: StreamImages, exposure: Exposure) -> Series:
    times: list[float] = []
    stream.wait_for_receiver()
    sent = stream.send(images, exposure, lambda _: times.append(time.time()))
    return Series(sent, times)


def run_camera(pipe: Connection, patience: float) -> None:
    """The detector."""
    stream = DetectorStream("tcp://127.0.0.1:*", patience)
    pipe.send(stream.address)
    ready: dict[str, Any] = {}
    while (order := pipe.recv()) is not None:
        files, size, exposure = order
        if size not in ready:
            ready = {size: stream_images(files, size)}
        if exposure is None:
            pipe.send(None)
            continue
        try:
            pipe.send(_sent(stream, ready[size], exposure))
        except CannotSend as error:
            pipe.send(error)
    stream.close(at_once=True)


@contextmanager
def camera() -> Iterator[Camera]:
    """A detector in a process of its own."""
    here, there = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=run_camera, args=(there, 60.0), daemon=True)
    process.start()
    try:
        yield Camera(here)
    finally:
        here.send(None)
        process.join(10)
        process.kill()


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own and return what it returns."""
    with _CONTEXT.Pool(1) as pool:
        return pool.apply(work, arguments)


@dataclass(frozen=True)
class Alone:
    """Spotfinding on frames in memory.

    Attributes:
        seconds: CPU for one image, from what the detector sent to the nine numbers.
        results: The nine numbers of each frame.
    """

    seconds: float
    results: Sequence[dict[str, Any]]


def spotfinding_alone(files: Sequence[Path], size: str, repeat: int) -> Alone:
    """Find spots on packed frames in memory, on one thread; each frame `repeat` times, after once."""
    images = stream_images(files, size)
    decoder, buffers = FrameDecoder(images.start.header, images.start.mask), Buffers()

    def all_of_them() -> list[dict[str, Any]]:
        return [
            analyse(decoder.image(frame.data, "memory", encoding=frame.encoding, buffers=buffers)).as_dict()
            for frame in images.frames
        ]

    results = all_of_them()
    begun = time.process_time()
    for _ in range(repeat):
        all_of_them()
    return Alone((time.process_time() - begun) / repeat / len(images.frames), results)


def push(address: str, files: Sequence[Path], size: str, number: int) -> None:
    """Push messages as fast as they are taken: a bare socket."""
    images = stream_images(files, size)
    messages = [stream_v2.encode(frame) for frame in images.frames]
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.SNDHWM, 64)
        socket.setsockopt(zmq.LINGER, 60_000)
        socket.connect(address)
        for place in range(number):
            socket.send(messages[place % len(messages)], copy=False)


@contextmanager
def pushing(address: str, files: Sequence[Path], size: str, number: int) -> Iterator[None]:
    """Push messages from a process of its own."""
    process = _CONTEXT.Process(target=push, args=(address, files, size, number), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.join(60)
        process.kill()
