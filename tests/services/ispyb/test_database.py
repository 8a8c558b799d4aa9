"""Databases that are away, refuse, are no ISPyB, or are named wrongly; and passwords that nobody sees."""

from __future__ import annotations

import os
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

import made_ispyb as made
from parvis_services.ispyb.collections import create_proposal
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.errors import BadDatabaseUrl, DatabaseError, DatabaseUnavailable
from parvis_services.ispyb.fields import collection_fields
from parvis_services.ispyb.schema import CORE_TABLES, create_schema
from real.mariadb import MariaDb


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense with hunter2", "cannot be read"),
        ("mysql+pymysql://u:hunter2@host:port/x", "cannot be read"),
        ("postgresql://u:hunter2@host/x", "SQLite or MariaDB, not in postgresql"),
        ("mysql://u:hunter2@host", "name of a database"),
        ("sqlite://", "path of a file"),
        ("sqlite:///:memory:", "path of a file"),
        ("mysql+nodriver://u:hunter2@host/x", "nodriver"),
    ],
)
def test_urls_that_cannot_be_used(url: str, message: str) -> None:
    with pytest.raises(BadDatabaseUrl, match=message) as caught:
        Database(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_password_is_never_shown() -> None:
    database = Database("mysql://user:hunter2@localhost:3306/ispyb")
    assert str(database) == "mysql+pymysql://user:***@localhost:3306/ispyb"
    assert "hunter2" not in repr(database)


def test_a_mistyped_file_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "typo.db"
    with pytest.raises(DatabaseUnavailable, match=r"typo\.db exist\?"):
        collection_fields(Database(f"sqlite:///{path}"), 1)
    assert not path.exists()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is not a database, " * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        collection_fields(Database(f"sqlite:///{path}"), 1)


def test_a_database_that_is_no_ispyb(new_url: Callable[[str], str]) -> None:
    database = Database(new_url("empty"))
    if database.is_sqlite:
        sqlite3.connect(database.path).close()
    with pytest.raises(DatabaseError, match="has no table DataCollection: is it an ISPyB database"):
        collection_fields(database, 1)


def test_a_locked_file_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parvis_services.ispyb.database.LOCK_WAIT", 0.01)
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    create_schema(database, tables=CORE_TABLES)
    with closing(sqlite3.connect(database.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            create_proposal(database, "cm", 1)
        other.rollback()
    assert create_proposal(database, "cm", 1) > 0


def insert_and_fail(database: Database, table: sa.Table) -> None:
    with database.writing() as connection:
        connection.execute(sa.insert(table).values(detectorModel="never"))
        raise ZeroDivisionError


def test_what_was_begun_is_undone_when_the_block_raises(scratch: Database) -> None:
    table = scratch.table("Detector")
    with pytest.raises(ZeroDivisionError):
        insert_and_fail(scratch, table)
    with scratch.reading() as connection:
        assert connection.execute(sa.select(table).where(table.c.detectorModel == "never")).first() is None


def test_a_refused_row_is_an_error_with_the_reason(scratch: Database) -> None:
    group = made.group(scratch)
    with pytest.raises(DatabaseError, match=r"(?i)foreign key constraint") as caught:
        made.rotation(scratch, group, detectorId=987654)
    assert not isinstance(caught.value, DatabaseUnavailable)


def test_a_forked_child_has_connections_of_its_own(scratch: Database) -> None:
    dcid = made.rotation(scratch, made.group(scratch))
    collection_fields(scratch, dcid)
    child = os.fork()
    if child == 0:
        try:
            inherited = scratch.engine.pool.checkedin()  # pyright: ignore[reportAttributeAccessIssue] - of its pools
            found = collection_fields(scratch, dcid)["ispyb_dcid"] if inherited == 0 else None
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happens
            found = None
        os._exit(0 if found == dcid else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert collection_fields(scratch, dcid)["ispyb_dcid"] == dcid


@pytest.mark.real("mariadb")
def test_a_server_that_is_away_and_comes_back(mariadb: MariaDb) -> None:
    database = Database(mariadb.create_database("outage"))
    create_schema(database, tables=CORE_TABLES)
    dcid = made.rotation(database, made.group(database))
    assert collection_fields(database, dcid)["ispyb_dcid"] == dcid
    # Restarted unnoticed: the pooled connection is dead, and nobody is bothered with that.
    mariadb.stop()
    mariadb.start()
    assert collection_fields(database, dcid)["ispyb_dcid"] == dcid
    mariadb.stop()
    try:
        with pytest.raises(DatabaseUnavailable) as caught:
            collection_fields(database, dcid)
        assert mariadb.password not in "".join(traceback.format_exception(caught.value))
    finally:
        mariadb.start()
    assert collection_fields(database, dcid)["ispyb_dcid"] == dcid


@pytest.mark.real("mariadb")
def test_a_wrong_password_is_refused_and_not_shown(mariadb: MariaDb) -> None:
    database = Database(f"mysql://{mariadb.user}:hunter2@127.0.0.1:{mariadb.port}/parvis")
    with pytest.raises(DatabaseError, match="Access denied") as caught:
        collection_fields(database, 1)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_nobody_listens() -> None:
    with pytest.raises(DatabaseUnavailable, match="Can't connect"):
        collection_fields(Database("mysql://u:p@127.0.0.1:9/x"), 1)
