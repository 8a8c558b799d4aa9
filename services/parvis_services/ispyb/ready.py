"""Whether a data collection has ended, for recipes that must wait for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from parvis_services.ispyb.errors import UnknownDataCollection
from parvis_services.ispyb.fields import as_number

if TYPE_CHECKING:
    from parvis_services.ispyb.database import Database

_NO = {"", "0", "false", "no", "off", "none"}


def is_ready(database: Database, parameters: Mapping[str, Any]) -> bool:
    """Whether the data collection of a message may be processed now.

    With `ispyb_wait_for_runstatus` that is when the acquisition has written its run status; without it, and
    without `ispyb_dcid`, at once.

    Raises:
        UnknownDataCollection: there is none with that number.
        BadParameter: `ispyb_dcid` is no number.
        DatabaseUnavailable: the database cannot be reached just now.
    """
    wait = parameters.get("ispyb_wait_for_runstatus")
    dcid = parameters.get("ispyb_dcid")
    if not dcid or not wait or str(wait).strip().lower() in _NO:
        return True
    number = as_number(dcid, "ispyb_dcid")
    table = database.table("DataCollection")
    with database.reading() as connection:
        found = connection.execute(
            sa.select(table.c.runStatus).where(table.c.dataCollectionId == number)
        ).one_or_none()
    if found is None:
        raise UnknownDataCollection(f"ISPyB has no data collection {number}")
    return found.runStatus is not None
