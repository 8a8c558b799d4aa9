"""`parvis find`: fields and filled recipes in the terminal, without a broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from made_ispyb import grid, group, insert
from parvis.cli import main
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.schema import CORE_TABLES, create_schema
from real_data import real_data

RECIPE: dict[str, Any] = {
    "1": {
        "service": "Watcher",
        "queue": "filewatcher",
        "parameters": {"pattern": "{ispyb_image_directory}{ispyb_image_pattern}", "host": "{my_host}"},
        "gridinfo": "{$REPLACE:ispyb_dc_info[gridinfo]}",
    },
    "start": [[1, []]],
}


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'ispyb.db'}")
    create_schema(made, tables=CORE_TABLES)
    return made


@pytest.fixture
def dcid(database: Database) -> int:
    return grid(database, group(database, experiment="Mesh"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "watch.json"
    path.write_text(json.dumps(RECIPE))
    return path


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZOCALO_CONFIG", "PARVIS_ISPYB_URL", "ISPYB_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


def find(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["find", *map(str, arguments)])


def url_of(database: Database) -> str:
    return f"sqlite:///{database.path}"


def test_fields_for_people(database: Database, dcid: int) -> None:
    done = find(dcid, "--ispyb", url_of(database))
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert any(line.split() == ["ispyb_dcid", str(dcid)] for line in lines)
    assert any(line.split() == ["grid", "true"] for line in lines)


def test_fields_for_programs(database: Database, dcid: int) -> None:
    done = find(dcid, "--json", "--ispyb", url_of(database))
    fields = json.loads(done.stdout)
    assert fields["ispyb_dcid"] == dcid
    assert fields["ispyb_dc_info"]["gridinfo"]["steps_x"] == 4
    assert len(fields) == 37


def test_the_database_may_be_configured(
    database: Database, dcid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARVIS_ISPYB_URL", url_of(database))
    assert json.loads(find(dcid, "--json").stdout)["ispyb_dcid"] == dcid


def test_a_recipe_filled_in(database: Database, dcid: int, recipe: Path) -> None:
    done = find(dcid, "-f", recipe, "--ispyb", url_of(database))
    assert done.exit_code == 0, done.output
    node = json.loads(done.stdout)["1"]
    assert node["parameters"]["pattern"].endswith("/grid/grid_1_%04d.cbf")
    assert node["parameters"]["host"] == "{my_host}"
    assert node["gridinfo"]["steps_y"] == 3
    assert "my_host" in done.stderr


def test_what_is_not_filled_in_is_named(database: Database, dcid: int, tmp_path: Path) -> None:
    path = tmp_path / "slips.json"
    slips = {"a": "{ispyb_result_directory}/a", "b": "/data/{ispyb_dcid/b", "c": "{ispyb dcid}"}
    path.write_text(json.dumps({"1": {"queue": "x", "parameters": slips}, "start": [[1, {}]]}))
    done = find(dcid, "-f", path, "--ispyb", url_of(database))
    assert json.loads(done.stdout)["1"]["parameters"] == slips
    assert done.stderr.splitlines() == [
        "Not filled in, as nobody gives them: ispyb_result_directory",
        'Not filled in: "/data/{ispyb_dcid/b" has a { without its other half; if that is meant, write {{',
        'Not filled in: "{ispyb dcid}" has a space in it',
    ]


def test_a_recipe_by_name_into_a_file(database: Database, dcid: int, tmp_path: Path) -> None:
    out = tmp_path / "filled.json"
    done = find(dcid, "-r", "per-image-analysis-gridscan", "-o", out, "--ispyb", url_of(database))
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    text = out.read_text()
    assert str(dcid) in text
    assert "{ispyb_" not in text
    assert "start" in json.loads(text)


def test_two_recipes_run_as_one(database: Database, dcid: int, recipe: Path) -> None:
    one = json.loads(find(dcid, "-r", "per-image-analysis-gridscan", "--ispyb", url_of(database)).stdout)
    names = ("-r", "per-image-analysis-gridscan", "-f", recipe)
    both = json.loads(find(dcid, *names, "--ispyb", url_of(database)).stdout)
    assert len(both) == len(one) + 1


def test_a_processing_job(database: Database, dcid: int) -> None:
    job = insert(database, "ProcessingJob", dataCollectionId=dcid, recipe="xia2-dials")
    fields = json.loads(find("-p", job, "--json", "--ispyb", url_of(database)).stdout)
    assert (fields["ispyb_process"], fields["ispyb_dcid"]) == (job, dcid)


def test_the_sample_data() -> None:
    url = f"sqlite:///{real_data('ispyb_sample.sqlite')}"
    fields = json.loads(find(6017405, "--json", "--ispyb", url).stdout)
    assert fields["ispyb_image_last"] == 480


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["4711"], "ISPyB has no data collection 4711"),
        (["-p", "4711"], "ISPyB has no processing job 4711"),
        (["abc"], "ispyb_dcid must be a positive whole number, not 'abc'"),
        (["{dcid}", "-r", "../../etc/passwd"], "cannot be the name of a recipe"),
        (["{dcid}", "-r", "per-image-analysis-gridscn"], "there is no recipe"),
        (["{dcid}", "-f", "/nowhere.json"], "/nowhere.json: No such file"),
        (["{dcid}", "-f", "{broken}"], "broken.json"),
        (["{dcid}", "-o", "/nowhere/out.json"], "/nowhere/out.json: No such file"),
    ],
)
def test_errors_are_one_clear_line(
    database: Database, dcid: int, tmp_path: Path, arguments: list[str], message: str
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"1": {"queue": ')
    given = [word.replace("{dcid}", str(dcid)).replace("{broken}", str(broken)) for word in arguments]
    done = find(*given, "--ispyb", url_of(database))
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_attribute_in_a_recipe_is_refused(database: Database, dcid: int, tmp_path: Path) -> None:
    path = tmp_path / "attribute.json"
    path.write_text(json.dumps(RECIPE).replace("{my_host}", "{ispyb_dcid.__class__}"))
    done = find(dcid, "-f", path, "--ispyb", url_of(database))
    assert done.exit_code == 1
    assert "attribute" in done.stderr


def test_without_a_database() -> None:
    done = find(1)
    assert done.exit_code == 2
    assert "no metadata database is configured" in done.stderr


def test_a_password_is_not_repeated() -> None:
    done = find(1, "--ispyb", "mysql://user:hunter2@127.0.0.1:9/ispyb")
    assert done.exit_code == 1
    assert "use PARVIS_ISPYB_URL" in done.stderr
    assert "hunter2" not in done.output
