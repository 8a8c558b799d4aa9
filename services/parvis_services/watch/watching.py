"""What watching files and watching stored objects have in common: patience, outputs, and how a watch ends."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import Field

from parvis.service.base import Step
from parvis.service.contract import Model, Outputs
from parvis_services.messages import ImageSeen
from parvis_services.watch.selection import how_many, outputs_for

_LEAST_WAIT: Final = 1.0
_HELD_WAIT: Final = 0.5  # short beside the seconds of work that may wait in a queue

#: Outputs that get a message for each of many images.
FAN_OUTS: Final = ("every", "every-#", "select-#")


class PatientParameters(Model):
    """How much is done in one look, and how long a watch waits.

    Attributes:
        burst_limit: How many images are looked at in one go.
        burst_wait: Seconds between two looks; by default none while images keep coming.
        timeout: Seconds without a new image after which the watch ends.
        timeout_first: The same for the first image, by default `timeout`.
        log_timeout_as_info: Whether a time-out is a matter of course.
    """

    burst_limit: int = Field(default=100, alias="burst-limit", ge=1)
    burst_wait: float | None = Field(default=None, alias="burst-wait", ge=0)
    timeout: float = Field(default=3600, gt=0)
    timeout_first: float | None = Field(default=None, alias="timeout-first", gt=0)
    log_timeout_as_info: bool = Field(default=False, alias="log-timeout-as-info")

    def limit(self, *, seen_any: bool) -> float:
        """Seconds that the next image may take."""
        return self.timeout if seen_any else self.timeout_first or self.timeout

    def wait(self, found: int, *, is_held: bool = False) -> float:
        """Seconds until the next look, when this one has found so many images."""
        least = _HELD_WAIT if is_held else 0 if found else _LEAST_WAIT
        return max(self.burst_wait or 0, least)

    def timeout_level(self) -> int:
        """How loudly a time-out is logged."""
        return logging.INFO if self.log_timeout_as_info else logging.WARNING


class WatchTimes(Model):
    """When a watch began, and when it last saw something, in seconds since 1970."""

    start_time: float = Field(alias="start-time")
    last_seen: float | None = Field(default=None, alias="last-seen")


class WatchTimeout(Model):
    """The image that did not come in time."""

    file: str
    success: bool


def watch_outputs(count: type[Model], end: type[Model]) -> Outputs:
    """Return the outputs of a watch, with what is sent at its end at `any` and `finally`."""
    images = ("first", "every", "last", "#", "every-#", "select-#")
    return {**dict.fromkeys(images, ImageSeen), "any": count, "finally": end, "timeout": WatchTimeout}


def tell(
    step: Step[Any], outputs: Collection[str], number: int, total: int, image: Mapping[str, Any]
) -> bool:
    """Send an image to those of `outputs` that it belongs to; where one has no room, to none.

    Args:
        step: What is handled.
        outputs: Those that the recipe does something with.
        number: Of the image, from 1.
        total: How many images there will be.
        image: What is sent.

    Returns:
        Whether there was room.
    """
    wanted = outputs_for(number, total, outputs)
    if any(step.room(output, how_many(total, output)) < 1 for output in wanted):
        return False
    for output in wanted:
        step.send(output, image)
    return True


def end_watch(
    step: Step[Any], count: Mapping[str, Any], result: Mapping[str, Any], *, seen_any: bool
) -> None:
    """Tell that a watch is over: `count` at `any` if there was an image, it and `result` at `finally`."""
    if seen_any:
        step.send("any", count)
    step.send("finally", {**count, **result})
