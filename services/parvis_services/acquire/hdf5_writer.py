"""HDF5Writer: a detector's stream to NeXus files, which others read while they are written."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

from parvis.config import Config, ConfigError
from parvis.recipe.problem import printable
from parvis.service.base import Reject, Service, Step
from parvis.service.contract import Anything
from parvis.service.figures import Figure
from parvis_services.acquire.event_queue import EventQueue
from parvis_services.paths import PathRule
from parvis_services.stream.decoder import StreamDecoder
from parvis_services.stream.detectors import KEY, address_of, detector_of
from parvis_services.stream.events import Event, Frame, MalformedStream
from parvis_services.stream.sources import Source, open_source

if TYPE_CHECKING:
    from parvis_services.acquire.series_writer import SeriesWriter

_DIRECTORY: Final = "hdf5-writer"
_LOOK: Final = 0.2  # seconds after which a thread looks whether it is to stop
_QUIET: Final = 0.05  # seconds without an event after which readers are shown everything
_PAUSE: Final = 1.0
_STOP_TIMEOUT: Final = 60.0


class HDF5Writer(Service[Anything, Anything]):
    """Writes what a detector sends to NeXus files (NXmx), which can be read while they are written.

    It is for the detector of `parvis.detectors` that `parvis.detector` names (or `PARVIS_DETECTOR`), and
    works by itself: it takes no messages. One thread takes what the detector sends, another one writes it;
    what waits in between is bounded by `memory`. If the disk is slow, `when_slow` says whether images are
    dropped, counted, or the stream is held up. One process a detector.
    """

    name: ClassVar[str] = "HDF5Writer"
    queue: ClassVar[str] = "hdf5writer"
    plain_messages: ClassVar[bool] = True
    isolates: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._detector, self._settings = detector_of(config)
        self._events = EventQueue(self._settings.memory * 1_000_000)
        self._stopping = threading.Event()
        self._received = self._garbage = self._lost = 0
        self._threads: list[threading.Thread] = []
        self._writer: SeriesWriter | None = None
        self._lock: int | None = None

    def start(self) -> None:
        """Begin to write.

        Raises:
            ConfigError: The configuration does not say where to, or another process writes the files of this
                detector.
        """
        from parvis_services.acquire.hdf5_place import HDF5Place
        from parvis_services.acquire.series_writer import SeriesWriter

        directory = self.config.state_directory / _DIRECTORY
        self._lock = _hold(directory / f"{self._detector}.lock")
        try:
            place = HDF5Place(self._detector, self._settings, PathRule(self.config.storage))
        except ValueError as error:
            raise ConfigError(f"{KEY}.{self._detector}.{error}") from None
        memory = directory / f"{self._detector}.json"
        writer = self._writer = SeriesWriter(self._detector, self._settings, place, memory)
        address = address_of(self._detector, self._settings)
        source = open_source(address)
        self._threads = [
            threading.Thread(target=self._receive, args=[source], name="hdf5-receiver", daemon=True),
            threading.Thread(target=self._write, args=[writer], name="hdf5-writer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self.log.info(
            "writing what %s sends over %s to %s", self._detector, address, self._settings.directory
        )

    def stop(self) -> None:
        """Take no more, write what is there, and close the files."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def doing(self) -> str:
        """What is being written."""
        summary = None if self._writer is None else self._writer.summary
        if summary is None:
            return "waiting for a series"
        of = "" if summary.dcid is None else f" of data collection {summary.dcid}"
        return f"writing series {summary.series}{of}"

    def figures(self) -> Sequence[Figure]:
        """How many images came and what became of them."""
        writer = self._writer
        written, failed, missing = (writer.written, writer.failed, writer.missing) if writer else (0, 0, 0)
        return (
            Figure("frames_received", "Images that the detector sent.", self._received, is_counter=True),
            Figure("frames_written", "Images that are in files.", written, is_counter=True),
            Figure(
                "frames_dropped",
                "Images dropped as the disk was slow.",
                self._events.dropped,
                is_counter=True,
            ),
            Figure("frames_failed", "Images that the disk did not take.", failed, is_counter=True),
            Figure("frames_missing", "Images missing at the end of a series.", missing, is_counter=True),
            Figure("messages_garbage", "Messages that cannot be read.", self._garbage, is_counter=True),
            Figure("messages_lost", "Messages lost as the ring was too small.", self._lost, is_counter=True),
            Figure("held_bytes", "Memory that images that wait take.", self._events.held_bytes),
        )

    def process(self, payload: Anything, step: Step[Anything]) -> NoReturn:  # noqa: ARG002
        """Take no messages: images come from the detector."""
        raise Reject("the HDF5 writer takes no messages; it writes what a detector sends")

    def _receive(self, source: Source) -> None:
        decoder = StreamDecoder(self._settings.channel)
        while not self._stopping.is_set():
            try:
                self._receive_one(source, decoder)
            except Exception:
                self.log.exception("the stream cannot be taken for the moment")
                self._stopping.wait(_PAUSE)
        source.close()

    def _receive_one(self, source: Source, decoder: StreamDecoder) -> None:
        """Take a message, if one comes in time."""
        parts = source.receive(_LOOK)
        lost = source.lost - self._lost
        if lost:
            self._lost += lost
            self.log.warning("%d messages were lost: the ring is too small", lost)
        if parts is None:
            return
        try:
            events = decoder.decode(parts)
        except MalformedStream as error:
            self._garbage += 1
            if (
                self._garbage.bit_count() == 1
            ):  # the first, the second, the fourth: a flood must not fill the log
                reason = printable(str(error), 300)
                self.log.warning("message %d of the stream that cannot be read: %s", self._garbage, reason)
            return
        for event in events:
            self._keep(event)

    def _keep(self, event: Event) -> None:
        """Put an event into the queue, as the settings say what to do if there is no room."""
        if isinstance(event, Frame):
            self._received += 1
        while not self._events.put(event, 0 if self._settings.when_slow == "drop" else _LOOK):
            if not isinstance(event, Frame):
                continue
            if self._settings.when_slow == "drop" or self._stopping.is_set():
                self._events.drop(event)
                return

    def _write(self, writer: SeriesWriter) -> None:
        writer.resume()
        receiver = self._threads[0]
        while True:
            event = self._events.take(_QUIET)
            try:
                if event is not None:
                    writer.handle(event)
                elif self._stopping.is_set() and not receiver.is_alive():
                    break
                else:
                    writer.idle()
            except Exception:
                self.log.exception("what came cannot be written")
        writer.stop()


def _hold(path: Path) -> int:
    """Be the only process that writes the files of a detector; return what to close in the end."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ConfigError(f"parvis.state_directory: {path} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ConfigError(
            f"another process writes the files of this detector, and only one can: {path} is locked"
        ) from None
    return lock
