"""The receiver: takes a detector's stream into a ring in memory, from where all who need it read it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

from parvis.config import Config, ConfigError
from parvis.service.base import Reject, Service, Step
from parvis.service.contract import Anything
from parvis.service.figures import Figure
from parvis_services.stream.decoder import is_start
from parvis_services.stream.detectors import KEY, detector_of
from parvis_services.stream.ring import RingError, RingWriter
from parvis_services.stream.sources import SourceError, open_source

if TYPE_CHECKING:
    from parvis_services.stream.events import Bytes

_LOOK_UP: Final = 0.2  # s after which to see whether to stop
_TRY_AGAIN: Final = 1.0  # s
_QUIET: Final = 2.0  # s without a message after which it waits for a series
_STOP_TIMEOUT: Final = 10.0


class StreamReceiver(Service[Anything, Anything]):
    """Takes the stream of a detector into a ring in shared memory, so that several services can read it and
    none of them holds up the detector.

    The detector is the one that `parvis.detector` names, or the only one of `parvis.detectors`; it must have
    a `ring`. A detector that pushes its messages must have one receiver, as two would share them out. What
    readers are too slow for is written over. A receiver that was killed is followed by one that goes on in
    the same ring. It takes no messages.
    """

    name: ClassVar[str] = "StreamReceiver"
    queue: ClassVar[str] = "stream_receiver"
    plain_messages: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._detector, self._settings = detector_of(config)
        if self._settings.ring is None:
            raise ConfigError(
                f"{KEY}.{self._detector} has no ring for the receiver to fill: add `ring: {{}}`"
            )
        self._ring_settings = self._settings.ring
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._messages = self._bytes = self._refused = 0
        self._last = 0.0  # when a message came, on the monotonic clock
        self._problem = ""

    def start(self) -> None:
        """Make the ring, or go on in the one that is there; then begin to take the stream.

        Raises:
            ConfigError: The ring cannot be made, or another receiver has it.
        """
        wanted = self._ring_settings
        name, slot = wanted.name or self._detector, int(wanted.slot_megabytes * 1_000_000)
        try:
            ring = RingWriter(name, wanted.slots, slot, wanted.group)
        except RingError as error:
            raise ConfigError(f"{KEY}.{self._detector}.ring: {error}") from None
        self._thread = threading.Thread(target=self._run, args=[ring], name="stream", daemon=True)
        self._thread.start()
        self.log.info("taking %s from %s into ring %s", self._detector, self._settings.stream, name)

    def stop(self) -> None:
        """Let go of the stream, and take the ring away; who reads it reads it to the end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT)

    def process(self, payload: Anything, step: Step[Anything]) -> NoReturn:  # noqa: ARG002
        """Take no messages: images come from the detector."""
        raise Reject("the receiver takes no messages; it takes the stream of a detector")

    def doing(self) -> str:
        """Whether images come."""
        return "receiving" if self._last and time.monotonic() - self._last < _QUIET else "waiting for images"

    def figures(self) -> Sequence[Figure]:
        """What came."""
        return (
            Figure(
                "stream_messages", "Messages that came from the detector.", self._messages, is_counter=True
            ),
            Figure("stream_bytes", "Bytes of them.", self._bytes, is_counter=True),
            Figure("stream_refused", "Messages too large for the ring.", self._refused, is_counter=True),
        )

    def _run(self, ring: RingWriter) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._receive(ring)
                except SourceError as error:
                    self._complain(str(error))
                except Exception:
                    self.log.exception("the stream of %s", self._detector)
                self._stopping.wait(_TRY_AGAIN)
        finally:
            ring.close(remove=True)

    def _receive(self, ring: RingWriter) -> None:
        source = open_source(self._settings.stream)
        try:
            while not self._stopping.is_set():
                parts = source.receive(_LOOK_UP)
                if parts is not None:
                    self._take(ring, parts)
        finally:
            source.close()

    def _take(self, ring: RingWriter, parts: Sequence[Bytes]) -> None:
        self._last = time.monotonic()
        self._messages += 1
        self._bytes += sum(memoryview(part).nbytes for part in parts)
        try:
            ring.write(parts, keep=is_start(parts))
        except RingError as error:
            self._refused += 1
            self._complain(str(error))

    def _complain(self, problem: str) -> None:
        """Say what is wrong, once as long as it is the same."""
        if problem != self._problem:
            self._problem = problem
            self.log.error("%s", problem)
