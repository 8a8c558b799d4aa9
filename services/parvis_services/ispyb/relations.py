"""Which data collections and samples belong together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from parvis_services.ispyb.rows import columns_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from parvis_services.ispyb.database import Database
    from parvis_services.ispyb.directories import Visit
    from parvis_services.ispyb.facts import CollectionFacts

_SWEEP = (
    *("dataCollectionId", "startImageNumber", "numberOfImages", "overlap", "axisRange"),
    *("fileTemplate", "imageDirectory"),
)


def group_members(database: Database, connection: Connection, group: int | None) -> list[dict[str, Any]]:
    """The data collections of a group, oldest first: the columns that say where their images are."""
    if group is None:
        return []
    collection = database.table("DataCollection")
    wanted = [collection.c[name] for name in _SWEEP]
    statement = sa.select(*wanted).where(collection.c.dataCollectionGroupId == group)
    found = connection.execute(statement.order_by(collection.c.dataCollectionId))
    return [columns_of(wanted, row) for row in found]


def same_sample(database: Database, connection: Connection, facts: CollectionFacts) -> dict[str, Any]:
    """All data collections of the sample of this one: `dcids`, `sample_id`, `name`."""
    collection = database.table("DataCollection")
    sample = collection.c["BLSAMPLEID"]
    dcids = _dcids(connection, collection, sample == facts.sample_id)
    return {"dcids": dcids, "sample_id": facts.sample_id, "name": (facts.sample or {}).get("name")}


def same_directory(database: Database, connection: Connection, facts: CollectionFacts) -> dict[str, Any]:
    """All other data collections whose images are in the same directory: `dcids`."""
    directory = facts.row["imageDirectory"]
    if not directory:
        return {"dcids": []}
    collection = database.table("DataCollection")
    dcids = _dcids(connection, collection, collection.c.imageDirectory == directory)
    return {"dcids": [dcid for dcid in dcids if dcid != facts.dcid]}


def _dcids(connection: Connection, collection: sa.Table, condition: sa.ColumnElement[bool]) -> list[int]:
    number = collection.c.dataCollectionId
    return list(connection.execute(sa.select(number).where(condition).order_by(number)).scalars())


def sample_groups(database: Database, connection: Connection, sample_id: int | None) -> list[dict[str, Any]]:
    """The sample groups of a sample, each with the data collections of its samples.

    Returns:
        `{"dcids": […], "sample_group_id": …, "name": …}` a group; data collections in the order of their
        samples.
    """
    if not sample_id:
        return []
    group, member, collection = database.tables(
        "BLSampleGroup", "BLSampleGroup_has_BLSample", "DataCollection"
    )
    other = member.alias()
    statement = (
        sa.select(group.c.blSampleGroupId, group.c.name, collection.c.dataCollectionId)
        .select_from(member)
        .join(group, group.c.blSampleGroupId == member.c.blSampleGroupId)
        .join(other, other.c.blSampleGroupId == member.c.blSampleGroupId)
        .join(collection, other.c.blSampleId == collection.c.BLSAMPLEID)
        .where(member.c.blSampleId == sample_id)
        .order_by(group.c.blSampleGroupId, other.c.blSampleId, collection.c.dataCollectionId)
    )
    rows = connection.execute(statement).all()
    return [
        {"dcids": [row[2] for row in members], "sample_group_id": number, "name": name}
        for (number, name), members in itertools.groupby(rows, key=lambda row: (row[0], row[1]))
    ]


def pin_samples(database: Database, connection: Connection, sample: dict[str, Any] | None) -> dict[str, int]:
    """The samples on a multi-pin, by the place they have on it.

    Args:
        database: where to look.
        connection: to it.
        sample: the sample that the data collection names (see `CollectionFacts`).

    Returns:
        Place (text, as JSON has keys) to number of the sample; empty unless its loop is a `multipin_…`.
    """
    if sample is None or not str(sample["loopType"] or "").startswith("multipin"):
        return {}
    table = database.table("BLSample")
    statement = (
        sa.select(table.c.subLocation, table.c.blSampleId)
        .where(table.c.containerId == sample["containerId"], table.c.location == sample["location"])
        .where(table.c.subLocation.is_not(None))
        .order_by(table.c.subLocation, table.c.blSampleId)
    )
    return {str(place): number for place, number in connection.execute(statement)}


def named_groups(
    database: Database,
    connection: Connection,
    facts: CollectionFacts,
    visit: Visit,
    groups: Sequence[Sequence[str]],
) -> list[dict[str, Any]]:
    """The data collections of a session whose directories carry the names of a group.

    Args:
        database: where to look.
        connection: to it.
        facts: of the data collection whose session it is.
        visit: of that data collection.
        groups: names of directories below the visit that belong together, as users wrote them.

    Returns:
        `{"dcids": […]}` a group.
    """
    collection = database.table("DataCollection")
    session = collection.c["SESSIONID"]
    statement = (
        sa.select(collection.c.dataCollectionId, collection.c.imageDirectory)
        .where(session == facts.session, collection.c.imageDirectory.is_not(None))
        .order_by(collection.c.dataCollectionId)
    )
    inside = f"{visit.directory}/"
    placed = [
        (dcid, set(directory.removeprefix(inside).split("/")))
        for dcid, directory in connection.execute(statement)
        if directory.startswith(inside)
    ]
    return [{"dcids": [dcid for dcid, parts in placed if not parts.isdisjoint(names)]} for names in groups]
