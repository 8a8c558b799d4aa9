"""Per-image results on their way into the database: what is wrong with one costs the others nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import made_ispyb as made
from facility import sqlite_database
from parvis.config import Config
from parvis.recipe.check import check
from parvis.recipe.graph import Recipe
from parvis.service.registry import contracts
from parvis.service.testing import Run, run
from parvis_services.deliver.ispyb_pia import ISPyBPIA
from parvis_services.ispyb.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(sqlite_database(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def dcid(database: Database) -> int:
    return made.grid(database, made.group(database, experiment="Mesh"))


def execute(database: Database, statement: str) -> None:
    with database.writing() as connection:
        connection.execute(sa.text(statement))


def images(database: Database) -> list[int]:
    """The numbers of the images that have a row."""
    with database.reading() as connection:
        rows = connection.execute(sa.text("SELECT imageNumber FROM ImageQualityIndicators"))
        return sorted(rows.scalars())


def deliver(database: Database, dcid: int, *results: dict[str, Any]) -> Run:
    return run(
        ISPyBPIA, *results, parameters={"dcid": dcid}, config=Config(ispyb_url=f"sqlite:///{database.path}")
    )


def result(number: int, **more: Any) -> dict[str, Any]:
    return {"file-number": number, "n_spots_total": number, **more}


def results_of(done: Run) -> list[str]:
    return [outcome.result for outcome in done.outcomes]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (result(2, parameters={"dcid": 987654}), "no data collection 987654"),
        (result(2**30), "file-number must be a whole number"),
        (result(2, total_intensity="much"), "total_intensity must be a number"),
    ],
)
def test_a_result_that_is_no_good_is_rejected_and_the_others_stored(
    database: Database, dcid: int, wrong: dict[str, Any], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = deliver(database, dcid, result(1), wrong, result(3))
    assert results_of(done) == ["done", "reject", "done"]
    assert complaint in done.outcomes[1].reason
    assert images(database) == [1, 3]
    assert "one by one" not in caplog.text


@pytest.mark.parametrize(
    ("lacks", "complaint"),
    [({"file-number": 4}, "n_spots_total or dozor_score"), ({"n_spots_total": 4}, "file-number")],
)
def test_a_payload_that_says_nothing_of_an_image_is_rejected(
    database: Database, dcid: int, lacks: dict[str, Any], complaint: str
) -> None:
    outcome = deliver(database, dcid, lacks).outcome
    assert outcome.result == "reject"
    assert complaint in outcome.reason


def test_results_wait_until_the_database_takes_them_again(database: Database, dcid: int) -> None:
    execute(database, "ALTER TABLE ImageQualityIndicators RENAME TO away")
    done = deliver(database, dcid, result(1), result(2))
    assert results_of(done) == ["retry", "retry"]
    assert "ImageQualityIndicators" in done.outcome.reason
    execute(database, "ALTER TABLE away RENAME TO ImageQualityIndicators")
    assert results_of(deliver(database, dcid, result(1), result(2))) == ["done", "done"]


def test_a_row_that_the_database_refuses_holds_up_no_other(database: Database, dcid: int) -> None:
    execute(
        database,
        "CREATE TRIGGER picky BEFORE INSERT ON ImageQualityIndicators WHEN NEW.imageNumber = 2 "
        "BEGIN SELECT RAISE(ABORT, 'not this one'); END",
    )
    done = deliver(database, dcid, result(1), result(2), result(3))
    assert results_of(done) == ["done", "retry", "done"]
    assert "not this one" in done.outcomes[1].reason
    assert images(database) == [1, 3]


def test_a_database_that_is_away_is_waited_for(database: Database, dcid: int) -> None:
    away = database.path.rename(database.path.with_suffix(".away"))
    assert results_of(deliver(database, dcid, result(1), result(2))) == ["retry", "retry"]
    away.rename(database.path)
    assert results_of(deliver(database, dcid, result(1), result(2))) == ["done", "done"]


def test_the_check_of_a_recipe_finds_results_that_say_nothing() -> None:
    watch = {"pattern": "/d/%d", "pattern-start": 1, "pattern-end": 2}
    recipe = {
        "1": {"queue": "filewatcher", "parameters": watch, "output": {"every": 2}},
        "2": {"queue": "ispyb_pia", "parameters": {"dcid": 1}},
        "start": [[1, []]],
    }
    (problem,) = check(Recipe.from_dict(recipe), contracts(), set())
    assert problem.severity == "error"
    assert "n_spots_total or dozor_score" in problem.text
