"""Writing data collections into ISPyB as an acquisition system does: for demonstrations and tests."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from parvis_services.ispyb.errors import UnknownDataCollection

if TYPE_CHECKING:
    from parvis_services.ispyb.database import Database

SUCCESSFUL = "DataCollection Successful"


def create_proposal(database: Database, code: str, number: int, *, title: str | None = None) -> int:
    """Create a proposal, such as `cm` 14451; gives its number in ISPyB."""
    person = _insert(database, "Person", {"familyName": f"{code}{number}"})
    values = {"personId": person, "proposalCode": code, "proposalNumber": str(number), "title": title}
    return _insert(database, "Proposal", values)


def find_proposal(database: Database, code: str, number: int) -> int | None:
    """The number in ISPyB of a proposal, such as `cm` 14451; None if there is no such proposal."""
    table = database.table("Proposal")
    wanted = sa.select(table.c.proposalId).where(
        table.c.proposalCode == code, table.c.proposalNumber == str(number)
    )
    with database.reading() as connection:
        return connection.execute(wanted).scalars().first()


def find_session(database: Database, proposal: int, *, visit: int) -> int | None:
    """The number in ISPyB of a session (a visit) of a proposal; None if there is no such session."""
    table = database.table("BLSession")
    wanted = sa.select(table.c.sessionId).where(table.c.proposalId == proposal, table.c.visit_number == visit)
    with database.reading() as connection:
        return connection.execute(wanted).scalars().first()


def create_session(database: Database, proposal: int, *, visit: int, beamline: str) -> int:
    """Create a session (a visit) of a proposal; gives its number in ISPyB."""
    start = _now()
    values = {
        "proposalId": proposal,
        "visit_number": visit,
        "beamLineName": beamline,
        "startDate": start,
        "endDate": start + datetime.timedelta(days=1),
        "lastUpdate": start,
    }
    return _insert(database, "BLSession", values)


def create_group(database: Database, session: int, *, experiment: str, sample: int | None = None) -> int:
    """Create a data collection group; gives its number.

    Args:
        database: where.
        session: of the visit.
        experiment: an experiment type that ISPyB lists, such as `Mesh`, `Mesh3D`, `SAD`, `Serial Fixed`.
        sample: number of the BLSample.
    """
    values = {"sessionId": session, "experimentType": experiment, "blSampleId": sample, "startTime": _now()}
    return _insert(database, "DataCollectionGroup", values)


def create_detector(database: Database, model: str, *, pixels: tuple[int, int], pixel_size: float) -> int:
    """Create a detector; gives its number.

    Args:
        database: where.
        model: such as `EIGER2 X 16M`.
        pixels: fast, slow.
        pixel_size: mm.
    """
    values = {
        "detectorModel": model,
        "detectorType": "Photon counting",
        "numberOfPixelsX": pixels[0],
        "numberOfPixelsY": pixels[1],
        "detectorPixelSizeHorizontal": pixel_size,
        "detectorPixelSizeVertical": pixel_size,
    }
    return _insert(database, "Detector", values)


def create_collection(
    database: Database,
    group: int,
    *,
    directory: str,
    template: str,
    images: int,
    first: int = 1,
    number: int = 1,
    axis_range: float = 0.0,
    overlap: float = 0.0,
    more: Mapping[str, Any] | None = None,
) -> int:
    """Create a data collection that has just begun: it has no run status yet; gives its DCID.

    Args:
        database: where.
        group: number of the data collection group, which also says the session and the sample.
        directory: of the images.
        template: of their names, such as `grid_1_####.cbf`; what stands before `_<number>_` is the prefix.
        images: how many.
        first: number of the first.
        number: of the data collection within the visit.
        axis_range: rotation within an image, degrees.
        overlap: of the rotations of neighbouring images, degrees.
        more: further columns of the DataCollection table, such as `wavelength` (Angstrom),
            `detectorDistance`, `xBeam`, `yBeam` (mm), `exposureTime` (s), `detectorId` or `comments`.
    """
    of_group = database.table("DataCollectionGroup")
    wanted = sa.select(of_group.c.sessionId, of_group.c.blSampleId).where(
        of_group.c.dataCollectionGroupId == group
    )
    with database.reading() as connection:
        session, sample = connection.execute(wanted).one()
    values = {
        "dataCollectionGroupId": group,
        "SESSIONID": session,
        "BLSAMPLEID": sample,
        "dataCollectionNumber": number,
        "startTime": _now(),
        "imageDirectory": f"{directory.rstrip('/')}/",
        "fileTemplate": template,
        "imagePrefix": template.split(f"_{number}_", maxsplit=1)[0],
        "imageSuffix": template.rpartition(".")[2],
        "numberOfImages": images,
        "startImageNumber": first,
        "axisRange": axis_range,
        "overlap": overlap,
        "numberOfPasses": 1,
    }
    return _insert(database, "DataCollection", values | dict(more or {}))


def create_grid(
    database: Database,
    dcid: int,
    *,
    steps: tuple[int, int],
    step_size: tuple[float, float],
    orientation: str = "horizontal",
    snaked: bool = False,
    offset: tuple[float, float] = (0.0, 0.0),
    microns_per_pixel: tuple[float, float] = (1.0, 1.0),
) -> int:
    """Describe the grid of a data collection; gives the number of the GridInfo row.

    Args:
        database: where.
        dcid: of the data collection.
        steps: grid points along x and y.
        step_size: between them, mm.
        orientation: `horizontal` if x is the fast direction, or `vertical`.
        snaked: whether every other line runs backwards.
        offset: of the grid's corner in the snapshot, pixels.
        microns_per_pixel: of the snapshot.
    """
    values = {
        "dataCollectionId": dcid,
        "steps_x": steps[0],
        "steps_y": steps[1],
        "dx_mm": step_size[0],
        "dy_mm": step_size[1],
        "orientation": orientation,
        "snaked": int(snaked),
        "snapshot_offsetXPixel": offset[0],
        "snapshot_offsetYPixel": offset[1],
        "micronsPerPixelX": microns_per_pixel[0],
        "micronsPerPixelY": microns_per_pixel[1],
    }
    return _insert(database, "GridInfo", values)


def set_run_status(database: Database, dcid: int, status: str = SUCCESSFUL) -> None:
    """Say how a data collection ended, and that it ended now.

    Raises:
        UnknownDataCollection: there is none with that number.
    """
    table = database.table("DataCollection")
    statement = (
        sa.update(table).where(table.c.dataCollectionId == dcid).values(runStatus=status, endTime=_now())
    )
    with database.writing() as connection:
        changed = connection.execute(statement).rowcount
    # MariaDB does not count a row that was like that before.
    if not changed:
        with database.reading() as connection:
            if (
                connection.execute(
                    sa.select(table.c.runStatus).where(table.c.dataCollectionId == dcid)
                ).first()
                is None
            ):
                raise UnknownDataCollection(f"ISPyB has no data collection {dcid}")


def _insert(database: Database, table: str, values: Mapping[str, Any]) -> int:
    target = database.table(table)
    with database.writing() as connection:
        inserted = connection.execute(sa.insert(target).values(dict(values))).inserted_primary_key
    return int(inserted[0]) if inserted else 0


def _now() -> datetime.datetime:
    return datetime.datetime.now().replace(microsecond=0)
