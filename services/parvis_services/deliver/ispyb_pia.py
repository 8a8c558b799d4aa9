"""ISPyBPIA: stores per-image results in the metadata database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field

from parvis.service.base import BatchService, Reject, Retry, Step
from parvis.service.contract import Model
from parvis_services.ispyb.errors import DatabaseUnavailable, IspybError
from parvis_services.messages import ImageSeen

if TYPE_CHECKING:
    from parvis_services.ispyb.database import Database


class ImageQualityResult(ImageSeen):
    """What one of the programs that look at images says of one: spots, or DOZOR's score, or both."""

    file: str = ""
    n_spots_total: int | None = None
    dozor_score: float | None = None


class ImageQualityParameters(Model):
    """Where the results belong.

    Attributes:
        dcid: The data collection.
    """

    dcid: int = Field(ge=1)


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
        from parvis_services.ispyb.image_quality import ImageQuality, store_image_results

        try:
            rows = [
                ImageQuality.from_result(step.parameters.dcid, payload.model_dump())
                for payload, step in batch
            ]
            stored = store_image_results(self._database, rows)
        except DatabaseUnavailable as error:
            raise Retry(str(error)) from error
        except IspybError as error:
            raise Reject(str(error)) from error
        self.log.debug("stored the results of %d images", stored)


class NoDatabase(Exception):
    """The service needs a database, and none is configured."""
