"""Per-image results: each image one row, however often, from however many writers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

import made_ispyb as made
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.errors import BadImageResult, MissingDataCollections
from parvis_services.ispyb.image_quality import ImageQuality, store_image_results
from parvis_services.ispyb.schema import CORE_TABLES, create_schema
from real.mariadb import MariaDb
from waiting import wait_until

RESULT = {
    "file": "/x/grid_0007.cbf",
    "file-number": 7,
    "n_spots_total": 287,
    "n_spots_no_ice": 265,
    "n_spots_4A": 50,
    "total_intensity": 181244.5,
    "d_min_distl_method_1": 1.9,
    "d_min_distl_method_2": 2.1,
    "estimated_d_min": 2.25,
    "noisiness_method_1": 0.1,
    "noisiness_method_2": 0.2,
}


@pytest.fixture
def dcid(scratch: Database) -> int:
    return made.grid(scratch, made.group(scratch, experiment="Mesh"))


def stored(database: Database, *dcids: int) -> list[dict[str, Any]]:
    """The rows of these data collections, in the order of their images."""
    table = database.table("ImageQualityIndicators")
    wanted = sa.select(table).where(table.c.dataCollectionId.in_(dcids))
    with database.reading() as connection:
        rows = connection.execute(wanted.order_by(table.c.dataCollectionId, table.c.imageNumber))
        return [dict(row._mapping) for row in rows]


def test_a_result_becomes_a_row(scratch: Database, dcid: int) -> None:
    assert store_image_results(scratch, [ImageQuality.from_result(str(dcid), RESULT)]) == 1
    (row,) = stored(scratch, dcid)
    assert row.pop("recordTimeStamp")
    assert {name: value for name, value in row.items() if value is not None} == {
        "dataCollectionId": dcid,
        "imageNumber": 7,
        "spotTotal": 287,
        "inResTotal": 287,
        "goodBraggCandidates": 265,
        "method1Res": 2.25,
        "method2Res": 2.25,
        "totalIntegratedSignal": 181244.5,
        "iceRings": 0,
        "maxUnitCell": 0,
        "pctSaturationTop50Peaks": 0,
        "inResolutionOvrlSpots": 0,
        "binPopCutOffMethod2Res": 0,
    }


def test_the_pattern_index_names_the_image(scratch: Database, dcid: int) -> None:
    store_image_results(scratch, [ImageQuality.from_result(dcid, RESULT | {"file-pattern-index": 107})])
    assert [row["imageNumber"] for row in stored(scratch, dcid)] == [107]


@pytest.mark.parametrize(("given", "kept"), [(-1, -1), (-1.0, -1), (None, None)])
def test_a_resolution_that_is_unknown(
    scratch: Database, dcid: int, given: float | None, kept: float | None
) -> None:
    store_image_results(scratch, [ImageQuality.from_result(dcid, RESULT | {"estimated_d_min": given})])
    (row,) = stored(scratch, dcid)
    assert (row["method1Res"], row["method2Res"]) == (kept, kept)


def test_a_result_that_comes_again_makes_no_second_row(scratch: Database, dcid: int) -> None:
    rows = [ImageQuality(dcid, image, spots=image) for image in range(1, 13)]
    store_image_results(scratch, rows)
    before = stored(scratch, dcid)
    store_image_results(scratch, rows[3:9])
    store_image_results(scratch, [*rows, *rows])
    assert len(before) == 12
    assert [{**row, "recordTimeStamp": None} for row in stored(scratch, dcid)] == [
        {**row, "recordTimeStamp": None} for row in before
    ]


def test_a_newer_result_takes_the_place_of_the_old(scratch: Database, dcid: int) -> None:
    store_image_results(scratch, [ImageQuality(dcid, 1, spots=5)])
    store_image_results(scratch, [ImageQuality(dcid, 1, spots=6), ImageQuality(dcid, 1, spots=7)])
    assert [row["spotTotal"] for row in stored(scratch, dcid)] == [7]


def test_spots_and_dozor_score_meet_in_one_row(scratch: Database, dcid: int) -> None:
    store_image_results(scratch, [ImageQuality.from_result(dcid, RESULT)])
    store_image_results(scratch, [ImageQuality.from_result(dcid, {"file-number": 7, "dozor_score": 12.5})])
    (row,) = stored(scratch, dcid)
    assert (row["spotTotal"], row["dozor_score"], row["method1Res"]) == (287, 12.5, 2.25)
    store_image_results(
        scratch, [ImageQuality(dcid, 8, dozor_score=3.0), ImageQuality(dcid, 8, spots=4, good_spots=3)]
    )
    assert [(each["spotTotal"], each["dozor_score"]) for each in stored(scratch, dcid)] == [
        (287, 12.5),
        (4, 3.0),
    ]


def test_missing_data_collections_are_named_and_the_others_stored(scratch: Database, dcid: int) -> None:
    rows = [
        ImageQuality(number, image, spots=1) for image in (1, 2) for number in (999999998, dcid, 999999999)
    ]
    with pytest.raises(
        MissingDataCollections, match="999999998, 999999999, which ISPyB does not have"
    ) as caught:
        store_image_results(scratch, rows)
    assert caught.value.dcids == (999999998, 999999999)
    assert (caught.value.stored, caught.value.left_out) == (2, 4)
    assert len(stored(scratch, dcid)) == 2
    assert stored(scratch, 999999998, 999999999) == []


def test_nothing_to_store(scratch: Database) -> None:
    assert store_image_results(scratch, []) == 0


def test_several_writers_at_once(scratch: Database) -> None:
    dcids = [made.grid(scratch, made.group(scratch, experiment="Mesh")) for _ in range(3)]
    everything = [ImageQuality(dcid, image, spots=image) for image in range(1, 101) for dcid in dcids]
    failures: list[BaseException] = []

    def write(start: int) -> None:
        # Every writer stores everything, in an order of its own, as after a mass redelivery.
        turned = everything[start:] + everything[:start]
        try:
            for first in range(0, len(turned), 60):
                store_image_results(scratch, turned[first : first + 60])
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    writers = [threading.Thread(target=write, args=(75 * number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert failures == []
    rows = stored(scratch, *dcids)
    assert [(row["dataCollectionId"], row["imageNumber"], row["spotTotal"]) for row in rows] == [
        (dcid, image, image) for dcid in sorted(dcids) for image in range(1, 101)
    ]


@pytest.mark.real("mariadb")
def test_a_deadlock_is_overcome(mariadb: MariaDb) -> None:
    database = Database(mariadb.create_database("deadlock"))
    create_schema(database, tables=CORE_TABLES)
    dcid = made.grid(database, made.group(database, experiment="Mesh"))
    store_image_results(database, [ImageQuality(dcid, image, spots=1) for image in range(1, 101)])
    writer = threading.Thread(
        target=store_image_results,
        args=(database, [ImageQuality(dcid, 1, spots=5), ImageQuality(dcid, 2, spots=5)]),
    )
    change = "UPDATE ImageQualityIndicators SET spotTotal = 9 WHERE dataCollectionId = %s AND imageNumber"
    with database.engine.begin() as other:
        # It holds image 2 and has changed more rows, so it is the writer whom the server undoes.
        other.exec_driver_sql(f"{change} >= 2", (dcid,))
        writer.start()
        wait_until(lambda: lock_waits(database) == 1, 20, "the writer to wait for image 2")
        other.exec_driver_sql(f"{change} = 1", (dcid,))
    writer.join(20)
    assert not writer.is_alive()
    assert [row["spotTotal"] for row in stored(database, dcid)] == [5, 5, *[9] * 98]


def lock_waits(database: Database) -> int:
    with database.reading() as connection:
        status = connection.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'").one()
    return int(status[1])


def test_many_rows_in_few_statements(scratch: Database, dcid: int) -> None:
    rows = [ImageQuality(dcid, image, spots=image, resolution=2.5) for image in range(1, 3601)]
    assert store_image_results(scratch, rows) == 3600
    assert len(stored(scratch, dcid)) == 3600


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file-number": None}, "neither file-pattern-index nor file-number"),
        ({"file-number": "seven"}, "file-number must be a whole number"),
        ({"file-number": 1.5}, "file-number must be a whole number"),
        ({"file-number": -1}, "file-number must be a whole number"),
        ({"file-number": 2**23}, "file-number must be a whole number"),
        ({"n_spots_total": None}, "neither n_spots_total nor dozor_score"),
        ({"n_spots_total": [1]}, "n_spots_total must be a whole number"),
        ({"n_spots_total": 1e400}, "n_spots_total must be a whole number"),
        ({"estimated_d_min": float("nan")}, "estimated_d_min must be a number"),
        ({"total_intensity": "much"}, "total_intensity must be a number"),
        ({"total_intensity": True}, "total_intensity must be a number"),
    ],
)
def test_results_that_make_no_sense(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadImageResult, match=message):
        ImageQuality.from_result(1, RESULT | change)
