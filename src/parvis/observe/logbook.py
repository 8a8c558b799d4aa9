"""What is noted of each recipe that was started, in four sections; and the dispatcher's files of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from parvis.observe.hops import Started
from parvis.observe.wording import moment_text

#: Headings of the sections; the first two are of the request as it came in.
HEADINGS: Final = (
    "Incoming message header:",
    "Incoming message body:",
    "Parsed message body:",
    "Recipe object:",
)

_UNSUITABLE: Final = re.compile(r"[^A-Za-z0-9-]")
_SHORTEST: Final = 3
_MONTH: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]"
_LARGEST: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """What is noted of a recipe.

    Attributes:
        recipe_id: The recipe ID.
        at: When it was started, in seconds since 1970.
        sections: Heading and text of each section.
    """

    recipe_id: str
    at: float
    sections: Sequence[tuple[str, str]]

    @property
    def title(self) -> str:
        """The recipe ID and when, in local time."""
        return f"{self.recipe_id} ({moment_text(self.at)})"

    @property
    def text(self) -> str:
        """All sections."""
        return "\n\n".join(f"{heading}\n{content}" for heading, content in self.sections) + "\n"


def entry_of(started: Started) -> Entry:
    """Return what is noted of a recipe that was started."""
    contents = (dict(started.header), started.message, started.parameters, started.recipe)
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    texts = [orjson.dumps(content, default=str, option=options).decode() for content in contents]
    return Entry(started.recipe_id, started.at, list(zip(HEADINGS, texts, strict=True)))


def path_of(recipe_id: str) -> Path | None:
    """Return where the file of a recipe is inside the directory of a month; None if its ID is too short."""
    name = _UNSUITABLE.sub("", recipe_id)
    return Path(name[:2]) / name[2:] if len(name) >= _SHORTEST else None


def read_entries(directory: Path, recipe_id: str) -> list[Entry]:
    """Return what the files of the dispatcher say of a recipe, of each month in which it was started.

    Raises:
        OSError: A file cannot be read.
    """
    path = path_of(recipe_id)
    if path is None:
        return []
    files = sorted(directory.glob(f"{_MONTH}/{path.as_posix()}"))
    return [_read(file, recipe_id) for file in files if file.is_file()]


def find_entries(directory: Path, prefix: str, most: int = 10) -> list[str]:
    """Return the recipe IDs that begin with `prefix`, of three characters or more, as the files have them."""
    path = path_of(prefix)
    if path is None:
        return []
    found = directory.glob(f"{_MONTH}/{path.as_posix()}*")
    return sorted({f"{file.parent.name}{file.name}" for file in found})[:most]


def _read(file: Path, recipe_id: str) -> Entry:
    with file.open("rb") as opened:
        text = opened.read(_LARGEST).decode(errors="replace")
    lines = text.splitlines()
    places = [lines.index(heading) for heading in HEADINGS if heading in lines]
    sections = [
        (lines[begin], "\n".join(lines[begin + 1 : end]).strip())
        for begin, end in zip(places, [*places[1:], len(lines)], strict=True)
    ]
    return Entry(recipe_id, file.stat().st_mtime, sections)
