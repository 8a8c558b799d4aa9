"""Text from messages into HTML: the templates, and what they do to each value that they show."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from parvis.observe.wording import bearable, clock_text, duration_text
from parvis.web.live import Part

LONGEST: Final = 20_000
"""Characters of a text that a page shows."""

TEMPLATES: Final = Path(__file__).parent / "templates"
_KEPT = frozenset("\n\t")


@cache
def environment() -> Environment:
    """Return the templates: what they show is escaped, of a bearable length, without control characters."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=harmless,
    )
    filters = cast("dict[str, Callable[..., str]]", made.filters)  # pyright: ignore[reportUnknownMemberType]
    filters |= {"iso": iso, "clock": clock_text, "seconds": duration_text, "short": short}
    return made


def harmless(value: Any) -> Any:
    """Return a text as it may be shown: without control and direction characters, and not too long."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    cut = value if len(value) <= LONGEST else f"{value[:LONGEST]}… ({len(value):,} characters in all)"
    if cut.isprintable():
        return cut
    return "".join(
        sign if sign.isprintable() or sign in _KEPT else "\N{REPLACEMENT CHARACTER}" for sign in cut
    )


def part(name: str, key: str, *arguments: Any) -> Part:
    """Return the part that macro `name` of the templates makes, for what `key` tells from others."""
    macros: Any = environment().get_template("parts.html").module
    identity = part_id(name, key)
    macro = cast("Callable[..., str]", getattr(macros, name))
    return Part(identity, str(macro(identity, *arguments)))


def part_id(name: str, key: str) -> str:
    """Return the `id` of an element for what `key` names, whatever is in it."""
    return f"{name}-{hashlib.blake2b(key.encode(errors='replace'), digest_size=8).hexdigest()}"


def iso(moment: float) -> str:
    """Return a moment, in seconds since 1970, as machines read it: ISO 8601 in UTC."""
    return f"{datetime.fromtimestamp(bearable(moment), UTC):%Y-%m-%dT%H:%M:%SZ}"


def short(text: str) -> str:
    """Return the beginning of an ID: enough to know it by."""
    return text[:8]
