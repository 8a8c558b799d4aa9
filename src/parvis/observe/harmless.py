"""Values of a broadcast that anybody may have sent, made safe to show and to calculate with."""

from __future__ import annotations

import math
import unicodedata
from typing import Any, Final, cast

LONGEST_TEXT: Final = 200


def harmless(value: Any, limit: int = LONGEST_TEXT) -> str:
    """Return a text in one line, at most `limit` characters of it, and nothing of what is no text.

    What moves a cursor, changes colours, turns the direction of writing or stacks signs on one another
    becomes `?` or nothing.
    """
    if not isinstance(value, str):
        return ""
    cut = value[:limit]
    if cut.isascii() and cut.isprintable():
        return cut.strip()
    return "".join(map(_shown, unicodedata.normalize("NFC", cut)))[:limit].strip()


def _shown(sign: str) -> str:
    if unicodedata.category(sign) in {"Mn", "Me"}:
        return ""
    return sign if sign.isprintable() and unicodedata.bidirectional(sign) not in {"R", "AL", "AN"} else "?"


def figure(value: Any) -> float | None:
    """Return a finite number that is not negative, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def figures(value: Any, most: int = 20) -> dict[str, float]:
    """Return the figures of an object, the first `most` of them."""
    if not isinstance(value, dict):
        return {}
    first = list(cast("dict[Any, Any]", value).items())[:most]
    read = {harmless(name): figure(number) for name, number in first}
    return {name: number for name, number in read.items() if name and number is not None}
