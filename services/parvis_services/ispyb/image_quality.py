"""Per-image results in ISPyB: many at once, and each of them once however often it arrives."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite

from parvis_services.ispyb.errors import BadImageResult, Deadlock, MissingDataCollections
from parvis_services.ispyb.fields import as_number

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from parvis_services.ispyb.database import Database

_LARGEST_IMAGE = 2**23 - 1  # imageNumber is a MEDIUMINT
_LARGEST_COUNT = 2**31 - 1
_TRIES = 5
_CHUNK = 500
_KEY = ("dataCollectionId", "imageNumber")


@dataclass(frozen=True, slots=True)
class ImageQuality:
    """What per-image analysis found on one image of one data collection.

    Attributes:
        dcid: number of the data collection.
        image: number of the image.
        spots: all spots; None if they were not counted.
        good_spots: spots outside ice rings.
        resolution: of the image, Angstrom; -1 if there were too few spots to tell.
        intensity: sum of the intensities of the good spots, counts.
        dozor_score: of DOZOR, where that was run.
    """

    dcid: int
    image: int
    spots: int | None = None
    good_spots: int | None = None
    resolution: float | None = None
    intensity: float | None = None
    dozor_score: float | None = None

    @classmethod
    def from_result(cls, dcid: int | str, result: Mapping[str, Any]) -> ImageQuality:
        """From the payload of a per-image result: `n_spots_total`, `estimated_d_min` and so on.

        Args:
            dcid: number of the data collection, also as text.
            result: the payload; the image is its `file-pattern-index`, or else its `file-number`.

        Raises:
            BadImageResult: it has no image number, neither spots nor a DOZOR score, or a value that is no
                number.
            BadParameter: `dcid` is no number.
        """
        index = result.get("file-pattern-index")
        image = _whole(result.get("file-number") if index is None else index, "file-number", _LARGEST_IMAGE)
        if image is None:
            raise BadImageResult("a per-image result has neither file-pattern-index nor file-number")
        if result.get("n_spots_total") is None and result.get("dozor_score") is None:
            raise BadImageResult(f"the result of image {image} has neither n_spots_total nor dozor_score")
        return cls(
            dcid=as_number(dcid, "dcid"),
            image=image,
            spots=_whole(result.get("n_spots_total"), "n_spots_total", _LARGEST_COUNT),
            good_spots=_whole(result.get("n_spots_no_ice"), "n_spots_no_ice", _LARGEST_COUNT),
            resolution=_number(result.get("estimated_d_min"), "estimated_d_min"),
            intensity=_number(result.get("total_intensity"), "total_intensity"),
            dozor_score=_number(result.get("dozor_score"), "dozor_score"),
        )

    def _row(self, now: datetime.datetime) -> dict[str, Any]:
        none_here = 0 if self.spots is not None else None
        return {
            "dataCollectionId": self.dcid,
            "imageNumber": self.image,
            "spotTotal": self.spots,
            "inResTotal": self.spots,
            "goodBraggCandidates": self.good_spots,
            "method1Res": self.resolution,
            "method2Res": self.resolution,
            "totalIntegratedSignal": self.intensity,
            "dozor_score": self.dozor_score,
            "iceRings": none_here,
            "maxUnitCell": none_here,
            "pctSaturationTop50Peaks": none_here,
            "inResolutionOvrlSpots": none_here,
            "binPopCutOffMethod2Res": none_here,
            "recordTimeStamp": now,
        }


def store_image_results(database: Database, rows: Sequence[ImageQuality]) -> int:
    """Store per-image results in one transaction.

    An image has one row. A result that arrives again changes nothing, a newer one takes its place, and what
    one program does not say (DOZOR's score, spots) stays as another has said it.

    Args:
        database: where.
        rows: the results, in the order in which they came.

    Returns:
        How many results were stored.

    Raises:
        MissingDataCollections: some data collections do not exist; the results of all others were stored.
        DatabaseUnavailable: the database cannot be reached just now; nothing was stored.
        DatabaseError: it refused; nothing was stored.
    """
    if not rows:
        return 0
    known = _again_after_deadlock(lambda: _store(database, rows))
    missing = {row.dcid for row in rows} - known
    if missing:
        left_out = sum(row.dcid in missing for row in rows)
        raise MissingDataCollections(sorted(missing), stored=len(rows) - left_out, left_out=left_out)
    return len(rows)


def _again_after_deadlock(store: Any) -> set[int]:
    for _ in range(_TRIES - 1):
        try:
            return store()
        except Deadlock:
            continue
    return store()


def _store(database: Database, rows: Sequence[ImageQuality]) -> set[int]:
    """Store the results whose data collections exist; gives the numbers of those."""
    collection, indicators = database.tables("DataCollection", "ImageQualityIndicators")
    now = datetime.datetime.now().replace(microsecond=0)  # ISPyB's times are local
    with database.writing() as connection:
        known = _existing(connection, collection, {row.dcid for row in rows})
        # All writers take the rows in one order, so that two of them seldom wait for each other.
        ordered = sorted((row for row in rows if row.dcid in known), key=lambda row: (row.dcid, row.image))
        values = [
            _merged(same, now) for _, same in itertools.groupby(ordered, lambda row: (row.dcid, row.image))
        ]
        if values:
            connection.execute(_upsert(indicators, is_sqlite=database.is_sqlite), values)
    return known


def _existing(connection: Connection, collection: sa.Table, dcids: set[int]) -> set[int]:
    # The table has no foreign key to data collections, so nobody else would notice.
    number = collection.c.dataCollectionId
    found: set[int] = set()
    wanted = sorted(dcids)
    for start in range(0, len(wanted), _CHUNK):
        statement = sa.select(number).where(number.in_(wanted[start : start + _CHUNK]))
        found.update(connection.execute(statement).scalars())
    return found


def _merged(rows: Iterable[ImageQuality], now: datetime.datetime) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for row in rows:
        said = row._row(now)
        merged = (
            said if not merged else merged | {name: each for name, each in said.items() if each is not None}
        )
    return merged


def _upsert(table: sa.Table, *, is_sqlite: bool) -> sa.Insert:
    names = [name for name in ImageQuality(0, 0)._row(datetime.datetime.min) if name not in _KEY]
    values = {name: sa.bindparam(name) for name in (*_KEY, *names)}
    if is_sqlite:
        insert = sqlite.insert(table).values(values)
        kept = {name: sa.func.coalesce(insert.excluded[name], table.c[name]) for name in names}
        return insert.on_conflict_do_update(index_elements=list(_KEY), set_=kept)
    insert = mysql.insert(table).values(values)
    return insert.on_duplicate_key_update(
        {name: sa.func.coalesce(insert.inserted[name], table.c[name]) for name in names}
    )


def _whole(value: object, name: str, largest: int) -> int | None:
    if value is None:
        return None
    try:
        number = int(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        number = None
    if number is None or not 0 <= number <= largest or (isinstance(value, float) and value != number):
        raise BadImageResult(f"{name} must be a whole number from 0 to {largest}, not {value!r:.80}")
    return number


def _number(value: object, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = (
            float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        )
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadImageResult(f"{name} must be a number, not {value!r:.80}")
    return number
