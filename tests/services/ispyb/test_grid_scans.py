"""Grid scans as the metadata database has them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import made_ispyb
from parvis.config import Config
from parvis.observe.grid_scans import GridScansUnavailable, grid_scan_source
from parvis_services.ispyb.collections import create_collection, create_grid
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.grid_scans import IspybGridScans, grid_scans
from parvis_services.ispyb.image_quality import ImageQuality, store_image_results
from parvis_services.ispyb.schema import CORE_TABLES, create_schema


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'ispyb.sqlite'}")
    create_schema(made, tables=CORE_TABLES)
    return made


def _grid(database: Database, columns: int, rows: int, *, first: int = 1, **more: object) -> int:
    group = made_ispyb.group(database, experiment="Mesh")
    dcid = create_collection(
        database, group, directory="/data", template="xtal_3_####.cbf", images=6, first=first, number=3
    )
    create_grid(database, dcid, steps=(columns, rows), step_size=(0.02, 0.01), **more)  # pyright: ignore[reportArgumentType]
    return dcid


def _store(database: Database, dcid: int, spots: dict[int, int]) -> None:
    results = [{"file-number": image, "n_spots_total": count} for image, count in spots.items()]
    store_image_results(database, [ImageQuality.from_result(dcid, result) for result in results])


def test_results_stand_where_the_images_were_taken(database: Database) -> None:
    dcid = _grid(database, 3, 2, snaked=True)
    _store(database, dcid, {1: 10, 4: 40, 5: 0})
    scan = IspybGridScans(database).scan(dcid)
    assert scan is not None
    assert scan.images == [1, 2, 3, 6, 5, 4]
    assert scan.counts == [10, None, None, None, 0, 40]
    assert scan.box_um == (20, 10)
    assert scan.best == 5
    assert (scan.summary.name, scan.summary.place, scan.summary.seen) == ("xtal_3", "i03", 3)


def test_images_may_be_numbered_from_anything(database: Database) -> None:
    dcid = _grid(database, 2, 1, first=101)
    _store(database, dcid, {102: 7})
    scan = IspybGridScans(database).scan(dcid)
    assert scan is not None
    assert scan.counts == [None, 7]


def test_the_newest_come_first_and_say_how_far_they_are(database: Database) -> None:
    first, second = _grid(database, 3, 2), _grid(database, 2, 1)
    _store(database, first, {1: 10, 2: 0})
    source = IspybGridScans(database)
    assert [(scan.dcid, scan.seen, scan.columns, scan.rows) for scan in source.recent(10)] == [
        (second, 0, 2, 1),
        (first, 2, 3, 2),
    ]
    assert len(source.recent(1)) == 1


def test_what_is_no_grid_scan_is_none(database: Database) -> None:
    rotation = made_ispyb.rotation(database, made_ispyb.group(database))
    source = IspybGridScans(database)
    assert source.scan(rotation) is None
    assert source.scan(987654) is None


def test_a_grid_that_cannot_be_is_none(database: Database) -> None:
    too_large, empty = _grid(database, 100_000, 100_000), _grid(database, 0, 4)
    source = IspybGridScans(database)
    assert source.scan(too_large) is None
    assert source.scan(empty) is None
    assert len(source.recent(10)) == 2


def test_a_database_that_is_away_is_named(tmp_path: Path) -> None:
    source = IspybGridScans(Database(f"sqlite:///{tmp_path / 'nothing.sqlite'}"))
    with pytest.raises(GridScansUnavailable, match=r"nothing\.sqlite"):
        source.recent(10)


def test_the_source_is_found_where_a_database_is_configured(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ISPYB_CREDENTIALS", raising=False)
    dcid = _grid(database, 3, 2)
    assert grid_scans(Config()) is None
    source = grid_scan_source(dataclasses.replace(Config(), ispyb_url=f"sqlite:///{database.path}"))
    assert source is not None
    assert [scan.dcid for scan in source.recent(5)] == [dcid]
