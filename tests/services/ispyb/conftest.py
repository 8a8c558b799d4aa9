"""ISPyB databases for the tests: every test that asks for one runs on SQLite and on MariaDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from parvis_services.ispyb.database import Database
from parvis_services.ispyb.schema import CORE_TABLES, create_schema
from real.mariadb import MariaDb
from sample_ispyb import load_sample

SERVERS = ["sqlite", pytest.param("mariadb", marks=pytest.mark.real("mariadb"))]


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """Which database a test runs on."""
    return request.param


@pytest.fixture(scope="session")
def new_url(
    server: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Gives the URL of a new database without tables, by name."""
    if server == "sqlite":
        return lambda name: f"sqlite:///{tmp_path_factory.mktemp('ispyb') / name}.db"
    running: MariaDb = request.getfixturevalue("mariadb")
    return running.create_database


@pytest.fixture(scope="session")
def scratch(new_url: Callable[[str], str]) -> Iterator[Database]:
    """A database with the core tables; tests make the data collections they need."""
    database = Database(new_url("scratch"))
    create_schema(database, tables=CORE_TABLES)
    yield database
    database.close()


@pytest.fixture(scope="session")
def sample(new_url: Callable[[str], str]) -> Iterator[Database]:
    """The public sample rows of ISPyB, whose sessions are at i03; not to be changed."""
    database = load_sample(new_url("sample"))
    yield database
    database.close()
