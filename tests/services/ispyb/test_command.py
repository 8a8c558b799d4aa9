"""`python -m parvis_services.ispyb`: the tables, made from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from parvis_services.ispyb import collections
from parvis_services.ispyb.__main__ import main
from parvis_services.ispyb.database import Database


def create(*arguments: str, **environment: str | None) -> Result:
    return CliRunner().invoke(main, ["create-schema", *arguments], env=environment)


def test_makes_tables_that_take_a_data_collection(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ispyb.sqlite'}"
    result = create(url)
    assert result.exit_code == 0
    assert result.output == f"The tables of ISPyB are in {url}.\n"
    database = Database(url)
    proposal = collections.create_proposal(database, "cm", 1)
    assert proposal == 1
    database.close()


@pytest.mark.parametrize("command", [[], ["create-schema"]])
def test_help_fits_a_terminal(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "-h"], terminal_width=80)
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []


def test_leaves_what_is_there_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ispyb.sqlite'}"
    create(url)
    database = Database(url)
    collections.create_proposal(database, "cm", 1)
    assert create(url).exit_code == 0
    assert collections.create_proposal(database, "cm", 2) == 2
    database.close()


def test_takes_the_database_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "ispyb.sqlite"
    assert create(PARVIS_ISPYB_URL=f"sqlite:///{path}").exit_code == 0
    assert path.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Missing argument 'URL'"),
        (["nonsense"], "write sqlite:///FILE or mysql+pymysql://USER:PASSWORD@HOST:PORT/NAME"),
        (["mysql://a:geheim@127.0.0.1:1/x"], "a:***@127.0.0.1:1/x: Can't connect"),
        (["mysql://a:b@geheim@127.0.0.1:1/x"], "write %40 for each"),
        (["mysql://a:b@c/geheim@127.0.0.1:1/x"], "write %40 for each"),
        (["sqlite:////nowhere/at/all.db"], "cannot be made: No such file or directory"),
    ],
)
def test_says_what_is_wrong(arguments: list[str], text: str) -> None:
    result = create(*arguments, PARVIS_ISPYB_URL=None)
    assert result.exit_code in {1, 2}
    assert text in result.output
    assert "geheim" not in result.output
    assert "Traceback" not in result.output
