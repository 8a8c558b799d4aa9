"""Numbers, lengths of time and moments on a command line."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime
from typing import Any, Final

import click

_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class FiniteRange(click.FloatRange):
    """A range of numbers, to which `nan` and `inf` do not belong."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a number; as click does."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


def duration(text: str) -> float:
    """Read a length of time, as `600`, `90s`, `10m`, `2h`, `3d` or `1w`; in seconds.

    Raises:
        BadParameter: It is none.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw]?)", text.strip())
    if found is None:
        raise click.BadParameter(f"{text[:40]!r} is no length of time: 600, 90s, 10m, 2h, 3d or 1w")
    return float(found[1]) * _SECONDS[found[2]]


def read_duration(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """As a callback of an option."""
    return None if text is None else duration(text)


def moment(text: str) -> float:
    """Read a time of day, a date, both, or a length of time ago; in seconds since 1970.

    Raises:
        BadParameter: It is none.
    """
    written = text.strip()
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", written):
        written = (
            f"{datetime.now().astimezone():%Y-%m-%d} {written.zfill(8 if written.count(':') == 2 else 5)}"
        )
    try:
        return datetime.fromisoformat(written).astimezone().timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        return time.time() - duration(text)
    except click.BadParameter:
        raise click.BadParameter(
            f"{text[:40]!r} is no moment: 14:30, 2026-11-20, 2026-11-20T14:30 or 2h"
        ) from None


def read_moment(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """As a callback of an option."""
    return None if text is None else moment(text)
