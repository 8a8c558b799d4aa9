"""Values of messages that may hold anything, taken only for what they are meant to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, cast

import orjson

from parvis_services.stream.cbor import Tag
from parvis_services.stream.events import MalformedStream

LARGEST_NUMBER: Final = 2**53 - 1
"""The largest whole number that every program reads from JSON as it is."""

_LONGEST_TEXT: Final = 200
_DEEPEST: Final = 16
_MOST_BYTES: Final = 16 * 1024 * 1024
_OMITTED: Final = object()


def number(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def positive(value: Any) -> float | None:
    """A number above 0, else None: detectors say 0 where nobody told them."""
    found = number(value)
    return found if found is not None and found > 0 else None


def whole(value: Any) -> int | None:
    """A whole number from 0 on that fits JSON, else None."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_NUMBER:
        return None
    return value


def text(value: Any) -> str | None:
    """A text, cut where it is longer than names are, else None."""
    return value[:_LONGEST_TEXT] if isinstance(value, str) and value else None


def truth(value: Any) -> bool | None:
    """True or false, else None."""
    return value if isinstance(value, bool) else None


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def pair(value: Any) -> tuple[int, int] | None:
    """Two whole numbers, else None."""
    if not isinstance(value, list) or len(cast("list[Any]", value)) != 2:
        return None
    first, second = (whole(one) for one in cast("list[Any]", value))
    return None if first is None or second is None else (first, second)


def shape(config: Mapping[str, Any], rows: str, columns: str) -> tuple[int, int] | None:
    """A shape (rows, columns) from two keys, if both are above 0."""
    y, x = whole(config.get(rows)), whole(config.get(columns))
    return (y, x) if y and x else None


def beam_centre(config: Mapping[str, Any]) -> tuple[float, float] | None:
    """The beam centre (y, x). A detector says 0, 0 where nobody told it."""
    y, x = number(config.get("beam_center_y")), number(config.get("beam_center_x"))
    return None if y is None or x is None or (y, x) == (0, 0) else (y, x)


def needed(message: Mapping[str, Any], key: str) -> int:
    """A whole number that a message must hold. Raises MalformedStream if it does not."""
    found = whole(message.get(key))
    if found is None:
        raise MalformedStream(f"{key!r} must be a whole number, it is {shown(message.get(key))}")
    return found


def shown(value: Any) -> str:
    """A value for an error text, in few characters; large and deep ones by their kind only."""
    if value is None or isinstance(value, bool | int | float | str):
        return ascii(value if not isinstance(value, str) else value[:40])[:60]
    return f"a {type(value).__name__}"


def parse_json(data: bytes | memoryview) -> Any:
    """Read JSON from a stream. Raises MalformedStream if it is none, or too large or deeply nested."""
    if len(data) > _MOST_BYTES:
        raise MalformedStream(f"JSON of {len(data):,} bytes is too large")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedStream(f"no JSON: {error}") from None
    return plain(value)


def plain(value: Any) -> Any:
    """Make plain JSON values of what was read: dates become their text; bytes and arrays are left out.

    Raises:
        MalformedStream: It is too deeply nested.
    """
    made = _plain(value, _DEEPEST)
    return None if made is _OMITTED else made


def _plain(value: Any, depth: int) -> Any:
    if depth < 0:
        raise MalformedStream(f"values are nested in more than {_DEEPEST} levels")
    if isinstance(value, dict):
        made = {key: _plain(one, depth - 1) for key, one in cast("dict[str, Any]", value).items()}
        return {key: one for key, one in made.items() if one is not _OMITTED}
    if isinstance(value, list):
        return [
            one for one in (_plain(one, depth - 1) for one in cast("list[Any]", value)) if one is not _OMITTED
        ]
    if isinstance(value, Tag):
        return value.value if value.number == 0 and isinstance(value.value, str) else _OMITTED
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        return float(value)
    return _OMITTED if isinstance(value, memoryview) else value
