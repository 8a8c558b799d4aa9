"""Which data collection a series is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from parvis_services.stream.events import MalformedStream, SeriesStart
from parvis_services.stream.values import parse_json

DCID_KEYS: Final = ("dcid", "DCID", "ispyb_dcid", "acqID", "data_collection_id")
"""Where beamlines put the DCID in what the detector sends along."""

_LARGEST: Final = 2**63 - 1
_LONGEST: Final = 64 * 1024


def dcid_of(start: SeriesStart, keys: Sequence[str] = DCID_KEYS) -> int | None:
    """The DCID that a series brings in its appendix (Stream V1) or user data (V2).

    It is the appendix itself, as a number or its digits, or stands in it, a mapping or the JSON text of one,
    under the first of `keys` that is there.

    Returns:
        The DCID; None if there is none, or no whole number above 0.
    """
    value = start.appendix
    if isinstance(value, str) and value.lstrip()[:1] == "{" and len(value) <= _LONGEST:
        try:
            value = parse_json(value.encode(errors="replace"))
        except MalformedStream:
            return None
    if isinstance(value, Mapping):
        told = cast("Mapping[str, Any]", value)
        value = next((told[key] for key in keys if told.get(key) is not None), None)
    return _whole(value)


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        digits = value.strip()
        value = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value <= _LARGEST else None
