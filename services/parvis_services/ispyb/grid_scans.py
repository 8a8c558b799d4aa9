"""Grid scans and the results of their images, as the metadata database has them."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from parvis.observe.grid_scans import GridScan, GridScanSummary, GridScansUnavailable

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from parvis_services.ispyb.configured import Configuration
    from parvis_services.ispyb.database import Database

MOST_BOXES = 250_000
"""A grid of more is not drawn."""


def grid_scans(config: Configuration) -> IspybGridScans | None:
    """Return the grid scans of the configured database, None if there is none.

    Raises:
        BadDatabaseUrl: The URL of the database is no good.
    """
    try:
        from parvis_services.ispyb.configured import configured_database

        database = configured_database(config)
    except ModuleNotFoundError as error:
        if error.name != "sqlalchemy":
            raise
        return None
    return None if database is None else IspybGridScans(database)


class IspybGridScans:
    """Reads grid scans from an ISPyB database: data collections with a grid, and their per-image results."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recent(self, most: int) -> list[GridScanSummary]:
        """Return the newest grid scans, the newest first.

        Raises:
            GridScansUnavailable: The database cannot be read.
        """
        import sqlalchemy as sa

        with self._reading() as connection:
            collection, grid, results, group, session = self._database.tables(
                "DataCollection", "GridInfo", "ImageQualityIndicators", "DataCollectionGroup", "BLSession"
            )
            number = collection.c.dataCollectionId
            named = [collection.c[name] for name in ("imagePrefix", "dataCollectionNumber", "startTime")]
            newest = (
                sa.select(number, *named, grid.c.steps_x, grid.c.steps_y, session.c.beamLineName)
                .select_from(grid)
                .join(collection, number == grid.c.dataCollectionId)
                .outerjoin(group, group.c.dataCollectionGroupId == collection.c.dataCollectionGroupId)
                .outerjoin(session, session.c.sessionId == group.c.sessionId)
                .order_by(grid.c.gridInfoId.desc())
                .limit(most)
            )
            rows = [dict(row._mapping) for row in connection.execute(newest)]
            dcids = [row["dataCollectionId"] for row in rows]
            counted = (
                sa.select(results.c.dataCollectionId, sa.func.count())
                .where(results.c.dataCollectionId.in_(dcids))
                .group_by(results.c.dataCollectionId)
            )
            seen = {row[0]: row[1] for row in connection.execute(counted)}
        return [_summary(row, seen.get(row["dataCollectionId"], 0)) for row in rows]

    def scan(self, dcid: int) -> GridScan | None:
        """Return one grid scan, None if that data collection is none, or too large to be drawn.

        Raises:
            GridScansUnavailable: The database cannot be read.
        """
        from parvis_services.ispyb.errors import UnknownDataCollection
        from parvis_services.ispyb.facts import collection_facts

        with self._reading() as connection:
            try:
                facts = collection_facts(self._database, connection, dcid)
            except UnknownDataCollection:
                return None
            if not facts.grid:
                return None
            results = self._results(connection, dcid)
        row = facts.row | facts.grid | {"dataCollectionId": dcid, "beamLineName": facts.beamline}
        return _laid_out(row, results)

    def _results(self, connection: Connection, dcid: int) -> dict[int, float]:
        """Number of spots on each image, by its number."""
        import sqlalchemy as sa

        table = self._database.table("ImageQualityIndicators")
        wanted = sa.select(table.c.imageNumber, table.c.spotTotal).where(table.c.dataCollectionId == dcid)
        return {image: spots for image, spots in connection.execute(wanted) if spots is not None}

    @contextlib.contextmanager
    def _reading(self) -> Generator[Connection]:
        from parvis_services.ispyb.errors import IspybError

        try:
            with self._database.reading() as connection:
                yield connection
        except IspybError as error:
            raise GridScansUnavailable(str(error)) from error


def _summary(row: Mapping[str, Any], seen: int) -> GridScanSummary:
    number = row["dataCollectionNumber"]
    began = row["startTime"]
    return GridScanSummary(
        dcid=row["dataCollectionId"],
        name=f"{row['imagePrefix'] or 'grid scan'}{'' if number is None else f'_{number}'}",
        place=row["beamLineName"] or "",
        began=None if began is None else str(began).replace(" ", "T"),
        columns=int(row["steps_x"] or 0),
        rows=int(row["steps_y"] or 0),
        seen=seen,
    )


def _laid_out(row: Mapping[str, Any], results: Mapping[int, float]) -> GridScan | None:
    """Put the results where they belong; None if the grid is none that can be."""
    from parvis_services.xray.grid import Grid

    try:
        orientation = str(row["orientation"] or "horizontal").lower()
        grid = Grid(int(row["steps_x"]), int(row["steps_y"]), bool(row["snaked"]), orientation)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return None
    if grid.size > MOST_BOXES:
        return None
    first = int(row["startImageNumber"] or 1)
    images = [int(index) + first for index in grid.order().ravel()]
    counts = [results.get(image) for image in images]
    box_um = float(row["dx_mm"] or 0) * 1000, float(row["dy_mm"] or 0) * 1000
    return GridScan(_summary(row, sum(count is not None for count in counts)), box_um, counts, images)
