"""Check of the metadata database: it answers, and has the tables that we read and write."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from parvis.observe.health import Finding

if TYPE_CHECKING:
    from parvis.config import Config

_SLOW = 1.0


def database(config: Config) -> Iterable[Finding]:
    """The metadata database answers, and has the tables that we need."""
    try:
        import sqlalchemy as sa

        from parvis_services.ispyb.configured import configured_database
        from parvis_services.ispyb.schema import CORE_TABLES
    except ModuleNotFoundError as error:
        advice = "pip install 'parvis[ispyb]'"
        level = "error" if config.ispyb_url else "skipped"
        yield Finding(level, f"the package {error.name} is not installed", advice=advice)
        return
    ispyb = configured_database(config)
    if ispyb is None:
        yield Finding("skipped", "no database is configured")
        return
    begun = time.monotonic()
    try:
        with ispyb.reading() as connection:
            connection.execute(sa.select(1))
            answered = time.monotonic() - begun
            there = {name.casefold() for name in sa.inspect(connection).get_table_names()}
    finally:
        ispyb.close()
    missing = sorted(name for name in CORE_TABLES if name.casefold() not in there)
    if missing:
        message = (
            f"{ispyb}: {len(missing)} of {len(CORE_TABLES)} tables are missing: {', '.join(missing[:5])}"
        )
        advice = "Is it an ISPyB database? python -m parvis_services.ispyb create-schema makes the tables."
        yield Finding("error", message, advice=advice, details=tuple(missing))
        return
    slow = answered > _SLOW
    message = f"{ispyb}: answered after {1000 * answered:.0f} ms, {len(there)} tables"
    yield Finding("warning" if slow else "ok", message, advice="It is slow: look at its load." * slow)
