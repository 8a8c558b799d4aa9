"""Payloads that several services speak: what one sends and the next reads."""

from __future__ import annotations

from pydantic import Field

from parvis.service.contract import Model


class ImageSeen(Model):
    """An image that is there to be looked at.

    Attributes:
        file: Path of the file, for HDF5 of the master file; or the address of the image in a store of the
            configuration: `s3://STORE/BUCKET/KEY`, `dir://STORE/BUCKET/KEY`.
        file_number: Number of the image in the data collection, from 1.
        file_pattern_index: Number in the name of the file.
        file_seen_at: When it was found, in seconds since 1970.
    """

    file: str
    file_number: int | None = Field(default=None, alias="file-number", ge=1)
    file_pattern_index: int | None = Field(default=None, alias="file-pattern-index")
    file_seen_at: float | None = Field(default=None, alias="file-seen-at")

    @property
    def image_number(self) -> int | None:
        """Number under which the image is known outside: that in its name, else that in the collection."""
        return self.file_number if self.file_pattern_index is None else self.file_pattern_index


class ImageMissing(ImageSeen):
    """An image that was announced and is not there: it has expired, or was never written.

    Attributes:
        reason: What is missing.
    """

    reason: str


class ImageResult(ImageSeen):
    """What per-image analysis says of an image; -1 stands for a resolution that cannot be told.

    Attributes:
        n_spots_total: All spots.
        n_spots_no_ice: Those not on ice rings.
        n_spots_4A: Those at a lower resolution than 4 Å.
        total_intensity: Sum of the counts of all spots not on ice rings.
        estimated_d_min: Resolution to which it diffracts, in Å.
        d_min_distl_method_1: The same by a first other method, in Å.
        d_min_distl_method_2: The same by a second, in Å.
        noisiness_method_1: How little the first is to be trusted, 0 to 1.
        noisiness_method_2: How little the second is to be trusted, 0 to 1.
    """

    file: str = ""
    n_spots_total: int
    n_spots_no_ice: int | None = None
    n_spots_4A: int | None = None  # noqa: N815 - the field's name for it
    total_intensity: float | None = None
    estimated_d_min: float | None = None
    d_min_distl_method_1: float | None = None
    d_min_distl_method_2: float | None = None
    noisiness_method_1: float | None = None
    noisiness_method_2: float | None = None
