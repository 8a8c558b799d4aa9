"""CephWriter: takes a detector's stream, puts each image into an object store, and tells recipes of it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import BaseModel

from parvis.config import Config, ConfigError
from parvis.service.base import Reject, Service, Step
from parvis.service.contract import Outputs
from parvis.service.figures import Figure
from parvis_services.acquire.journal import BadCursor
from parvis_services.acquire.recipe_starter import RecipeStarter
from parvis_services.acquire.series_record import SeriesRecord, StoredImage
from parvis_services.acquire.stream_to_store import StreamToStore
from parvis_services.acquire.writer_messages import (
    ImageStored,
    SeriesCount,
    SeriesLate,
    SeriesOver,
    WriterParameters,
    WriterPayload,
    WriterStatus,
)
from parvis_services.number_ranges import NumberRanges, Range
from parvis_services.stream.detectors import detector_of
from parvis_services.watch.selection import outputs_for
from parvis_services.watch.watching import FAN_OUTS, end_watch, tell

_DIRECTORY: Final = "cephwriter"
_TURN: Final = 1.0  # seconds in which every recipe that waits gets its turn
_GATHER: Final = 0.005  # seconds in which more images may come that leave together with the first
_HELD_WAIT: Final = 0.5
_ASIDE: Final = (
    0.25  # seconds for which recipes of other data collections leave the way to the one that goes on
)
_AT_THE_END: Final = ("last", "select-")
_MOST_RECIPES: Final = 10_000


@dataclass
class _Watch:
    """A recipe's look at a series; `found` and what follows are of this look alone.

    Attributes:
        found: Of how many images it was told.
        is_held: There are more, and nobody can be told of them yet.
        is_cut: There are more.
        is_through: There will be no more.
    """

    status: WriterStatus
    record: SeriesRecord | None
    found: int = 0
    is_held: bool = False
    is_cut: bool = False
    is_through: bool = False

    def count(self) -> dict[str, Any]:
        expected = self.record.facts.expected if self.record else None
        return {"images-expected": expected, "images-seen": self.status.told}


class CephWriter(Service[WriterPayload, WriterParameters]):
    """Puts the images of a detector into an object store as they come, and tells recipes of them.

    One process for each detector of `parvis.detectors` takes its stream. A recipe is attached to a data
    collection, before, during or after its series, and is told of each image once the store has confirmed it.
    How far it is stands in the checkpoint that the service sends itself, together with all that leaves: so a
    recipe is told of each image once, whatever happens to the service. At the end of a series the store gets
    a manifest, which says what is missing and why.
    """

    name: ClassVar[str] = "CephWriter"
    queue: ClassVar[str] = "cephwriter"
    Payload: ClassVar[type[BaseModel]] = WriterPayload
    Parameters: ClassVar[type[BaseModel]] = WriterParameters
    outputs: ClassVar[Outputs] = {
        "first": ImageStored,
        "every": ImageStored,
        "last": ImageStored,
        "#": ImageStored,
        "every-#": ImageStored,
        "select-#": ImageStored,
        "any": SeriesCount,
        "finally": SeriesOver,
        "timeout": SeriesLate,
    }
    fan_outs: ClassVar[tuple[str, ...]] = FAN_OUTS
    prefetch: ClassVar[int] = 1
    isolates: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._writer: StreamToStore | None = None
        self._starter: RecipeStarter | None = None
        self._turns: OrderedDict[str, float] = OrderedDict()  # recipes, and when they last had their turn
        self._told = 0

    def start(self) -> None:
        """Take the stream."""
        name, settings = detector_of(self.config)
        if settings.store is None:
            raise ConfigError(f"parvis.detectors.{name}: store must say where images go")
        directory = self.config.state_directory / _DIRECTORY / name
        self._writer = StreamToStore(name, settings, self.config.storage, directory, self.log)
        self._writer.start()
        if settings.recipes:
            self._starter = RecipeStarter(self.config, self._writer, self.log)
            self._starter.start()
        self.log.info("storing the images of %s in %s", name, settings.store)

    def stop(self) -> None:
        """Take no more of the stream, and store what is in memory."""
        if self._starter is not None:
            self._starter.stop()
        if self._writer is not None:
            self._writer.stop()

    def doing(self) -> str:
        """As of `Service`."""
        return self._writer.state if self._writer else ""

    def figures(self) -> Sequence[Figure]:
        """As of `Service`."""
        if self._writer is None:
            return ()
        told = Figure("frames_told", "Images that recipes were told of", self._told, is_counter=True)
        return (*self._writer.figures(), told)

    def process(self, payload: WriterPayload, step: Step[WriterParameters]) -> None:
        """Tell a recipe of what is new, and end its watch or come back."""
        writer = self._writer
        assert writer is not None  # noqa: S101 - it has been started
        status = payload.status or WriterStatus.model_validate({"start-time": time.time()})
        self._wait(writer, status, step)
        known = writer.news.epoch, writer.news.count
        record = self._record(writer, status, step.parameters.dcid)
        watch = _Watch(status, record)
        if record is not None:
            status.series = record.name
            writer.pins.keep(record, step.recipe_id)
            self._tell(writer, watch, record, step)
        status.known = ("", 0) if watch.is_cut or watch.is_held else known
        self._conclude(writer, watch, step)

    def _wait(self, writer: StreamToStore, status: WriterStatus, step: Step[WriterParameters]) -> None:
        """Wait for news, if the recipe knows all there is, for as long as the others can spare."""
        now = time.monotonic()
        turn = f"{step.recipe_id} {step.node}"
        self._turns[turn] = now
        self._turns.move_to_end(turn)
        while len(self._turns) > _MOST_RECIPES or now - next(iter(self._turns.values())) > 4 * _TURN:
            self._turns.popitem(last=False)
        epoch, seen = status.known
        if epoch == writer.news.epoch and seen == writer.news.count:
            came = writer.news.wait(seen, _TURN / len(self._turns))
            if came and writer.is_busy:
                time.sleep(_GATHER)

    def _record(self, writer: StreamToStore, status: WriterStatus, dcid: int) -> SeriesRecord | None:
        """The series that a recipe is with, or is to be with; None if there is none yet, or not any more."""
        record = writer.shelf.named(status.series) if status.series else writer.shelf.of(dcid)
        if record is not None and record.dcid != dcid:
            raise Reject(f"series {record.name} is not of data collection {dcid}")
        return record

    def _tell(
        self, writer: StreamToStore, watch: _Watch, record: SeriesRecord, step: Step[WriterParameters]
    ) -> None:
        """Tell of the images that are stored and that the recipe does not know, as far as there is room."""
        is_closed = record.is_closed  # what is stored is in the journal before that
        if not record.is_ready:
            return
        status, expected = watch.status, record.facts.expected
        outputs = [one for one in step.connected_outputs() if expected or not one.startswith(_AT_THE_END)]
        try:
            for entry, cursor in record.journal.entries(status.cursor):
                image = StoredImage.of(entry)
                if image is not None:
                    watch.is_cut = watch.found >= step.parameters.burst_limit
                    if watch.is_cut:
                        return
                    payload = writer.payload_of(record, image)
                    if not tell(step, outputs, image.number, expected or 0, payload):
                        watch.is_held = True
                        return
                    watch.found += 1
                    status.told += 1
                    status.last_seen = time.time()
                status.cursor = cursor
        except BadCursor as error:
            raise Reject(str(error)) from error
        watch.is_through = is_closed

    def _conclude(self, writer: StreamToStore, watch: _Watch, step: Step[WriterParameters]) -> None:
        """End the watch if it is over, else come back."""
        self._told += watch.found
        if watch.found:
            held = ", held back until more is handled" if watch.is_held else ""
            self.log.debug("told of %d images, %d in all%s", watch.found, watch.status.told, held)
        if watch.is_through and watch.record is not None:
            self._tell_at_the_end(writer, watch.record, step)
            self._end(writer, watch, step)
        elif not watch.found and not watch.is_held and self._is_late(watch, step):
            self._end(writer, watch, step)
        else:
            self._come_back(writer, watch, step)

    def _come_back(self, writer: StreamToStore, watch: _Watch, step: Step[WriterParameters]) -> None:
        if watch.is_held:
            watch.status.last_seen = time.time()
        is_aside = writer.is_busy and (watch.record is None or watch.record.is_closed)
        least = _HELD_WAIT if watch.is_held else _ASIDE if is_aside else 0
        status = watch.status.model_dump(by_alias=True)
        step.checkpoint({"cephwriter-status": status}, delay=max(step.parameters.burst_wait or 0, least))

    def _tell_at_the_end(
        self, writer: StreamToStore, record: SeriesRecord, step: Step[WriterParameters]
    ) -> None:
        """Tell those who want the last image, or some evenly spread, when only now it is known which."""
        outputs = [one for one in step.connected_outputs() if one.startswith(_AT_THE_END)]
        if record.facts.expected or not outputs:
            return
        for entry, _ in record.journal.entries():
            image = StoredImage.of(entry)
            if image is not None:
                for output in outputs_for(image.number, record.highest, outputs):
                    step.send(output, writer.payload_of(record, image))

    def _is_late(self, watch: _Watch, step: Step[WriterParameters]) -> bool:
        """Tell of a time-out if something has been waited for too long."""
        parameters, status, record = step.parameters, watch.status, watch.record
        is_going_on = record is not None and record.first_seen is not None
        limit = parameters.limit(seen_any=is_going_on)
        since = max(status.start_time, status.last_seen or 0, record.last_seen if record else 0)
        if time.time() - since <= limit:
            return False
        what = "an image" if record is not None else "a series"
        text = "%s of data collection %d did not come within %g s; %d images told of"
        self.log.log(parameters.timeout_level(), text, what, parameters.dcid, limit, status.told)
        step.send("timeout", {**watch.count(), "dcid": parameters.dcid, "success": False})
        return True

    def _end(self, writer: StreamToStore, watch: _Watch, step: Step[WriterParameters]) -> None:
        """Tell that it is over."""
        record, status = watch.record, watch.status
        if record is not None:
            writer.pins.keep(record, step.recipe_id, is_over=True)
        missing = record.missing() if record else []
        is_whole = record is not None and (bool(record.facts.expected) or record.ended == "end message")
        result = {
            "success": watch.is_through and is_whole and not missing and status.told > 0,
            "manifest": writer.manifest_url(record) if record else None,
            "missing": missing,
            "dropped": record.dropped() if record else [],
            "told": _told(record, status.cursor) if record else [],
        }
        end_watch(step, watch.count(), result, seen_any=status.told > 0)


def _told(record: SeriesRecord, cursor: int) -> list[Range]:
    """Numbers of the images that a recipe knows of that has read a journal so far."""
    told = NumberRanges()
    for entry, end in record.journal.entries():
        if end > cursor:
            break
        image = StoredImage.of(entry)
        if image is not None:
            told.add(image.number)
    return told.ranges()
