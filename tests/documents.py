"""The documents of the project: their links, headings and code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code: its language, if it says one, and its text."""

    language: str
    text: str


def name(document: Path) -> str:
    """Path of a document in the project."""
    return str(document.relative_to(ROOT))


def blocks(document: Path) -> list[Block]:
    """The blocks of code in a document."""
    return [Block(*found) for found in _FENCE.findall(document.read_text(encoding="utf-8"))]


def prose(document: Path) -> str:
    """The text of a document without its blocks of code."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def inline_code(document: Path) -> list[str]:
    """What stands between single backticks."""
    return _INLINE.findall(prose(document))


def links(document: Path) -> Iterator[str]:
    """Where the links and pictures of a document lead, but for those to the web."""
    for target in _LINK.findall(_INLINE.sub("", prose(document))):
        if not target.startswith(("https://", "http://")):
            yield target


def anchors(document: Path) -> set[str]:
    """The names by which the headings of a document are linked to."""
    headings = (heading.replace("`", "").lower() for heading in _HEADING.findall(prose(document)))
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in headings}
