"""The tables of ISPyB, made from the models of the `ispyb` package on SQLite and MariaDB."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite.base import SQLiteDDLCompiler, SQLiteTypeCompiler
from sqlalchemy.schema import CreateIndex, CreateTable

from parvis_services.ispyb.database import LOCK_WAIT, Database
from parvis_services.ispyb.errors import DatabaseError, DatabaseUnavailable

CORE_TABLES = frozenset(
    {
        "BLSample",
        "BLSampleGroup",
        "BLSampleGroup_has_BLSample",
        "BLSession",
        "Container",
        "Crystal",
        "DataCollection",
        "DataCollectionGroup",
        "Detector",
        "DiffractionPlan",
        "EnergyScan",
        "Event",
        "EventChain",
        "EventType",
        "GridInfo",
        "ImageQualityIndicators",
        "PDB",
        "Person",
        "ProcessingJob",
        "ProcessingJobImageSweep",
        "ProcessingJobParameter",
        "ProcessingPipeline",
        "Proposal",
        "Protein",
        "Protein_has_PDB",
    }
)
"""The tables that this package reads and writes."""

# What MariaDB's own functions and its "no date" are in SQLite.
_DEFAULTS = {
    "current_timestamp()": "CURRENT_TIMESTAMP",
    "current_user()": "''",
    "'0000-00-00 00:00:00'": "'1970-01-01 00:00:00'",
}


def create_schema(database: Database, *, tables: Collection[str] | None = None) -> None:
    """Create the tables of ISPyB; those that exist are left alone.

    An SQLite file is made where there is none, and set to write-ahead logging, so that readers and a writer
    do not wait for each other. A MariaDB database must exist.

    Args:
        database: where.
        tables: names of tables; they and those they refer to are made. Without it all (about 200) are.

    Raises:
        DatabaseError: a table has no model, or the database refused.
        DatabaseUnavailable: the database cannot be reached.
    """
    wanted = _with_references(tables)
    if database.is_sqlite:
        _create_in_file(database, wanted)
        return
    with database.writing() as connection:
        wanted[0].metadata.create_all(connection, tables=wanted)


def _with_references(names: Collection[str] | None) -> list[sa.Table]:
    from ispyb.sqlalchemy import Base  # half a second and 20 MB, which only the makers of tables pay

    metadata: sa.MetaData = Base.metadata
    wanted: set[str] = set()
    waiting = set(metadata.tables if names is None else names)
    if unknown := waiting - set(metadata.tables):
        raise DatabaseError(f"ISPyB has no table {', '.join(sorted(unknown))}")
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting |= {key.column.table.name for key in metadata.tables[name].foreign_keys} - wanted
    return [metadata.tables[name] for name in sorted(wanted)]


def _create_in_file(database: Database, tables: Iterable[sa.Table]) -> None:
    script = "\n".join(["BEGIN;", *_statements(tables), "COMMIT;"])
    try:
        database.path.touch()
        with closing(sqlite3.connect(database.path, timeout=LOCK_WAIT)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(script)
    except OSError as error:
        raise DatabaseError(f"{database} cannot be made: {error.strerror}") from error
    except sqlite3.OperationalError as error:
        raise DatabaseUnavailable(f"{database}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise DatabaseError(f"{database}: {error}") from error


def _statements(tables: Iterable[sa.Table]) -> Iterable[str]:
    dialect = sqlite.dialect()
    dialect.ddl_compiler = _TableCompiler
    dialect.type_compiler_instance = _TypeCompiler(dialect)
    for table in tables:
        yield f"{CreateTable(table, if_not_exists=True).compile(dialect=dialect)};"
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            yield f"{CreateIndex(index, if_not_exists=True).compile(dialect=dialect)};"


class _TypeCompiler(SQLiteTypeCompiler):
    """MySQL's types by the names that give them the right affinity in SQLite."""

    def _integer(self, type_: object, **_: Any) -> str:  # noqa: ARG002 - SQLAlchemy's signature
        return "INTEGER"

    def _text(self, type_: object, **_: Any) -> str:  # noqa: ARG002 - SQLAlchemy's signature
        return "TEXT"

    def _bytes(self, type_: object, **_: Any) -> str:  # noqa: ARG002 - SQLAlchemy's signature
        return "BLOB"

    # A primary key only numbers itself in SQLite when its type is the bare word INTEGER.
    visit_INTEGER = visit_TINYINT = visit_SMALLINT = visit_MEDIUMINT = _integer  # noqa: N815
    visit_LONGTEXT = visit_MEDIUMTEXT = _text  # noqa: N815
    visit_LONGBLOB = visit_BINARY = _bytes  # noqa: N815


class _TableCompiler(SQLiteDDLCompiler):
    """Defaults and index names as SQLite takes them."""

    def get_column_default_string(self, column: sa.Column[Any]) -> str | None:
        default = super().get_column_default_string(column)
        if default is None:
            return None
        # SQLite cannot touch a column whenever a row changes; the value a row starts with remains.
        default = default.split(" ON UPDATE ")[0]
        return _DEFAULTS.get(default, default)

    def _prepared_index_name(self, index: sa.Index, include_schema: bool = False) -> str:
        # Two tables may have indexes of one name in MariaDB, not in SQLite.
        del include_schema
        table = index.table
        name = f"{table.name}__{index.name}" if table is not None else str(index.name)
        return self.preparer.quote(name)
