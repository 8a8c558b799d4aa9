"""What is known of a series of HDF5 files: for people, and for a writer that is restarted."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError

from parvis_services.number_ranges import NumberRanges, Range
from parvis_services.stores.manifest import Ended
from parvis_services.stream.events import Header, SeriesStart

MAY_GO_ON: Final = (None, "time-out", "stopped")
"""How a series ended that may go on: not at all, as its writer was killed; with no image for too long; or
because the writer was stopped."""


class PartOfSeries(Protocol):
    """What says which series it is of."""

    @property
    def series(self) -> int: ...
    @property
    def unique_id(self) -> str | None: ...


class Summary(BaseModel):
    """What became of the images of a series; it stands beside the files as JSON.

    Attributes:
        detector: Its name in the configuration.
        dcid, series: Which series; the DCID is None if the detector was not told of one.
        unique_id: What tells it from all others, if the detector says so.
        master: The master file; None if there is none, as no image came.
        expected: How many images were to come; None if the detector did not say.
        written: How many are in the files.
        missing: Numbers of the images, from 1, that are not, for whatever reason.
        dropped: Those of them that came, and that could not be kept until the disk took them.
        failed: Those of them that the disk did not take.
        duplicates: How many came again.
        unfit: How many did not fit the series: beyond its length, or of another shape or type.
        bytes: Size of the images that are written, as they came.
        first_seen, last_seen: When the first and the last image came, seconds since 1970.
        ended: How the series ended.
    """

    detector: str
    dcid: PositiveInt | None = None
    series: NonNegativeInt
    unique_id: str | None = None
    master: Path | None = None
    expected: PositiveInt | None = None
    written: NonNegativeInt = 0
    missing: list[Range] = Field(default_factory=list[Range])
    dropped: list[Range] = Field(default_factory=list[Range])
    failed: list[Range] = Field(default_factory=list[Range])
    duplicates: NonNegativeInt = 0
    unfit: NonNegativeInt = 0
    bytes: NonNegativeInt = 0
    first_seen: float | None = None
    last_seen: float | None = None
    ended: Ended | None = None

    def is_of(self, part: PartOfSeries) -> bool:
        """Whether something is of this series."""
        if self.unique_id is not None and part.unique_id is not None:
            return self.unique_id == part.unique_id
        return self.series == part.series


class SavedSeries(BaseModel):
    """What a writer that is restarted must know of the series it was writing.

    Attributes:
        directory, prefix: Where the files are, and what their names begin with.
        images_per_file: How many images each data file has.
        header: What the detector says.
        masked: Whether it sent a mask.
        start: When the series began.
        fingerprint: Of what announced it.
        summary: What became of the images so far.
    """

    directory: Path
    prefix: str
    images_per_file: PositiveInt
    header: Header
    masked: bool
    start: datetime
    fingerprint: str
    summary: Summary


def fingerprint(start: SeriesStart) -> str:
    """What tells the announcement of a series from others."""
    told = [start.series, start.unique_id, start.config, start.appendix]
    return hashlib.sha256(json.dumps(told, default=repr, sort_keys=True).encode()).hexdigest()


def save(path: Path, model: BaseModel) -> None:
    """Put a model into a file in one go. Raises OSError if it cannot be written."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(model.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def load(path: Path) -> SavedSeries | None:
    """Return the series that was saved, or None if there is none.

    Raises:
        ValueError: The file is damaged.
        OSError: It cannot be read.
    """
    try:
        return SavedSeries.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{path} cannot be read: {first['loc']}: {first['msg']}") from None


def from_one(numbers: NumberRanges) -> list[tuple[int, int]]:
    """Ranges of images counted from 0, as people count them."""
    return [(first + 1, last + 1) for first, last in numbers.ranges()]
