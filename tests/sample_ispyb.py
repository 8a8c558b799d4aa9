"""The public sample rows of ISPyB as a database of one's own, on SQLite or MariaDB."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from parvis_services.ispyb.database import Database
from parvis_services.ispyb.schema import create_schema
from real_data import real_data

SESSIONS = (55167, 55168)
"""The sessions that the sample's data collections name; the sample rows themselves lack them."""


def load_sample(url: str) -> Database:
    """Put the sample rows into a database, with their sessions at i03.

    Args:
        url: of an SQLite file that does not exist yet, or of an empty MariaDB database.
    """
    database = Database(url)
    source = real_data("ispyb_sample.sqlite")
    if database.is_sqlite:
        shutil.copyfile(source, database.path)
        database.path.chmod(0o644)
    else:
        create_schema(database)
        with closing(sqlite3.connect(f"{source.as_uri()}?mode=ro&immutable=1", uri=True)) as rows:
            _copy(rows, database)
    _add_sessions(database)
    return database


def _copy(rows: sqlite3.Connection, database: Database) -> None:
    rows.row_factory = sqlite3.Row
    names = [row[0] for row in rows.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    with database.engine.begin() as connection:
        # The sample refers to rows it does not have, and holds values of laxer days.
        connection.exec_driver_sql("SET foreign_key_checks = 0")
        connection.exec_driver_sql("SET SESSION sql_mode = ''")
        for name in names:
            copied = [dict(row) for row in rows.execute(f'SELECT * FROM "{name}"')]  # noqa: S608 - names of our own file
            if copied:
                _insert(connection, database.table(name), copied)
        connection.exec_driver_sql("SET foreign_key_checks = 1")


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    computed = {column.name for column in table.columns if column.computed is not None}
    connection.execute(
        sa.insert(table),
        [{name: value for name, value in row.items() if name not in computed} for row in rows],
    )


def _add_sessions(database: Database) -> None:
    table = database.table("BLSession")
    day = datetime(2016, 1, 14)
    rows: list[Mapping[str, Any]] = [
        {
            "sessionId": session,
            "proposalId": 37027,
            "beamLineName": "i03",
            "visit_number": visit,
            "lastUpdate": day,
            "startDate": day,
        }
        for visit, session in enumerate(SESSIONS, start=1)
    ]
    with database.writing() as connection:
        connection.execute(sa.insert(table), rows)
