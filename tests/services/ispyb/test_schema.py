"""The tables of ISPyB on SQLite and MariaDB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

import made_ispyb as made
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.errors import DatabaseError
from parvis_services.ispyb.fields import collection_fields
from parvis_services.ispyb.schema import CORE_TABLES, create_schema


def names_in(database: Database) -> set[str]:
    return set(sa.inspect(database.engine).get_table_names())


def test_all_tables(new_url: Callable[[str], str]) -> None:
    database = Database(new_url("all_tables"))
    create_schema(database)
    assert len(names_in(database)) >= 205
    dcid = made.grid(database, made.group(database, experiment="Mesh"))
    create_schema(database)
    assert collection_fields(database, dcid)["ispyb_dc_class"]["grid"] is True


def test_core_tables_come_with_those_they_refer_to(scratch: Database) -> None:
    names = names_in(scratch)
    assert names >= CORE_TABLES
    assert "BLSubSample" in names
    assert len(names) < 100


def test_defaults_of_the_tables_hold(scratch: Database) -> None:
    number = made.insert(scratch, "Proposal", personId=made.insert(scratch, "Person", familyName="x"))
    table = scratch.table("Proposal")
    with scratch.reading() as connection:
        row = connection.execute(sa.select(table).where(table.c.proposalId == number)).one()
    assert row.state == "Open"
    assert str(row.bltimeStamp).startswith("20")


def test_a_table_that_ispyb_does_not_have(new_url: Callable[[str], str]) -> None:
    with pytest.raises(DatabaseError, match="ISPyB has no table Nonsense"):
        create_schema(Database(new_url("nonsense")), tables=["Nonsense"])


def test_a_file_in_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be made: No such file"):
        create_schema(Database(f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}"), tables=CORE_TABLES)
