"""From a detector's stream to the store: takes messages, and has their images stored without waiting."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from parvis.service.figures import Figure
from parvis_services.acquire.frame_queue import FrameQueue, HeldFrame
from parvis_services.acquire.keeper import Keeper, shown
from parvis_services.acquire.news import News
from parvis_services.acquire.series_pins import SeriesPins
from parvis_services.acquire.series_record import Facts, SeriesRecord, StoredImage
from parvis_services.acquire.series_shelf import SeriesShelf
from parvis_services.acquire.uploader import Trouble, Uploaders
from parvis_services.acquire.writer_store import WriterStore
from parvis_services.number_ranges import NumberRanges
from parvis_services.stores.layout import LAST_NUMBER
from parvis_services.stores.manifest import Ended
from parvis_services.stores.series_header import dump_header
from parvis_services.stream.addresses import RING
from parvis_services.stream.dcid import dcid_of
from parvis_services.stream.decoder import StreamDecoder
from parvis_services.stream.detectors import DetectorSettings, address_of
from parvis_services.stream.events import Bytes, Frame, MalformedStream, SeriesEnd, SeriesStart
from parvis_services.stream.sources import Source, SourceError, open_source

_MEGABYTE: Final = 1_000_000
_TICK: Final = 0.1
_ARMED: Final = 3600.0  # seconds that a series may wait for its first image
_MOST_TOLD: Final = 100
_REOPEN: Final = 2.0
_MEASURE_EVERY: Final = 2.0
_LAST_MESSAGE: Final = 1.0  # seconds that it may take


class StreamToStore:
    """Stores the images of a detector.

    Args:
        name: Of the detector.
        settings: What the site says of it.
        storage: The `storage` of the configuration.
        directory: For the journals.
        log: Where to say what happens.

    Raises:
        ConfigError: The store or the directory cannot be used.

    Attributes:
        news: Told of every image that is stored, and every series that begins, is ready or closed.
        shelf: The series.
        pins: Keeps those from expiring that are analysed.
    """

    def __init__(
        self,
        name: str,
        settings: DetectorSettings,
        storage: Mapping[str, Any],
        directory: Path,
        log: logging.Logger,
    ) -> None:
        self.news = News()
        self.log = log
        self._settings = settings
        self._address = address_of(name, settings)
        self._store = WriterStore(settings.store or "", storage)
        self.shelf = SeriesShelf(directory, log)
        self.pins = SeriesPins(self._store.writer, log)
        self._frames = FrameQueue(settings.memory * _MEGABYTE)
        self._trouble = Trouble(log)
        self._keeper = Keeper(self.shelf, self._store, self.news, self._trouble, log)
        self._uploaders = Uploaders(
            self._frames, self._store, settings.uploaders, self.news, self._trouble, log
        )
        self._decoder = StreamDecoder(settings.channel)
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._said: deque[object] = deque(maxlen=_MOST_TOLD)
        self._stopping = threading.Event()
        self._is_draining = self._is_replay = False
        self._received_at = self._look_at = -math.inf
        self._rate = 0.0  # bytes a second
        self._measured = (time.monotonic(), 0)
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)

    def start(self) -> None:
        """Begin to take the stream."""
        self._keeper.start()
        self.pins.start()
        self._uploaders.start()
        self._thread.start()

    def stop(self) -> None:
        """Take no more, store what is in memory in the time that there is for it, and end."""
        deadline = time.monotonic() + self._settings.drain
        self._is_draining = True
        self._stopping.set()
        self._thread.join(_LAST_MESSAGE)
        self._drop_all(self._uploaders.stop(max(0.0, deadline - time.monotonic())))
        self._keeper.stop(max(_TICK, deadline - time.monotonic()))
        self.pins.stop()
        self.shelf.close()
        self._store.close()

    @property
    def is_busy(self) -> bool:
        """Whether images come, or wait to be stored."""
        return time.monotonic() - self._received_at < 1 or len(self._frames) > 0

    def payload_of(self, record: SeriesRecord, image: StoredImage) -> dict[str, Any]:
        """What recipes are told of an image."""
        return {
            "file": str(self._store.writer.url(record.place.bucket, record.place.frame(image.number))),
            "file-number": image.number,
            "file-seen-at": image.at,
            "file-received-at": image.received,
            "size": image.size,
            "etag": image.etag,
        }

    def manifest_url(self, record: SeriesRecord) -> str:
        """Where the manifest of a series is, or will be."""
        return str(self._store.writer.url(record.place.bucket, record.place.manifest))

    @property
    def state(self) -> str:
        """What it is doing: `idle`, `receiving`, `draining`, or `error` while the store fails."""
        if self._trouble:
            return "error"
        if self._is_draining:
            return "draining"
        return "receiving" if self.is_busy else "idle"

    def figures(self) -> Sequence[Figure]:
        """How it gets on."""
        uploaders = self._uploaders
        counts = dict(self._counts)
        return (
            *(Figure(name, about, counts[name], is_counter=True) for name, about in _COUNTERS.items()),
            Figure("frames_stored", "Images that the store has confirmed", uploaders.stored, is_counter=True),
            Figure("stored_bytes", "Size of those", uploaders.bytes, is_counter=True),
            Figure("stored_bytes_per_second", "Of the last seconds", round(self._rate)),
            Figure("puts", "How often the store was given an image", uploaders.puts, is_counter=True),
            Figure("put_seconds", "How long that took in all", round(uploaders.seconds, 3), is_counter=True),
            Figure("pins_failed", "Pins that the store did not take", self.pins.failed, is_counter=True),
            Figure("frames_held", "Images in memory", len(self._frames)),
            Figure("held_bytes", "Size of those", self._frames.held_bytes),
            Figure(
                "oldest_frame_seconds", "Age of the oldest of those", round(self._frames.age(time.time()), 3)
            ),
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with contextlib.closing(open_source(self._address)) as source:
                    # What a ring still has of a series comes again then.
                    self._is_replay = self._address.startswith(RING)
                    self._listen(source)
            except SourceError as error:
                self._say(f"the stream {self._address} cannot be taken for now: {error}", str(error))
                self._stopping.wait(_REOPEN)
            except Exception:
                self.log.exception("the stream %s cannot be taken; trying again", self._address)
                self._stopping.wait(_REOPEN)

    def _listen(self, source: Source) -> None:
        lost = 0
        while not self._stopping.is_set():
            parts = source.receive(_TICK)
            if parts is not None:
                self._received_at = time.monotonic()
                self._take(parts)
            if source.lost != lost:
                self.log.error("%d messages of the stream passed unread", source.lost - lost)
                self._counts["messages_lost"] += source.lost - lost
                lost = source.lost
            if parts is None or time.monotonic() > self._look_at:
                self._end_the_silent()
            self._measure()

    def _measure(self) -> None:
        """Work out how much is stored in a second, now and then."""
        now, stored = time.monotonic(), self._uploaders.bytes
        then, before = self._measured
        if now - then >= _MEASURE_EVERY:
            self._rate = (stored - before) / (now - then)
            self._measured = now, stored

    def _take(self, parts: Sequence[Bytes]) -> None:
        """Take a message; whatever it holds, the next one is taken."""
        try:
            events = self._decoder.decode(parts)
        except MalformedStream as error:
            self._garbage(str(error))
            return
        for event in events:
            try:
                match event:
                    case SeriesStart():
                        self._begin(event)
                    case Frame():
                        self._receive(event)
                    case SeriesEnd():
                        self._end(event)
            except (ValueError, TypeError) as error:
                self._garbage(str(error))
            except OSError as error:
                self._say(f"the journal cannot be written: {error.strerror}", error.errno)
                self._counts["frames_dropped"] += isinstance(event, Frame)

    def _garbage(self, reason: str) -> None:
        self._counts["messages_unreadable"] += 1
        self._say(f"a message of the stream cannot be read: {reason}", reason)
        in_hand = [record for record in self.shelf.in_hand() if record.ended is None]
        if in_hand:
            with contextlib.suppress(OSError):
                in_hand[-1].garbage()

    def _begin(self, start: SeriesStart) -> None:
        dcid = dcid_of(start, self._settings.dcid_keys)
        header = _header(start, dcid or 0, self._settings)
        digest = blake2b(header, digest_size=16).hexdigest()
        known = self.shelf.known_as(start.series, start.unique_id)
        if known is not None and known.dcid == dcid and self._is_same(known, start, digest):
            self.log.info("series %d begins once more: it is %s", start.series, known.name)
            return
        self._end_all("next series")
        if dcid is None:
            self.log.warning(
                "series %d is not stored: nothing that was sent with it says which data collection it is of",
                start.series,
            )
            self._said.append((start.series, start.unique_id))
            return
        settings, images = self._settings, start.header.images
        facts = Facts(
            series=start.series,
            unique_id=start.unique_id,
            expected=images if images is not None and 0 <= images <= LAST_NUMBER else None,
            started=time.time(),
            layout=settings.layout,
            bucket=settings.bucket or "",
            prefix=settings.prefix,
            has_mask=start.mask is not None,
            digest=digest,
            recipes=settings.recipes,
        )
        self.shelf.begin(dcid, facts, lambda record: self._keeper.keep(record, header, start.mask))
        self.log.info("series %d of data collection %d begins", start.series, dcid)
        self.news.tell()

    def _is_same(self, known: SeriesRecord, start: SeriesStart, digest: str) -> bool:
        """Whether a series that has the number of a known one is that one."""
        if start.unique_id is not None:
            return True
        # A ring shows the last series again; a detector that begins it again was switched off meanwhile.
        if self._address.startswith(RING):
            return known.facts.digest == digest
        return known.ended is None and known.first_seen is None

    def _receive(self, frame: Frame) -> None:
        self._counts["frames_received"] += 1
        record = self.shelf.known_as(frame.series, frame.unique_id)
        if record is None:
            self._counts["frames_unknown"] += 1
            self._say(
                f"images of series {frame.series} are not stored: its beginning was not seen",
                (frame.series, frame.unique_id),
            )
            return
        number, now = frame.number + 1, time.time()
        if not 1 <= number <= LAST_NUMBER:
            raise ValueError(f"an image has the number {number}, and only {LAST_NUMBER} can be stored")
        if not record.receive(number, now):
            if not self._is_replay:
                self._counts["frames_again"] += 1
                record.again()
            return
        self._is_replay = False
        held = HeldFrame(record, frame, now)
        if not self._frames.fits(held.size):
            self._say(f"an image of {held.size} bytes is larger than the memory for all", "too large")
        elif self._hold(held):
            return
        self._drop(record, number)

    def _hold(self, held: HeldFrame) -> bool:
        if self._frames.put(held):
            return True
        if self._settings.when_slow == "drop":
            return False
        while not self._stopping.is_set():
            if self._frames.put(held, _TICK):
                return True
        return False

    def _drop(self, record: SeriesRecord, number: int) -> None:
        self._counts["frames_dropped"] += 1
        with contextlib.suppress(OSError):
            record.drop(number)

    def _drop_all(self, frames: Sequence[HeldFrame]) -> None:
        """Drop images for whose storing no time is left, and say which."""
        dropped: dict[str, NumberRanges] = {}
        for held in frames:
            self._drop(held.record, held.number)
            dropped.setdefault(held.record.name, NumberRanges()).add(held.number)
        for name, numbers in dropped.items():
            text = "%d images of %s are dropped, as they are not stored yet: %s"
            self.log.warning(text, len(numbers), name, shown(numbers.ranges()))

    def _end(self, end: SeriesEnd) -> None:
        record = self.shelf.known_as(end.series, end.unique_id)
        if record is not None and record.ended is None:
            record.end("end message")
            self.news.tell()

    def _end_all(self, how: Ended) -> None:
        for record in self.shelf.in_hand():
            if record.ended is None:
                record.end(how)
        self.news.tell()

    def _end_the_silent(self) -> None:
        """End series of which nothing has come for too long, whatever else comes."""
        self._look_at = time.monotonic() + _TICK
        for record in self.shelf.in_hand():
            limit = self._settings.series_timeout if record.first_seen else _ARMED
            if record.ended is None and record.silence > limit:
                self.log.warning("series %s ended without a word: nothing came for %g s", record.name, limit)
                with contextlib.suppress(OSError):
                    record.end("time-out")
                self.news.tell()

    def _say(self, text: str, about: object) -> None:
        """Say what is wrong, once."""
        if about not in self._said:
            self._said.append(about)
            self.log.error("%s", text)


def _header(start: SeriesStart, dcid: int, settings: DetectorSettings) -> bytes:
    """The object `header`, with what the site knows of the detector; without what has no form in JSON."""
    told = replace(start, header=settings.geometry.completed(start.header))
    try:
        return dump_header(told, dcid, settings.layout)
    except (TypeError, ValueError):
        return dump_header(replace(told, appendix=None, config={}), dcid, settings.layout)


_COUNTERS: Final = {
    "frames_received": "Images that came from the detector",
    "frames_dropped": "Images that were not kept, as the store was too slow or away",
    "frames_again": "Images that came again",
    "frames_unknown": "Images of series without a beginning or a DCID",
    "messages_unreadable": "Messages of the stream that cannot be read",
    "messages_lost": "Messages of the stream that passed unread",
}
