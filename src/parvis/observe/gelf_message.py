"""Reads a message in GELF, the Graylog Extended Log Format, as a log record. It may come from anybody."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import orjson

from parvis.observe.log_record import DEBUG, LogRecord

LARGEST: Final = 4_000_000
"""Bytes of the largest message that is read, unpacked."""

_LONGEST_MESSAGE: Final = 65_536
_LONGEST_NAME: Final = 255
_LONGEST_VALUE: Final = 4_096
_LONGEST_FIELDS: Final = 65_536
_MOST_FIELDS: Final = 200
_MOST_AT_ONCE: Final = 10_000
_TOO_MANY: Final = f"it holds more than {_MOST_AT_ONCE:,} records"
_ALERT: Final = 1
_ANY_FORMAT: Final = zlib.MAX_WBITS | 32  # zlib or gzip, as its first bytes say


class NotGelf(ValueError):
    """What came is no GELF message: says why."""


def unpack(data: bytes) -> bytes:
    """Return a message unpacked, if it is packed with zlib or gzip.

    Raises:
        NotGelf: It is damaged, or larger than `LARGEST`.
    """
    if data[:2] != b"\x1f\x8b" and data[:1] != b"\x78":
        return data
    unpacker = zlib.decompressobj(_ANY_FORMAT)
    try:
        unpacked = unpacker.decompress(data, LARGEST + 1)
    except zlib.error:
        raise NotGelf("it is packed, and damaged") from None
    if len(unpacked) > LARGEST:
        raise NotGelf(f"it is larger than {LARGEST:,} bytes when unpacked")
    if not unpacker.eof:
        raise NotGelf("it is packed, and the end is missing")
    return unpacked


def read_gelf(data: bytes, now: float | None = None) -> LogRecord:
    """Return a message as a log record. What is too long is cut.

    Args:
        data: The message, packed or not.
        now: Its time, in seconds since 1970, if it has none itself; by default the present.

    Raises:
        NotGelf: It is no GELF message.
    """
    return _record(_parse(unpack(data)), time.time() if now is None else now)


def read_many(data: bytes, now: float | None = None) -> list[LogRecord]:
    """Return the records of a body with one message, a list of them, or one on each line. As `read_gelf`."""
    unpacked = unpack(data)
    moment = time.time() if now is None else now
    try:
        content = _parse(unpacked)
    except NotGelf:
        lines = [line for line in unpacked.split(b"\n") if line.strip()]
        if len(lines) < 2:
            raise
        if len(lines) > _MOST_AT_ONCE:
            raise NotGelf(_TOO_MANY) from None
        return [_record(_parse(line), moment) for line in lines]
    several = cast("list[Any]", content) if isinstance(content, list) else [content]
    if len(several) > _MOST_AT_ONCE:
        raise NotGelf(_TOO_MANY)
    return [_record(one, moment) for one in several]


def _parse(data: bytes) -> Any:
    if len(data) > LARGEST:
        raise NotGelf(f"it is larger than {LARGEST:,} bytes")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:  # the strings may be in another encoding than the rest
        return orjson.loads(data.decode("utf-8", "replace"))
    except orjson.JSONDecodeError as error:
        raise NotGelf(f"it is not JSON: {error.msg}"[:200]) from None


def _record(content: Any, now: float) -> LogRecord:
    if not isinstance(content, dict):
        raise NotGelf("it is not a JSON object")
    told = cast("dict[str, Any]", content)
    message, full = _text(told.get("short_message")), _text(told.get("full_message"))
    if not message and not full:
        raise NotGelf("it has no short_message")
    moment = _number(told.get("timestamp"))
    level = _number(told.get("level"))
    return LogRecord(
        time=now if moment is None else moment,
        level=_ALERT if level is None else int(min(max(level, 0), DEBUG)),
        facility=_name(told.get("_facility", told.get("facility"))),
        message=message or full.partition("\n")[0],
        full=full if full != message else "",
        host=_name(told.get("host")),
        service=_name(told.get("_workflows_service")),
        recipe_id=_name(told.get("_recipe_ID")),
        fields=dict(_fields(told)),
    )


_READ: Final = frozenset(
    ("version", "host", "short_message", "full_message", "timestamp", "level", "facility")
) | {"_facility", "_workflows_service", "_recipe_ID", "_id"}


def _fields(told: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    left = _LONGEST_FIELDS
    for name, value in list(told.items())[:_MOST_FIELDS]:
        if name in _READ or value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
        kept: Any = value if is_number else _text(value, _LONGEST_VALUE)
        key = name.removeprefix("_")[:_LONGEST_NAME]
        left -= len(key) + len(str(kept))
        if left < 0:
            return
        yield key, kept


def _name(value: Any) -> str:
    return _text(value, _LONGEST_NAME)


def _text(value: Any, longest: int = _LONGEST_MESSAGE) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        try:
            value = orjson.dumps(value).decode()
        except TypeError:  # deeper than it can be written
            value = type(value).__name__
    return value if len(value) <= longest else f"{value[: longest - 1]}…"


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value[:40])
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 2**53 and math.isfinite(value) else None
