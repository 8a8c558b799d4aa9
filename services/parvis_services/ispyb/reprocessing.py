"""A processing job that somebody asked for, as recipes want to see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from parvis_services.ispyb.errors import UnknownProcessingJob
from parvis_services.ispyb.images import image_path
from parvis_services.ispyb.rows import columns_of

if TYPE_CHECKING:
    from parvis_services.ispyb.database import Database


def processing_job_fields(database: Database, job: int) -> dict[str, Any]:
    """The fields that a processing job adds for a recipe, read in three queries.

    Returns:
        `ispyb_process` (the number), `ispyb_processing_job` (its row), `ispyb_processing_parameters` (a list
        of values for each name), `ispyb_reprocessing_parameters` (the last value for each name, for old
        recipes) and `ispyb_images` (`path:first:last` of each image sweep, joined with commas).

    Raises:
        UnknownProcessingJob: there is none with that number.
        DatabaseUnavailable: the database cannot be reached just now.
    """
    table, parameter = database.tables("ProcessingJob", "ProcessingJobParameter")
    with database.reading() as connection:
        found = connection.execute(sa.select(table).where(table.c.processingJobId == job)).one_or_none()
        if found is None:
            raise UnknownProcessingJob(f"ISPyB has no processing job {job}")
        pairs = connection.execute(
            sa.select(parameter.c.parameterKey, parameter.c.parameterValue)
            .where(parameter.c.processingJobId == job)
            .order_by(parameter.c.processingJobParameterId)
        ).all()
        sweeps = connection.execute(_sweeps(database, job)).all()
    values: dict[str, list[str | None]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    paths = ((image_path(sweep[0], sweep[1], sweep[2]), sweep[2], sweep[3]) for sweep in sweeps)
    return {
        "ispyb_process": job,
        "ispyb_processing_job": columns_of(table.c, found),
        "ispyb_processing_parameters": values,
        "ispyb_reprocessing_parameters": {key: given[-1] for key, given in values.items()},
        "ispyb_images": ",".join(f"{path}:{first}:{last}" for path, first, last in paths if path),
    }


def _sweeps(database: Database, job: int) -> sa.Executable:
    sweep, collection = database.tables("ProcessingJobImageSweep", "DataCollection")
    return (
        sa.select(
            collection.c.imageDirectory, collection.c.fileTemplate, sweep.c.startImage, sweep.c.endImage
        )
        .join(collection, collection.c.dataCollectionId == sweep.c.dataCollectionId)
        .where(sweep.c.processingJobId == job)
        .order_by(sweep.c.processingJobImageSweepId)
    )


def job_recipe(fields: Mapping[str, Any]) -> str | None:
    """The recipe that a processing job asks for: its own name for it, with `ispyb-` before it.

    Args:
        fields: of `processing_job_fields`, or all fields of a message.

    Returns:
        The name; None without a job or a recipe in it.
    """
    name = (fields.get("ispyb_processing_job") or {}).get("recipe")
    return f"ispyb-{name}" if name else None
