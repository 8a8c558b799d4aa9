"""A simulated detector that streams its images as DECTRIS detectors do, at a given rate.

Sources: the descriptions of the SIMPLON stream interfaces V1 (legacy) and V2.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import zmq

from parvis_services.simulate.collect import Pace
from parvis_services.stream import stream_v1, stream_v2
from parvis_services.stream.events import Bytes, Event, Frame, HeaderDetail, SeriesEnd, SeriesStart

if TYPE_CHECKING:
    from parvis_services.simulate.stream_images import StreamImages

Format = Literal["v1", "v2"]

_WAITING_MESSAGES: Final = 64
"""Messages that wait here for the receiver, besides those that wait with it, before it counts as slow."""

_LATE: Final = 0.05  # s by which an image may be late where intervals are shorter than half of that
_SLOWER: Final = 0.99  # of the rate that was wanted is still that rate
_LINGER: Final = 5_000  # ms for the last messages to leave
_GARBAGE: Final[tuple[tuple[bytes, ...], ...]] = (
    (b"\xff\xfe\x00 this is no message",),
    (b"{",),
    (b"",),
    (b'{"htype":"dimage-1.0","series":1,"frame":0}',),
    (b"\xd9\xd9\xf7\xa3dtypeeimageiseries_id",),
    (b'{"htype":"dimage-1.0"}', b'{"htype":"dimage_d-1.0","shape":[1e99,-1]}', b"\x00" * 64, b"{}"),
    (b"\x9f" * 5000,),
)


class CannotSend(Exception):
    """Nobody takes the messages, or the address cannot be used; says which."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, for who wants to see what then happens.

    Attributes:
        twice, skipped: Images, numbered from 1, that are sent twice, or not at all.
        no_end: Whether the series ends without an end message.
        garbage: Whether messages that are none come between the images.
    """

    twice: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()
    no_end: bool = False
    garbage: bool = False


@dataclass(frozen=True)
class Exposure:
    """How a series is sent.

    Attributes:
        version: Stream V1, which SIMPLON calls legacy, or V2, which it calls cbor.
        detail: How much the start of the series says.
        pace: When the images come.
        repeat: How often the images are sent, one time after the other, as one series.
        series: Number of the series.
        appendix: What is sent along with the start: text, or what JSON or CBOR is made of.
        faults: What goes wrong.
    """

    version: Format = "v2"
    detail: HeaderDetail = "all"
    pace: Pace = field(default_factory=Pace)
    repeat: int = 1
    series: int = 1
    appendix: Any = None
    faults: Faults = field(default_factory=Faults)


@dataclass
class Sent:
    """What came of it.

    Attributes:
        series: Number of the series.
        images: How many images the series was to have.
        sent: How many messages with images were sent.
        twice, skipped: Images that were sent twice, and not at all.
        garbage: How many messages that are none were sent.
        ended: Whether the end of the series was told.
        seconds: From the first image to the last.
        rate_wanted: Images a second that were asked for, or None.
        rate: Images a second.
        late_seconds: By how much an image was late, at most.
        blocked_seconds: How long nothing could be sent because the receiver was slow.
        bytes: Of all messages.
    """

    series: int
    images: int
    rate_wanted: float | None
    sent: int = 0
    twice: int = 0
    skipped: int = 0
    garbage: int = 0
    ended: bool = False
    seconds: float = 0.0
    rate: float = 0.0
    late_seconds: float = 0.0
    blocked_seconds: float = 0.0
    bytes: int = 0

    @property
    def kept(self) -> bool:
        """Whether the images came at the rate that was wanted."""
        if self.rate_wanted is None or self.sent < 2:
            return True
        on_time = self.late_seconds <= max(_LATE, 2 / self.rate_wanted)
        return on_time and self.rate >= _SLOWER * self.rate_wanted

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self) | {"rate_kept": self.kept}


class DetectorStream:
    """The detector's socket: one receiver connects to it, and takes what is pushed.

    Args:
        address: Where to listen: `tcp://HOST:PORT`, `*` for any host or port, or `ipc://PATH`.
        patience: Seconds that a receiver may keep us waiting before we give up.

    Attributes:
        address: Where it is, with the port that was chosen.

    Raises:
        CannotSend: The address cannot be used.
    """

    def __init__(self, address: str, patience: float = 60.0) -> None:
        self._patience = patience
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, _WAITING_MESSAGES)
        self._socket.setsockopt(zmq.LINGER, _LINGER)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close(at_once=True)
            raise CannotSend(f"cannot listen at {address}: {error}") from None
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def wait_for_receiver(self) -> None:
        """Return when somebody has connected. Raises CannotSend if nobody does in time."""
        if not self._socket.poll(round(self._patience * 1000), zmq.POLLOUT):
            raise CannotSend(f"nobody connected to {self.address} within {self._patience:g} s")

    def send(
        self, images: StreamImages, exposure: Exposure, seen: Callable[[int], None] = lambda _: None
    ) -> Sent:
        """Send a series. An interruption (Ctrl-C) ends it as an abort ends a detector's, with an end message.

        Args:
            images: What it has.
            exposure: How it is sent.
            seen: Called with the number of each image (from 1) when it is sent.

        Raises:
            CannotSend: The receiver takes nothing any more.
        """
        number = len(images.frames) * exposure.repeat
        sent = Sent(exposure.series, number, exposure.pace.rate)
        unique_id = uuid.uuid4().hex.upper()
        self._put(_encoded(_start(images, exposure, unique_id), exposure), sent)
        end = _encoded(SeriesEnd(exposure.series, unique_id), exposure)
        try:
            self._send_images(images, exposure, unique_id, sent, seen)
        except KeyboardInterrupt:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.send_multipart(end, zmq.NOBLOCK)
            raise
        if not exposure.faults.no_end:
            self._put(end, sent)
            sent.ended = True
        return sent

    def _send_images(
        self,
        images: StreamImages,
        exposure: Exposure,
        unique_id: str,
        sent: Sent,
        seen: Callable[[int], None],
    ) -> None:
        garbage: Iterator[tuple[bytes, ...]] = iter(_GARBAGE if exposure.faults.garbage else ())
        began = last = None
        for number, due in zip(range(1, sent.images + 1), exposure.pace.times(), strict=False):
            frame = _frame(images, number, exposure, unique_id)
            messages = _messages(frame, number, exposure, sent)
            began = time.monotonic() if began is None else began
            time.sleep(max(0.0, began + due - time.monotonic()))
            sent.late_seconds = max(sent.late_seconds, time.monotonic() - began - due)
            for message in messages:
                self._put(message, sent)
                last = time.monotonic()
            seen(number)
            if (nonsense := next(garbage, None)) is not None:
                self._put(nonsense, sent)
                sent.garbage += 1
        if began is not None and last is not None and sent.images > 1:
            sent.seconds = last - began
            sent.rate = (sent.images - 1) / max(sent.seconds, 1e-9)

    def _put(self, parts: Sequence[Bytes], sent: Sent) -> None:
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self._put_later(parts, sent)
        sent.bytes += sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)

    def _put_later(self, parts: Sequence[Bytes], sent: Sent) -> None:
        began = time.monotonic()
        if not self._socket.poll(round(self._patience * 1000), zmq.POLLOUT):
            raise CannotSend(f"the receiver at {self.address} took nothing for {self._patience:g} s")
        self._socket.send_multipart(parts, copy=False)
        sent.blocked_seconds += time.monotonic() - began

    def close(self, *, at_once: bool = False) -> None:
        """Let go of the socket, when what was sent has left or after 5 s, or at once."""
        self._socket.close(0 if at_once else None)
        self._context.term()


def _start(images: StreamImages, exposure: Exposure, unique_id: str) -> SeriesStart:
    header = replace(images.start.header, images=len(images.frames) * exposure.repeat)
    if exposure.pace.rate:
        period = 1 / exposure.pace.rate
        header = replace(header, frame_time=period, count_time=min(period, header.count_time or period))
    return replace(
        images.start, series=exposure.series, unique_id=unique_id, header=header, appendix=exposure.appendix
    )


def _frame(images: StreamImages, number: int, exposure: Exposure, unique_id: str) -> Frame:
    """The image of that number, from 1."""
    period = 1 / exposure.pace.rate if exposure.pace.rate else 0.0
    frame = images.frames[(number - 1) % len(images.frames)]
    times = {"start_time": (number - 1) * period, "stop_time": number * period, "real_time": period}
    return replace(frame, series=exposure.series, unique_id=unique_id, number=number - 1, **times)


def _messages(frame: Frame, number: int, exposure: Exposure, sent: Sent) -> list[Sequence[Bytes]]:
    """The messages that tell of an image: one, or as many as the faults want."""
    if number in exposure.faults.skipped:
        sent.skipped += 1
        return []
    messages = [_encoded(frame, exposure)]
    if number in exposure.faults.twice:
        sent.twice += 1
        messages *= 2
    sent.sent += len(messages)
    return messages


def _encoded(event: Event, exposure: Exposure) -> Sequence[Bytes]:
    if exposure.version == "v1":
        return stream_v1.encode(event, detail=exposure.detail)
    return [stream_v2.encode(event, detail=exposure.detail)]
