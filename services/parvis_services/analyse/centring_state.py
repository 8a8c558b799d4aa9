"""What is known of a grid scan so far, and how pieces of it are put together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from parvis.service.contract import Model
from parvis_services.messages import ImageSeen

MOST_SPOTS: Final = 2**53  # more than fit on any image, and exact in every language that reads JSON


class GridStatus(Model):
    """A checkpoint: the images of a grid scan that are known.

    Attributes:
        images: Their indices in the grid, from 0.
        counts: The number of spots on each.
        last_arrival: When the last of them arrived, in seconds since 1970.
        newest_image: The latest time at which one of them was seen, in seconds since 1970.
        reported: Whether the result of this grid has been sent, and it is kept only for its partners.
        missing: Indices of images that will not come.
    """

    images: list[int]
    counts: list[Annotated[int, Field(ge=0, le=MOST_SPOTS)]]
    last_arrival: float = Field(alias="last-arrival")
    newest_image: float | None = Field(default=None, alias="newest-image")
    reported: bool = False
    missing: list[int] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_count_an_image(self) -> GridStatus:
        if len(self.images) != len(self.counts):
            raise ValueError("there must be one count for each image")
        return self


class CentringPayload(ImageSeen):
    """The number of spots on one image, or why it has none, or a checkpoint."""

    file: str = ""
    n_spots_total: int | None = Field(default=None, ge=0, le=MOST_SPOTS)
    reason: str | None = None
    status: GridStatus | None = Field(default=None, alias="xray-centring-status")

    @model_validator(mode="after")
    def _image_or_checkpoint(self) -> CentringPayload:
        says_what_came = self.n_spots_total is not None or self.reason is not None
        if self.status is None and not (says_what_came and self.file_number is not None):
            raise ValueError(
                "file-number is needed, and n_spots_total, or the reason why the image is missing"
            )
        return self


@dataclass
class GridScan:
    """The counts of one grid scan that are known, and the images that are known to be missing."""

    size: int
    counts: dict[int, int] = field(default_factory=dict[int, int])
    missing: set[int] = field(default_factory=set[int])
    last_arrival: float = 0.0
    newest_image: float | None = None
    reported: bool = False

    @property
    def is_complete(self) -> bool:
        return len(self.counts) == self.size

    @property
    def is_hopeless(self) -> bool:
        """Whether images are missing, and no other is to come."""
        return bool(self.missing) and len(self.counts) + len(self.missing) == self.size

    def add(self, payload: CentringPayload, now: float) -> None:
        """Take in an image, or what a checkpoint knows; what lies outside the grid is ignored."""
        if payload.status is not None:
            self._add_status(payload.status, now)
            return
        index = (payload.file_number or 0) - 1
        if 0 <= index < self.size:
            if payload.n_spots_total is not None:
                self.counts[index] = payload.n_spots_total
                self.missing.discard(index)
            elif index not in self.counts:
                self.missing.add(index)
            self.last_arrival = max(self.last_arrival, now)
            self._seen(payload.file_seen_at)

    def sequence(self) -> list[float]:
        """The counts in order of acquisition, NaN for those not known."""
        return [self.counts.get(index, math.nan) for index in range(self.size)]

    def checkpoint(self) -> dict[str, Any]:
        """Return the checkpoint that holds what is known."""
        status = {
            "images": list(self.counts),
            "counts": list(self.counts.values()),
            "last-arrival": self.last_arrival,
            "newest-image": self.newest_image,
            "reported": self.reported,
            "missing": sorted(self.missing),
        }
        return {"xray-centring-status": status}

    def _add_status(self, status: GridStatus, now: float) -> None:
        known = zip(status.images, status.counts, strict=True)
        self.counts |= {index: count for index, count in known if 0 <= index < self.size}
        told = {index for index in status.missing if 0 <= index < self.size}
        self.missing = (self.missing | told) - self.counts.keys()
        self.last_arrival = max(self.last_arrival, min(status.last_arrival, now))
        self.reported = self.reported or status.reported
        self._seen(status.newest_image)

    def _seen(self, when: float | None) -> None:
        if when is not None:
            self.newest_image = max(when, self.newest_image or 0.0)
