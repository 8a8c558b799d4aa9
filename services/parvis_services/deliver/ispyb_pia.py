"""ISPyBPIA: stores per-image results in the metadata database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from pydantic import BaseModel, Field, model_validator

from parvis.service.base import BatchService, Reject, Retry, Step
from parvis.service.contract import Model
from parvis_services.ispyb.errors import (
    BadImageResult,
    BadParameter,
    DatabaseError,
    IspybError,
    MissingDataCollections,
)
from parvis_services.messages import ImageSeen

if TYPE_CHECKING:
    from parvis_services.ispyb.database import Database
    from parvis_services.ispyb.image_quality import ImageQuality


class ImageQualityResult(ImageSeen):
    """What one of the programs that look at images says of one: spots, or DOZOR's score, or both."""

    file: str = ""
    n_spots_total: int | None = None
    dozor_score: float | None = None

    @model_validator(mode="after")
    def _says_something_of_an_image(self) -> ImageQualityResult:
        if self.n_spots_total is None and self.dozor_score is None:
            raise ValueError("n_spots_total or dozor_score must say how good the image is")
        if self.image_number is None:
            raise ValueError("file-pattern-index or file-number must say which image it is")
        return self


class ImageQualityParameters(Model):
    """Where the results belong.

    Attributes:
        dcid: The data collection.
    """

    dcid: int = Field(ge=1)


_Item: TypeAlias = "tuple[ImageQuality, Step[ImageQualityParameters]]"


class ISPyBPIA(BatchService[ImageQualityResult, ImageQualityParameters]):
    """Stores per-image results, many in one transaction of the database.

    An image has one row, however often its result comes. While the database is away the results wait in the
    queue.
    """

    name: ClassVar[str] = "ISPyBPIA"
    queue: ClassVar[str] = "ispyb_pia"
    Payload: ClassVar[type[BaseModel]] = ImageQualityResult
    Parameters: ClassVar[type[BaseModel]] = ImageQualityParameters
    batch_size: ClassVar[int] = 200
    batch_wait: ClassVar[float] = 0.5

    _database: Database

    def start(self) -> None:
        """Open the metadata database."""
        from parvis_services.ispyb.configured import configured_database

        database = configured_database(self.config)
        if database is None:
            raise NoDatabase(
                "no metadata database is configured: set PARVIS_ISPYB_URL, or configure plugin ispyb"
            )
        self._database = database

    def stop(self) -> None:
        """Close the database."""
        self._database.close()

    def process_batch(self, batch: Sequence[tuple[ImageQualityResult, Step[ImageQualityParameters]]]) -> None:
        """Store the results."""
        from parvis_services.ispyb.image_quality import ImageQuality

        items: list[_Item] = []
        for payload, step in batch:
            try:
                items.append((ImageQuality.from_result(step.parameters.dcid, payload.model_dump()), step))
            except (BadImageResult, BadParameter) as error:
                step.fail(Reject(str(error)))
        try:
            self._store(items)
        except DatabaseError:
            # A table may be missing or the disk full, which passes. Or it may be what a single message says.
            self._store_one_by_one(items)
        except IspybError as error:
            _try_again(items, error)

    def _store(self, items: Sequence[_Item]) -> None:
        from parvis_services.ispyb.image_quality import store_image_results

        try:
            stored = store_image_results(self._database, [row for row, _ in items])
        except MissingDataCollections as error:
            stored = error.stored
            for row, step in items:
                if row.dcid in error.dcids:
                    step.fail(Reject(f"ISPyB has no data collection {row.dcid}"))
        self.log.debug("stored the results of %d images", stored)

    def _store_one_by_one(self, items: Sequence[_Item]) -> None:
        for number, item in enumerate(items):
            try:
                self._store([item])
            except DatabaseError as error:
                _try_again([item], error)
            except IspybError as error:
                _try_again(items[number:], error)
                return


def _try_again(items: Sequence[_Item], error: IspybError) -> None:
    for _, step in items:
        step.fail(Retry(str(error)))


class NoDatabase(Exception):
    """The service needs a database, and none is configured."""
