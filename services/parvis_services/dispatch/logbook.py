"""The dispatcher's logbook: one file for each recipe that was started, for `show_recipeID` and for people."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

_log = logging.getLogger("parvis.service.Dispatcher")
_UNSUITABLE = re.compile(r"[^A-Za-z0-9-]")
_SHORTEST = 3


@dataclass(frozen=True, slots=True)
class LogbookEntry:
    """What is noted of a recipe.

    Attributes:
        recipe_id: The recipe ID.
        header: Headers of the message that asked for it.
        message: That message.
        parameters: The parameters, once the filters had seen them.
        recipe: The recipe, filled in.
    """

    recipe_id: str
    header: Mapping[str, str]
    message: Any
    parameters: Any
    recipe: Any


def write_entry(directory: Path, entry: LogbookEntry) -> None:
    """Note a recipe in `<directory>/YYYY-MM/<first two of the ID>/<rest of it>`.

    The logbook is there for people; that it cannot be written is logged and stops nothing.
    """
    name = _UNSUITABLE.sub("", entry.recipe_id)
    if len(name) < _SHORTEST:
        _log.warning("recipe ID %r is too short for the logbook", entry.recipe_id[:80])
        return
    path = directory / time.strftime("%Y-%m") / name[:2] / name[2:]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_text(entry))
    except OSError as error:
        _log.warning("the logbook entry %s could not be written: %s", path, error.strerror)


def _text(entry: LogbookEntry) -> bytes:
    sections = {
        "Incoming message header:": dict(entry.header),
        "Incoming message body:": entry.message,
        "Parsed message body:": entry.parameters,
        "Recipe object:": entry.recipe,
    }
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    return (
        b"\n\n".join(
            heading.encode() + b"\n" + orjson.dumps(content, default=str, option=options)
            for heading, content in sections.items()
        )
        + b"\n"
    )
