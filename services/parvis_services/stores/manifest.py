"""The manifest of a series: what came, what was stored, what is missing, and why; the object `manifest`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from parvis_services.number_ranges import Range
from parvis_services.stores.layout import Layout

Ended = Literal["end message", "time-out", "next series", "stopped"]


class BadManifest(ValueError):
    """An object is no manifest."""


class Manifest(BaseModel):
    """What became of the images of a series.

    Attributes:
        dcid, series: Which series.
        unique_id: What tells it from all others, if the detector says so.
        layout: How keys are made.
        expected: How many images were to come; None if the detector did not say.
        received: How many came from the detector, those that came again not counted.
        stored: How many the store has confirmed.
        missing: Images that are not in the store, for whatever reason.
        dropped: Those of them that came, and that the writer could not keep: the store was too slow or away.
        duplicates: How many came again.
        garbage: How many messages of the series could not be read.
        bytes: Size of what is stored of the images.
        first_seen, last_seen: When the first and the last image came, seconds since 1970.
        ended: How the series ended: with the detector's word; with none for too long; because another began;
            or because the writer was stopped.
        told: Images that the recipe was told of.
        header, frames: Addresses of the header, and of what all images begin with.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    dcid: PositiveInt
    series: NonNegativeInt
    unique_id: str | None = None
    layout: Layout = "standard"
    expected: NonNegativeInt | None = None
    received: NonNegativeInt = 0
    stored: NonNegativeInt = 0
    missing: list[Range] = Field(default_factory=list[Range])
    dropped: list[Range] = Field(default_factory=list[Range])
    duplicates: NonNegativeInt = 0
    garbage: NonNegativeInt = 0
    bytes: NonNegativeInt = 0
    first_seen: float | None = None
    last_seen: float | None = None
    ended: Ended
    told: list[Range] = Field(default_factory=list[Range])
    header: str = ""
    frames: str = ""

    def dump(self) -> bytes:
        """The object to store: JSON."""
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def load(cls, data: bytes) -> Manifest:
        """Read an object. Raises BadManifest if it is none."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BadManifest(f"this is no manifest: {place}: {first['msg']}".replace(" : ", " ")) from None


def ranges_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers, in any order, as the fewest ranges (first, last)."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def count_in(ranges: Iterable[tuple[int, int]]) -> int:
    """How many numbers there are in ranges that do not overlap."""
    return sum(last - first + 1 for first, last in ranges)
