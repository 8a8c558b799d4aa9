"""ObjectWatcher: tells the recipe of images in a store: those that come, all, or what it was not told of."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from pydantic import BaseModel

from parvis.config import Config
from parvis.service.base import Reject, Retry, Service, Step
from parvis.service.contract import Outputs
from parvis_services.number_ranges import NumberRanges, Range
from parvis_services.stores.manifest import BadManifest, Manifest
from parvis_services.stores.profiles import StoreNotConfigured, Stores, profile_of, scheme_of
from parvis_services.stores.store import NoSuchObject, StoreError, StoreUnavailable
from parvis_services.stores.url import BadUrl, ObjectUrl
from parvis_services.watch.object_messages import (
    ImagesMissing,
    ObjectCount,
    ObjectEnd,
    ObjectParameters,
    ObjectPayload,
    ObjectStatus,
)
from parvis_services.watch.object_source import StoredImages, highest_number
from parvis_services.watch.watching import FAN_OUTS, end_watch, tell, watch_outputs

_STRETCH: Final = 1000  # numbers: what one page of a listing holds at most
_AGAIN: Final = 1.0  # seconds until a store that does not answer is asked again, the first time


@dataclass
class _Watch:
    """A watch: `ObjectStatus` in hand. `found` and `is_held` are of this look alone."""

    images: StoredImages
    first: int
    last: int
    seen: NumberRanges
    told: int
    looked: int
    start_time: float
    last_seen: float | None
    found: int = 0
    is_held: bool = False

    @property
    def total(self) -> int:
        return self.last - self.first + 1

    @property
    def is_complete(self) -> bool:
        return len(self.seen) == self.total

    def gap(self, end: int) -> tuple[int, int] | None:
        """The next stretch that holds gaps, from behind `looked` up to `end`, no longer than a page."""
        stretch = None
        for begin, stop in self.seen.gaps(max(self.first, self.looked + 1), end):
            first = begin if stretch is None else stretch[0]
            if begin >= first + _STRETCH:
                break
            stretch = first, min(stop, first + _STRETCH - 1)
        return stretch

    def known_in(self, first: int, last: int) -> int:
        """How many images of a stretch were seen."""
        return last - first + 1 - sum(end - begin + 1 for begin, end in self.seen.gaps(first, last))

    def missing(self) -> list[Range]:
        return list(self.seen.gaps(self.first, self.last))

    def count(self) -> dict[str, Any]:
        return {"images-expected": self.total, "images-seen": len(self.seen)}

    def status(self) -> dict[str, Any]:
        status = {
            "objects": str(self.images.place),
            "first": self.first,
            "last": self.last,
            "seen": self.seen.ranges(),
            "told": self.told,
            "looked": self.looked,
            "start-time": self.start_time,
            "last-seen": self.last_seen,
        }
        return {"objectwatcher-status": status}


class ObjectWatcher(Service[ObjectPayload, ObjectParameters]):
    """Tells the recipe of the images in a store.

    It waits for them as FileWatcher does; or sends all that are there (`list-all`); or those of a series that
    the recipe was not told of (`manifest`). Images are sent in the order in which listings show them, so one
    that is missing does not hold up the others; their numbers say which they are. Between two looks the
    service sends itself a checkpoint; it keeps nothing.
    """

    name: ClassVar[str] = "ObjectWatcher"
    queue: ClassVar[str] = "objectwatcher"
    Payload: ClassVar[type[BaseModel]] = ObjectPayload
    Parameters: ClassVar[type[BaseModel]] = ObjectParameters
    outputs: ClassVar[Outputs] = {**watch_outputs(ObjectCount, ObjectEnd), "missing": ImagesMissing}
    fan_outs: ClassVar[tuple[str, ...]] = FAN_OUTS
    prefetch: ClassVar[int] = 1

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._stores = Stores("read", config.storage)

    def stop(self) -> None:
        """Let go of connections to stores."""
        self._stores.close()

    def process(self, payload: ObjectPayload, step: Step[ObjectParameters]) -> None:
        """Look once, tell of what is new, and end the watch or come back later."""
        parameters = step.parameters
        try:
            watch = self._begin(payload, parameters)
            if watch is None:
                self._end_without_series(payload, step)
                return
            is_over = self._look(watch, step)
        except StoreUnavailable as error:
            raise Retry(str(error), after=_AGAIN) from error
        except (StoreError, StoreNotConfigured, BadUrl, BadManifest) as error:
            raise Reject(str(error)) from error
        self._conclude(watch, step, is_over=is_over or watch.is_complete)

    def _begin(self, payload: ObjectPayload, parameters: ObjectParameters) -> _Watch | None:
        """The watch that a message is of, or None if it is of a series that never was."""
        if payload.status is not None:
            return self._resume(payload.status, parameters)
        place, expected, told = self._place(parameters), parameters.pattern_end, payload.told
        if parameters.manifest:
            if payload.manifest:
                place = _directory(ObjectUrl.parse(payload.manifest))
            expected = expected or payload.images_expected
            if place is not None and told is None:
                manifest = self._manifest(ObjectUrl.parse(f"{place}/manifest"))
                told, expected = manifest.told, expected or manifest.expected
        if place is None:
            return None
        images = StoredImages(self._stores.of(place), place, parameters.pattern)
        first = parameters.pattern_start
        last = max(expected or _highest(images, told or []), first - 1)
        inside = ((max(begin, first), min(end, last)) for begin, end in told or [])
        seen = NumberRanges((begin, end) for begin, end in inside if begin <= end)
        return _Watch(images, first, last, seen, len(seen), 0, time.time(), None)

    def _resume(self, status: ObjectStatus, parameters: ObjectParameters) -> _Watch:
        place = ObjectUrl.parse(status.objects)
        return _Watch(
            StoredImages(self._stores.of(place), place, parameters.pattern),
            first=status.first,
            last=status.last,
            seen=NumberRanges(status.seen),
            told=status.told,
            looked=status.looked,
            start_time=status.start_time,
            last_seen=status.last_seen,
        )

    def _place(self, parameters: ObjectParameters) -> ObjectUrl | None:
        """Where the parameters say that the images are."""
        if parameters.objects is not None:
            return ObjectUrl.parse(parameters.objects)
        if parameters.store is None or parameters.bucket is None:
            return None
        scheme = scheme_of(profile_of(parameters.store, self.config.storage))
        return ObjectUrl(scheme, parameters.store, parameters.bucket, parameters.prefix)

    def _manifest(self, url: ObjectUrl) -> Manifest:
        try:
            return Manifest.load(self._stores.of(url).get(url.bucket, url.key).data)
        except NoSuchObject as error:
            raise Reject(f"{error}; without a manifest nobody knows what the recipe was told of") from error
        except BadManifest as error:
            raise Reject(f"{url}: {error}") from error

    def _look(self, watch: _Watch, step: Step[ObjectParameters]) -> bool:
        """Tell of what is new; return whether nothing else can come."""
        if step.parameters.waits:
            # The bucket of a series may be made when it begins.
            with contextlib.suppress(NoSuchObject):
                self._look_for_more(watch, step)
            return False
        while stretch := watch.gap(watch.last):
            if not self._read(watch, stretch, step):
                return False
            watch.looked = stretch[1]
        return True

    def _look_for_more(self, watch: _Watch, step: Step[ObjectParameters]) -> None:
        """Look into a gap that was left, another one each time, and behind the highest number seen."""
        highest = watch.seen.highest or watch.first - 1
        gap = watch.gap(highest)
        if gap is None:
            watch.looked = 0
            gap = watch.gap(highest)
        if gap is not None:
            if not self._read(watch, gap, step):
                return
            watch.looked = gap[1]
        if highest < watch.last:
            self._read(watch, (highest + 1, watch.last), step)

    def _read(self, watch: _Watch, stretch: tuple[int, int], step: Step[ObjectParameters]) -> bool:
        """Tell of the new images of a stretch; return whether it was read to its end."""
        outputs, limit = step.connected_outputs(), step.parameters.burst_limit
        for number, info in watch.images.between(*stretch, page=watch.known_in(*stretch) + limit):
            if number in watch.seen:
                continue
            if watch.found >= limit:
                return False
            watch.last_seen = time.time()
            image = {
                "file": str(watch.images.url(number)),
                "file-number": number,
                "file-seen-at": watch.last_seen,
                "size": info.size,
                "etag": info.etag,
            }
            if not tell(step, outputs, number - watch.first + 1, watch.total, image):
                watch.is_held = True
                return False
            watch.seen.add(number)
            watch.found += 1
        return True

    def _conclude(self, watch: _Watch, step: Step[ObjectParameters], *, is_over: bool) -> None:
        """End the watch if it is over, else come back."""
        held = ", held back until more is handled" if watch.is_held else ""
        log = self.log.info if watch.found else self.log.debug
        log("%d of %d images seen%s", len(watch.seen), watch.total, held)
        parameters = step.parameters
        if not is_over and not watch.found and not watch.is_held:
            is_over = self._is_late(watch, step)
        if is_over:
            self._end(watch, step)
        else:
            step.checkpoint(watch.status(), delay=parameters.wait(watch.found, is_held=watch.is_held))

    def _is_late(self, watch: _Watch, step: Step[ObjectParameters]) -> bool:
        """Tell of a time-out if the next image has been waited for too long."""
        parameters = step.parameters
        limit = parameters.limit(seen_any=len(watch.seen) > 0)
        since = watch.start_time if watch.last_seen is None else watch.last_seen
        if time.time() - since <= limit:
            return False
        number = watch.missing()[0][0]
        url = str(watch.images.url(number))
        text = "%s did not come within %g s; %d of %d images seen"
        self.log.log(parameters.timeout_level(), text, url, limit, len(watch.seen), watch.total)
        step.send("timeout", {"file": url, "file-number": number, "success": False})
        return True

    def _end(self, watch: _Watch, step: Step[ObjectParameters]) -> None:
        missing, count = watch.missing(), watch.count()
        if missing:
            step.send("missing", {**count, "missing": missing, "told": watch.seen.ranges()})
        if not watch.total:
            self.log.warning("there is no image at %s", watch.images.place)
        result = {"success": not missing and watch.total > 0, "missing": missing}
        end_watch(step, count, result, seen_any=len(watch.seen) > watch.told)

    def _end_without_series(self, payload: ObjectPayload, step: Step[ObjectParameters]) -> None:
        """There was no series: nothing was stored, and all that was expected is missing."""
        expected = step.parameters.pattern_end or payload.images_expected
        seen = NumberRanges(payload.told or [])
        missing = list(seen.gaps(step.parameters.pattern_start, expected or 0))
        count = {"images-expected": expected, "images-seen": len(seen)}
        self.log.warning("there is no manifest, as no series was stored")
        step.send("missing", {**count, "missing": missing, "told": seen.ranges()})
        end_watch(step, count, {"success": False, "missing": missing}, seen_any=False)


def _directory(url: ObjectUrl) -> ObjectUrl:
    """What the keys of the objects beside one begin with."""
    return replace(url, key=url.key.rpartition("/")[0])


def _highest(images: StoredImages, told: list[Range]) -> int:
    """The highest number of an image that is stored, or was told of; 0 if there is none."""
    highest = max((last for _, last in told), default=0)
    for number, _ in images.between(highest + 1, highest_number(images.pattern)):
        highest = number
    return highest
