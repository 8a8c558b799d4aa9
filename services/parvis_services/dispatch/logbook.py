"""The dispatcher's logbook: one file for each recipe that was started, for `parvis trace --logbook`."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from parvis.observe.hops import Started
from parvis.observe.logbook import entry_of, path_of

_log = logging.getLogger("parvis.service.Dispatcher")


def write_entry(directory: Path, started: Started) -> None:
    """Note a recipe in `<directory>/YYYY-MM/<first two of the ID>/<rest of it>`.

    The logbook is there for people; that it cannot be written is logged and stops nothing.
    """
    name = path_of(started.recipe_id)
    if name is None:
        _log.warning("recipe ID %r is too short for the logbook", started.recipe_id[:80])
        return
    path = directory / time.strftime("%Y-%m") / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry_of(started).text)
    except OSError as error:
        _log.warning("the logbook entry %s could not be written: %s", path, error.strerror)
