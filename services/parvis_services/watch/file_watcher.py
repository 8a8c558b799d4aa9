"""FileWatcher: tells the recipe of each image as it appears, in order."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from parvis.recipe.template import is_open
from parvis.service.base import Reject, Service, Step
from parvis.service.contract import Model, Outputs
from parvis_services.number_ranges import NumberRanges, Range
from parvis_services.paths import PathNotAllowed, PathRule
from parvis_services.watch.sources import (
    Hdf5Images,
    ListedFiles,
    NumberedFiles,
    Source,
    check_pattern,
    check_range,
)
from parvis_services.watch.watching import (
    FAN_OUTS,
    PatientParameters,
    WatchTimes,
    end_watch,
    tell,
    watch_outputs,
)
from parvis_services.xray.errors import ImageError, MissingImageError, UnfinishedImageError

_SLOW_STAT = 5.0


class WatchParameters(PatientParameters):
    """What to watch. Of `pattern`, `list` and `hdf5` the first that is given counts.

    Attributes:
        pattern: Path with a printf number: `/data/grid_%05d.cbf`.
        pattern_start: First number.
        pattern_end: Last number.
        files: Paths, given as `list`; a single null stands for nothing to wait for.
        hdf5: Path of an HDF5 master file, whose images are watched.
        expected_per_image_delay: Seconds that an image should take; noted in the log beside the real delay.
    """

    pattern: str | None = Field(default=None, examples=["/data/grid_%05d.cbf"])
    pattern_start: int | None = Field(default=None, alias="pattern-start", examples=[0])
    pattern_end: int | None = Field(default=None, alias="pattern-end", examples=[0])
    files: list[str | None] | None = Field(default=None, alias="list")
    hdf5: str | None = None
    expected_per_image_delay: float | None = Field(default=None, alias="expected-per-image-delay")

    @field_validator("pattern")
    @classmethod
    def _one_number(cls, value: str | None) -> str | None:
        if value is not None and not is_open(value):
            check_pattern(value)
            PathRule({}).path(value)
        return value

    @field_validator("pattern_end")
    @classmethod
    def _behind_the_start(cls, value: int | None, info: ValidationInfo) -> int | None:
        start = info.data.get("pattern_start")
        # A pattern that is wrong itself is not in the data.
        if info.data.get("pattern", "") is not None and start is not None and value is not None:
            check_range(start, value)
        return value

    @model_validator(mode="after")
    def _something_to_watch(self) -> WatchParameters:
        if self.pattern is not None:
            if self.pattern_start is None or self.pattern_end is None:
                raise ValueError("pattern needs pattern-start and pattern-end")
        elif not self.files and self.hdf5 is None:
            raise ValueError("one of pattern, list and hdf5 must say what to watch")
        return self


class WatchStatus(WatchTimes):
    """How far a watch has come.

    Attributes:
        seen: How many images were found.
        start_time: When the watch began, in seconds since 1970.
        last_seen: When the last image was found, in seconds since 1970.
    """

    seen_files: int | None = Field(default=None, alias="seen-files", ge=0)
    seen_images: int | None = Field(default=None, alias="seen-images", ge=0)

    @property
    def seen(self) -> int:
        return self.seen_files or self.seen_images or 0


class WatchPayload(Model):
    """What starts a watch, or its own checkpoint.

    Attributes:
        status: How far the watch has come.
        told: Images that the recipe was told of in another way, as ranges of their numbers, from 1: they are
            passed over.
    """

    status: WatchStatus | None = Field(default=None, alias="filewatcher-status")
    told: list[Range] = Field(default_factory=list[Range])


class WatchCount(Model):
    """How many images were expected and seen; in HDF5 mode the names end in `images`."""

    files_expected: int | None = Field(default=None, alias="files-expected")
    files_seen: int | None = Field(default=None, alias="files-seen")
    images_expected: int | None = Field(default=None, alias="images-expected")
    images_seen: int | None = Field(default=None, alias="images-seen")


class WatchEnd(WatchCount):
    """The same at the end of the watch, and whether all were seen."""

    success: bool


@dataclass
class _Watch:
    """One look at what is watched.

    Attributes:
        source: What is watched.
        start_time, last_seen: As `WatchStatus` has them.
        seen: How many images were found, those included that are passed over.
        told: Those that are passed over.
        found: How many this look has found.
        is_held: The next image is there, and nobody can be told of it yet.
        stat_seconds: How long each question for a file took.
    """

    source: Source
    start_time: float
    last_seen: float | None
    seen: int
    told: NumberRanges
    found: int = 0
    is_held: bool = False
    stat_seconds: list[float] = field(default_factory=list[float])

    @property
    def is_complete(self) -> bool:
        return self.seen == self.source.total

    def count(self) -> dict[str, Any]:
        noun = self.source.noun
        return {f"{noun}-expected": self.source.total, f"{noun}-seen": self.seen}

    def status(self) -> dict[str, Any]:
        status = {
            f"seen-{self.source.noun}": self.seen,
            "start-time": self.start_time,
            "last-seen": self.last_seen,
        }
        checkpoint: dict[str, Any] = {"filewatcher-status": status}
        return checkpoint | {"told": self.told.ranges()} if self.told else checkpoint


class FileWatcher(Service[WatchPayload, WatchParameters]):
    """Tells the recipe of each image as it appears.

    Images are looked for strictly in order, so one that is missing holds up those behind it. Between two
    looks the service sends itself a checkpoint; it keeps nothing.
    """

    name: ClassVar[str] = "FileWatcher"
    queue: ClassVar[str] = "filewatcher"
    Payload: ClassVar[type[BaseModel]] = WatchPayload
    Parameters: ClassVar[type[BaseModel]] = WatchParameters
    outputs: ClassVar[Outputs] = {**watch_outputs(WatchCount, WatchEnd), "error": None}
    fan_outs: ClassVar[tuple[str, ...]] = FAN_OUTS
    prefetch: ClassVar[int] = 1

    def process(self, payload: WatchPayload, step: Step[WatchParameters]) -> None:
        """Look once, tell of what is new, and end the watch or come back later."""
        parameters = step.parameters
        if parameters.pattern is None and parameters.files == [None]:
            step.send("finally", {"files-expected": 0, "files-seen": 0, "success": True})
            return
        stat_seconds: list[float] = []
        with self._source(parameters, stat_seconds) as source:
            if source is None:
                self._wait_for_master(payload, step)
            elif isinstance(source, ListedFiles) and not all(source.files):
                self._give_up_on_list(source, step)
            else:
                watch = self._look(source, payload, parameters, step)
                watch.stat_seconds = stat_seconds
                self._conclude(watch, parameters, step)

    @contextmanager
    def _source(self, parameters: WatchParameters, stat_seconds: list[float]) -> Iterator[Source | None]:
        """What is to be watched, or None if it is an HDF5 file that cannot be read yet."""
        try:
            source = self._open(parameters, stat_seconds)
        except (UnfinishedImageError, MissingImageError) as error:
            self.log.info("cannot be read yet: %s", error)
            yield None
            return
        except (ValueError, ImageError) as error:
            raise Reject(str(error)) from error
        try:
            yield source
        finally:
            source.close()

    def _open(self, parameters: WatchParameters, stat_seconds: list[float]) -> Source:
        rule = PathRule(self.config.storage)

        def exists(name: str) -> bool:
            rule.path(name)
            return self._exists(name, stat_seconds)

        if parameters.pattern is not None:
            start, end = parameters.pattern_start or 0, parameters.pattern_end or 0
            return NumberedFiles(parameters.pattern, start, end, exists)
        if parameters.files:
            return ListedFiles([name or "" for name in parameters.files], exists)
        master = parameters.hdf5 or ""
        rule.path(master)
        return Hdf5Images(master, rule.predicate)

    def _exists(self, name: str, stat_seconds: list[float]) -> bool:
        before = time.monotonic()
        there = os.path.isfile(name)  # noqa: PTH113 - Path.is_file raises where the answer should be no
        stat_seconds.append(time.monotonic() - before)
        if stat_seconds[-1] > _SLOW_STAT:
            self.log.warning("looking for %s took %.1f s", name, stat_seconds[-1])
        return there

    def _look(
        self,
        source: Source,
        payload: WatchPayload,
        parameters: WatchParameters,
        step: Step[WatchParameters],
    ) -> _Watch:
        """Look for the next images and tell of those that are there."""
        status = payload.status
        watch = _Watch(
            source,
            start_time=status.start_time if status else time.time(),
            last_seen=status.last_seen if status else None,
            seen=min(status.seen, source.total) if status else 0,
            told=NumberRanges(payload.told),
        )
        outputs = step.connected_outputs()
        while watch.seen < source.total and watch.found < parameters.burst_limit:
            number = watch.seen + 1
            if number not in watch.told:
                if not self._is_there(source, number):
                    break
                watch.last_seen = time.time()
                image = source.place(number) | {"file-seen-at": watch.last_seen}
                watch.is_held = not tell(step, outputs, number, source.total, image)
                if watch.is_held:
                    break
                watch.found += 1
            watch.seen = number
        return watch

    def _is_there(self, source: Source, number: int) -> bool:
        try:
            return source.is_there(number)
        except (ImageError, PathNotAllowed) as error:
            raise Reject(str(error)) from error

    def _conclude(self, watch: _Watch, parameters: WatchParameters, step: Step[WatchParameters]) -> None:
        """End the watch if it is over, else come back."""
        self._log_look(watch, parameters)
        if watch.is_complete:
            end_watch(step, watch.count(), {"success": True}, seen_any=True)
            return
        limit = parameters.limit(seen_any=watch.seen > 0)
        since = watch.start_time if watch.last_seen is None else watch.last_seen
        if not watch.found and time.time() - since > limit:
            self._time_out(watch, limit, parameters, step)
            return
        step.checkpoint(watch.status(), delay=parameters.wait(watch.found, is_held=watch.is_held))

    def _time_out(
        self, watch: _Watch, limit: float, parameters: WatchParameters, step: Step[WatchParameters]
    ) -> None:
        place = watch.source.place(watch.seen + 1)
        text = "%s did not come within %g s; %d of %d seen"
        self.log.log(parameters.timeout_level(), text, place["file"], limit, watch.seen, watch.source.total)
        step.send("timeout", place | {"success": False})
        end_watch(step, watch.count(), {"success": False}, seen_any=watch.seen > 0)

    def _wait_for_master(self, payload: WatchPayload, step: Step[WatchParameters]) -> None:
        """The HDF5 master cannot be read yet: come back, or end the watch after too long."""
        parameters = step.parameters
        status = payload.status or WatchStatus.model_validate({"start-time": time.time()})
        limit = parameters.limit(seen_any=False)
        since = status.last_seen or status.start_time
        if time.time() - since <= limit:
            again = {
                "seen-images": status.seen,
                "start-time": status.start_time,
                "last-seen": status.last_seen,
            }
            told = {"told": payload.told} if payload.told else {}
            step.checkpoint({"filewatcher-status": again, **told}, delay=parameters.wait(0))
            return
        self.log.log(parameters.timeout_level(), "%s could not be read within %g s", parameters.hdf5, limit)
        step.send("timeout", {"hdf5": parameters.hdf5, "file": parameters.hdf5, "success": False})
        step.send("finally", {"images-expected": None, "images-seen": status.seen, "success": False})

    def _give_up_on_list(self, source: ListedFiles, step: Step[WatchParameters]) -> None:
        """The list has an empty entry: nothing can be waited for."""
        empty = next(number for number, name in enumerate(source.files, start=1) if not name)
        self.log.error("entry %d of the list of files is empty", empty)
        count = {"files-expected": source.total, "files-seen": 0}
        step.send("error", {"reason": f"entry {empty} of the list of files is empty"})
        end_watch(step, count, {"success": False}, seen_any=True)

    def _log_look(self, watch: _Watch, parameters: WatchParameters) -> None:
        details: dict[str, Any] = {}
        if watch.stat_seconds:
            details["stat-time-max"] = round(max(watch.stat_seconds), 4)
            details["stat-time-mean"] = round(sum(watch.stat_seconds) / len(watch.stat_seconds), 4)
        if parameters.expected_per_image_delay is not None and watch.seen:
            expected = watch.seen * parameters.expected_per_image_delay
            details["unexpected_delay"] = round(
                (watch.last_seen or watch.start_time) - watch.start_time - expected, 3
            )
        shown = "".join(f", {key} {value} s" for key, value in details.items())
        shown += ", held back until more is handled" if watch.is_held else ""
        log = self.log.info if watch.found else self.log.debug
        log("%d of %d %s seen%s", watch.seen, watch.source.total, watch.source.noun, shown, extra=details)
