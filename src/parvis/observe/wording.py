"""Numbers in words, the same wherever people read them: times, lengths of time, sizes, counts."""

from __future__ import annotations

import itertools
import math
import time
from typing import Final

_LAST_MOMENT: Final = 32_503_680_000.0  # the year 3000: beyond it, moments are nobody's, and calendars fail
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def counted(number: int, what: str) -> str:
    """A number of things: `1 message`, `2 messages`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def times(count: int) -> str:
    """How often: `once`, `3 times`."""
    return "once" if count == 1 else f"{count} times"


def size_text(count: int) -> str:
    """A number of bytes: `512 B`, `1.2 kB`, `10 MB`."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def age_text(seconds: float) -> str:
    """Whole seconds in two units at most: `0 s`, `12 s`, `3 min 20 s`, `5 h 1 min`, `3 d`."""
    whole = round(seconds)
    for (size, unit), (smaller, small) in itertools.pairwise(_UNITS):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def short_age(seconds: float | None) -> str:
    """Whole seconds in one unit, for a column of six characters: `12 s`, `3 min`, `5 h`; nothing for None."""
    if seconds is None:
        return ""
    size, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{seconds // size:.0f} {unit}"


def duration_text(seconds: float) -> str:
    """How long something took: `320 ms`, `4.1 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    return short_duration(seconds) if seconds < 59.95 else age_text(seconds)


def short_duration(seconds: float) -> str:
    """How long something took, for a column of seven characters: `320 ms`, `90.1 s`, `3 min`, `2.1 h`."""
    if seconds < 0.9995:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def moment_text(moment: float) -> str:
    """A moment, in seconds since 1970, in local time: day and time; `?` for what is no moment.

    Any number does: it may come from a message that anybody has sent.
    """
    return _formatted(moment, "%Y-%m-%d %H:%M:%S")


def clock_text(moment: float | None) -> str:
    """A moment in local time: the time of what is near, day and time of the rest; `?` if there is none."""
    if moment is None:
        return "?"
    is_near = abs(time.time() - moment) < 43_200
    return _formatted(moment, "%H:%M:%S" if is_near else "%Y-%m-%d %H:%M:%S")


def bearable(moment: float) -> float:
    """The moment, or the nearest that calendars know."""
    return min(max(0.0, moment), _LAST_MOMENT)


def _formatted(moment: float, form: str) -> str:
    return time.strftime(form, time.localtime(bearable(moment))) if math.isfinite(moment) else "?"
