"""Transactions of SQLite files that several processes share."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator


@contextlib.contextmanager
def writing(database: sqlite3.Connection) -> Generator[None]:
    """A transaction that writes: all of it or, if something is raised, nothing.

    Args:
        database: Opened with `isolation_level=None`, so that it begins none itself.
    """
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("COMMIT")
    except BaseException:
        # A full disk has ended it already; a time limit may strike when it has just begun.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
