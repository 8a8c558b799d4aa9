"""One data collection and everything that belongs to it row by row, in two queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from parvis_services.ispyb.errors import UnknownDataCollection
from parvis_services.ispyb.rows import columns_of, plain

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from parvis_services.ispyb.database import Database

_CELL = ("cell_a", "cell_b", "cell_c", "cell_alpha", "cell_beta", "cell_gamma")
_SAMPLE = ("name", "containerId", "location", "loopType", "subLocation", "SMILES")


@dataclass(frozen=True)
class CollectionFacts:
    """What ISPyB holds of one data collection.

    Attributes:
        dcid: its number.
        row: its DataCollection row, all columns.
        grid: its GridInfo row, empty without one.
        beamline: of its session.
        experiment: the experiment type of its group.
        detector_model: of its detector; None as well if it names a detector that does not exist.
        sample: of its sample `name`, `containerId`, `location`, `loopType`, `subLocation` and `SMILES`; None
            without a sample.
        space_group: of its sample's crystal.
        unit_cell: of its sample's crystal, a, b, c in Angstrom and three angles in degrees; None unless all
            are known.
        protein: the Protein row of its sample's crystal.
        plan: the DiffractionPlan row of its sample.
        pipeline: the processing pipeline that its sample's container prefers.
    """

    dcid: int
    row: dict[str, Any]
    grid: dict[str, Any]
    beamline: str | None
    experiment: str | None
    detector_model: str | None
    sample: dict[str, Any] | None
    space_group: str | None
    unit_cell: tuple[float, ...] | None
    protein: dict[str, Any] | None
    plan: dict[str, Any] | None
    pipeline: str | None

    @property
    def group(self) -> int | None:
        return self.row["dataCollectionGroupId"]

    @property
    def session(self) -> int | None:
        return self.row["SESSIONID"]

    @property
    def sample_id(self) -> int | None:
        return self.row["BLSAMPLEID"]


def collection_facts(database: Database, connection: Connection, dcid: int) -> CollectionFacts:
    """Read a data collection with its group, session, detector, sample, crystal, protein, plan and grid.

    Raises:
        UnknownDataCollection: there is none with that number.
    """
    t = {table.name: table for table in database.tables(*_TABLES)}
    found = connection.execute(_statement(t, dcid)).one_or_none()
    if found is None:
        raise UnknownDataCollection(f"ISPyB has no data collection {dcid}")
    value: Mapping[Any, Any] = found._mapping
    sample = t["BLSample"]
    row = columns_of(t["DataCollection"].c, found)
    cell = tuple(plain(value[t["Crystal"].c[name]]) for name in _CELL)
    return CollectionFacts(
        dcid=dcid,
        row=row,
        grid=_grid(t["GridInfo"], connection, dcid, row["dataCollectionGroupId"]),
        beamline=value[t["BLSession"].c.beamLineName],
        experiment=value[t["DataCollectionGroup"].c.experimentType],
        detector_model=value[t["Detector"].c.detectorModel],
        sample=None
        if value[sample.c.blSampleId] is None
        else {name: plain(value[sample.c[name]]) if name in sample.c else None for name in _SAMPLE},
        space_group=value[t["Crystal"].c.spaceGroup] or None,
        unit_cell=cell if all(cell) else None,
        protein=None
        if value[t["Protein"].c.proteinId] is None
        else columns_of(t["Protein"].c, found, leave_out=("externalId",)),
        plan=None
        if value[t["DiffractionPlan"].c.diffractionPlanId] is None
        else columns_of(t["DiffractionPlan"].c, found),
        pipeline=value[t["ProcessingPipeline"].c.name],
    )


_TABLES = (
    *("DataCollection", "DataCollectionGroup", "BLSession", "Detector", "BLSample", "Crystal", "Protein"),
    *("DiffractionPlan", "Container", "ProcessingPipeline", "GridInfo"),
)


def _statement(t: Mapping[str, sa.Table], dcid: int) -> sa.Executable:
    collection, group, sample, crystal = (
        t["DataCollection"],
        t["DataCollectionGroup"],
        t["BLSample"],
        t["Crystal"],
    )
    container, pipeline, session = t["Container"], t["ProcessingPipeline"], t["BLSession"]
    # Outer joins throughout: a detector, sample or session that a row names may not exist.
    joined = (
        collection.outerjoin(group, group.c.dataCollectionGroupId == collection.c.dataCollectionGroupId)
        .outerjoin(
            session, session.c.sessionId == sa.func.coalesce(group.c.sessionId, collection.c.SESSIONID)
        )
        .outerjoin(t["Detector"], t["Detector"].c.detectorId == collection.c.detectorId)
        .outerjoin(sample, sample.c.blSampleId == collection.c.BLSAMPLEID)
        .outerjoin(crystal, crystal.c.crystalId == sample.c.crystalId)
        .outerjoin(t["Protein"], t["Protein"].c.proteinId == crystal.c.proteinId)
        .outerjoin(
            t["DiffractionPlan"], t["DiffractionPlan"].c.diffractionPlanId == sample.c.diffractionPlanId
        )
        .outerjoin(container, container.c.containerId == sample.c.containerId)
        .outerjoin(pipeline, pipeline.c.processingPipelineId == container.c.priorityPipelineId)
    )
    columns = [
        *collection.c,
        *t["Protein"].c,
        *t["DiffractionPlan"].c,
        *(column for column in sample.c if column.name in {"blSampleId", *_SAMPLE}),
        *(crystal.c[name] for name in ("spaceGroup", *_CELL)),
        session.c.beamLineName,
        group.c.experimentType,
        t["Detector"].c.detectorModel,
        pipeline.c.name,
    ]
    return sa.select(*columns).select_from(joined).where(collection.c.dataCollectionId == dcid)


def _grid(table: sa.Table, connection: Connection, dcid: int, group: int | None) -> dict[str, Any]:
    # Old rows name only the group. A row that names another data collection is the grid of that one.
    of_group = sa.and_(table.c.dataCollectionId.is_(None), table.c.dataCollectionGroupId == group)
    statement = (
        sa.select(table)
        .where(sa.or_(table.c.dataCollectionId == dcid, of_group))
        .order_by(table.c.dataCollectionId.is_(None), table.c.gridInfoId)
        .limit(1)
    )
    found = connection.execute(statement).first()
    return {} if found is None else columns_of(table.c, found)
