"""One ISPyB database: its connection pool, its tables as they really are, and errors a person can read."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from parvis_services.ispyb.errors import (
    BadDatabaseUrl,
    DatabaseError,
    DatabaseUnavailable,
    Deadlock,
    IspybError,
)
from parvis_services.ispyb.rows import as_stored

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

LOCK_WAIT = 10.0  # seconds an SQLite writer waits for another
CONNECT_WAIT = 10  # seconds to reach a server
ANSWER_WAIT = 60  # seconds a server may take for one answer
RECYCLE = 1800  # seconds after which a pooled connection is replaced: shorter than any firewall's patience

_WRITING = "parvis_writing"
_DEADLOCK = {1205, 1213}
# Server and client error numbers that pass by themselves: too many connections, shutting down, Galera node
# not in sync, broken or refused connections, a read-only phase during a failover, a killed connection.
_PASSING = {
    *(1040, 1047, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1290, 1317, 1836, 1927),
    *(2002, 2003, 2005, 2006, 2013, 2055, 4031),
}


class Database:
    """An ISPyB database behind one connection pool; it may be shared by the threads of a process.

    Making one does not connect. A connection is tested before it is used, so that a server that was restarted
    costs nothing but a reconnection, and in a forked child the pool starts afresh.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db` or `mysql+pymysql://user:password@host:port/name`
            (`mysql://` and `mariadb://` mean the same). An SQLite file must exist; `create_schema` makes one.

    Raises:
        BadDatabaseUrl: the URL is not one of those, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._metadata = sa.MetaData()
        self._lock = threading.Lock()
        self._engine = _engine(self._url)
        event.listen(self._metadata, "column_reflect", as_stored)
        _start_afresh_in_child(self._engine)

    def __repr__(self) -> str:
        return f"Database({str(self)!r})"

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, for statements of your own and for events."""
        return self._engine

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """The file of an SQLite database.

        Raises:
            BadDatabaseUrl: it is not an SQLite database.
        """
        if not self.is_sqlite:
            raise BadDatabaseUrl(f"{self} is not an SQLite file")
        return Path(self._url.database or "")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for queries, all of which see one state of the database.

        Raises:
            DatabaseUnavailable: the database cannot be reached just now.
            DatabaseError: it refused.
        """
        with self._readable_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction: committed at the end of the block, undone when the block raises.

        Raises:
            DatabaseUnavailable: the database cannot be reached just now; nothing was stored.
            DatabaseError: it refused; nothing was stored.
        """
        with self._readable_errors(), self._engine.connect() as connection:
            connection.execution_options(**{_WRITING: True})
            with connection.begin():
                yield connection

    def table(self, name: str) -> sa.Table:
        """A table with the columns this database really has (read once, then remembered).

        Raises:
            DatabaseError: there is no such table.
            DatabaseUnavailable: the database cannot be reached just now.
        """
        known = self._metadata.tables.get(name)
        if known is not None:
            return known
        return self.tables(name)[0]

    def tables(self, *names: str) -> list[sa.Table]:
        """Several tables; see `table`."""
        with self._lock:
            missing = [name for name in names if name not in self._metadata.tables]
            if missing:
                with self.reading() as connection:
                    for name in missing:
                        self._reflect(name, connection)
        return [self._metadata.tables[name] for name in names]

    def _reflect(self, name: str, connection: Connection) -> None:
        try:
            sa.Table(name, self._metadata, autoload_with=connection, resolve_fks=False)
        except exc.NoSuchTableError:
            raise DatabaseError(f"{self} has no table {name}: is it an ISPyB database?") from None

    def close(self) -> None:
        """Close the pooled connections; the next use opens new ones."""
        self._engine.dispose()

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.TimeoutError as error:
            raise DatabaseUnavailable(f"{self}: all connections are in use") from error
        except exc.DBAPIError as error:
            raise self._readable(error) from error
        except exc.SQLAlchemyError as error:
            raise DatabaseError(f"{self}: {self._masked(str(error))}") from error

    def _readable(self, error: exc.DBAPIError) -> IspybError:
        said = f"{self}: {self._masked(_reason(error))}"
        if self.is_sqlite:
            if "unable to open" in said:
                return DatabaseUnavailable(f"{said} (does {self.path} exist?)")
            return DatabaseUnavailable(said) if "locked" in said else DatabaseError(said)
        number = _number(error)
        if number in _DEADLOCK:
            return Deadlock(said)
        if error.connection_invalidated or number in _PASSING:
            return DatabaseUnavailable(said)
        return DatabaseError(said)

    def _masked(self, text: str) -> str:
        password = self._url.password
        return text.replace(str(password), "***") if password else text


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        # The text is left out: it may hold a password.
        raise BadDatabaseUrl(
            "the ISPyB URL cannot be read; write sqlite:///FILE or mysql+pymysql://USER:PASSWORD@HOST:PORT/NAME"
        ) from None
    if not url.startswith("sqlite") and url.count("@") > 1:
        # What follows the first would pass for the host, and be shown.
        raise BadDatabaseUrl(
            "the ISPyB URL cannot be read, as it has more than one '@': write %40 for each in the user name "
            "or the password"
        )
    if parsed.drivername in {"mysql", "mariadb"}:
        parsed = parsed.set(drivername=f"{parsed.drivername}+pymysql")
    shown = parsed.render_as_string(hide_password=True)
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "mysql", "mariadb"}:
        raise BadDatabaseUrl(f"{shown}: ISPyB lives in SQLite or MariaDB, not in {backend}")
    if not parsed.database or (backend == "sqlite" and parsed.database.startswith((":memory:", "file:"))):
        missing = "the path of a file" if backend == "sqlite" else "the name of a database"
        raise BadDatabaseUrl(f"{shown}: the URL must end with {missing}")
    return parsed


def _engine(url: sa.URL) -> Engine:
    try:
        engine = _sqlite_engine(url) if url.get_backend_name() == "sqlite" else _server_engine(url)
    except ModuleNotFoundError as error:
        raise BadDatabaseUrl(
            f"{url.render_as_string(hide_password=True)}: the driver {error.name} is not installed "
            "(pip install 'parvis[ispyb]')"
        ) from error
    except exc.NoSuchModuleError as error:
        raise BadDatabaseUrl(f"{url.render_as_string(hide_password=True)}: {error}") from error
    return engine


def _server_engine(url: sa.URL) -> Engine:
    return sa.create_engine(
        url,
        pool_size=2,
        max_overflow=4,
        pool_pre_ping=True,
        pool_recycle=RECYCLE,
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_WAIT,
            "read_timeout": ANSWER_WAIT,
            "write_timeout": ANSWER_WAIT,
        }
        if url.get_driver_name() == "pymysql"
        else {},
    )


def _sqlite_engine(url: sa.URL) -> Engine:
    # Opened with mode=rw, so that a mistyped path is an error and not a new, empty database.
    path = Path(url.database or "").absolute().as_uri()
    engine = sa.create_engine(
        url.set(database=path, query={"uri": "true", "mode": "rw"}),
        pool_size=2,
        max_overflow=4,
        hide_parameters=True,
        connect_args={"timeout": LOCK_WAIT},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    # The driver's own transactions start late, with the first change; ours start where the block starts.
    connection.isolation_level = None  # pyright: ignore[reportAttributeAccessIssue]
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer asks for the lock at once: two that first read and then write would stop each other for good.
    writing = connection.get_execution_options().get(_WRITING)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _start_afresh_in_child(engine: Engine) -> None:
    # A connection shared with the parent process would mix up both their answers.
    reference = weakref.ref(engine)

    def forget_connections() -> None:
        known = reference()
        if known is not None:
            known.dispose(close=False)

    os.register_at_fork(after_in_child=forget_connections)


def _number(error: exc.DBAPIError) -> int:
    arguments: tuple[Any, ...] = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _reason(error: exc.DBAPIError) -> str:
    arguments: tuple[Any, ...] = getattr(error.orig, "args", ())
    texts = [argument for argument in arguments if isinstance(argument, str)]
    return texts[0] if texts else type(error.orig).__name__
