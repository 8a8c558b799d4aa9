"""What the writer of a detector's images is told by recipes, and what it tells them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from parvis.service.contract import Model
from parvis_services.messages import ImageSeen
from parvis_services.number_ranges import Range
from parvis_services.watch.watching import PatientParameters, WatchTimes


class WriterParameters(PatientParameters):
    """Which images to tell of.

    Attributes:
        dcid: ID of the data collection; the detector sends it along at the start of its series.
        timeout: Seconds without a new image after which the watch ends.
        timeout_first: The same until the series begins.
    """

    dcid: int = Field(ge=1, examples=[1])
    timeout: float = Field(default=900, gt=0)
    timeout_first: float | None = Field(default=3600, alias="timeout-first", gt=0)


class WriterStatus(WatchTimes):
    """How far a recipe is with the images of a series.

    Attributes:
        series: What the writer calls the series, once it has begun.
        cursor: How far the recipe has read in its journal.
        told: How many images the recipe was told of.
        known: What the writer knew when the recipe last looked: in which process, and how much.
    """

    series: str | None = Field(default=None, max_length=100)
    cursor: int = Field(default=0, ge=0)
    told: int = Field(default=0, ge=0)
    known: tuple[Annotated[str, Field(max_length=20)], int] = ("", 0)


class WriterPayload(Model):
    """What attaches a recipe to a data collection, or its own checkpoint."""

    status: WriterStatus | None = Field(default=None, alias="cephwriter-status")


class ImageStored(ImageSeen):
    """An image that the store has confirmed.

    Attributes:
        file_received_at: When it came from the detector, in seconds since 1970.
        size: Bytes that are stored.
        etag: What the store calls its content; empty if it does not say.
    """

    file_received_at: float = Field(alias="file-received-at")
    size: int
    etag: str


class SeriesCount(Model):
    """How many images were expected, if the detector said so, and of how many the recipe was told."""

    images_expected: int | None = Field(default=None, alias="images-expected")
    images_seen: int = Field(alias="images-seen")


class SeriesOver(SeriesCount):
    """The same at the end.

    Attributes:
        success: Whether all images that were expected are stored.
        manifest: Address of the manifest; none if no series began.
        missing: Images that are not stored, as ranges of their numbers.
        dropped: Those of them that came, and that the store was too slow for.
        told: Images that the recipe was told of.
    """

    success: bool
    manifest: str | None
    missing: list[Range]
    dropped: list[Range]
    told: list[Range]


class SeriesLate(SeriesCount):
    """What was waited for in vain."""

    dcid: int
    success: bool
