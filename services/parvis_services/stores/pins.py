"""Pins: what keeps a series in its store although its time is over.

A pin is an object of the series, `pins/TOKEN`, whose metadata say until when it holds. Whoever may do nothing
but write can set, renew and release one, by overwriting it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.store import ImageStore, NoSuchObject, ObjectInfo

#: Seconds after which a pin that nobody renews holds no more, whatever it says.
LONGEST: Final = 30 * 86_400.0

_LONGEST_TOKEN: Final = 64
_UNTIL: Final = "until"
_UNREADABLE: Final = 86_400.0  # seconds that a pin holds which does not say until when


@dataclass(frozen=True, slots=True)
class Pin:
    """A pin as it is in the store.

    Attributes:
        token: Its name.
        until: When it ends to hold, seconds since 1970.
    """

    token: str
    until: float

    def holds(self, now: float) -> bool:
        """Whether the series is to be kept because of it."""
        return now < self.until


def token_of(name: str) -> str:
    """The token that stands for a name, of whatever signs that is; names much alike may share one."""
    return re.sub(r"[^A-Za-z0-9_.=+-]", "_", name)[:_LONGEST_TOKEN].strip(".") or "somebody"


def set_pin(store: ImageStore, place: SeriesPlace, token: str, until: float) -> None:
    """Set a pin, or renew the one of that name.

    Args:
        store: Where the series is; to be allowed to write is enough.
        place: The series, which need not be there yet.
        token: Whose it is, as of `token_of`.
        until: When it ends to hold, seconds since 1970. It holds at most `LONGEST` from now.

    Raises:
        BadUrl: That can be no name of a pin.
        StoreError: The store cannot take it.
    """
    store.put(place.bucket, place.pin(token), b"", {_UNTIL: f"{until:.3f}"}, replace=True)


def release(store: ImageStore, place: SeriesPlace, token: str) -> None:
    """Have a pin hold no more. Raises as `set_pin`."""
    set_pin(store, place, token, 0)


def pins_of(store: ImageStore, place: SeriesPlace) -> Iterator[Pin]:
    """Yield the pins of a series, also those that hold no more.

    Args:
        store: Where the series is; must be allowed to read.
        place: The series.

    Raises:
        StoreError: The store cannot say.
    """
    for entry in store.list_all(place.bucket, place.pins_prefix):
        try:
            yield _read(store.stat(place.bucket, entry.key))
        except NoSuchObject:
            continue  # deleted meanwhile


def pinned_until(store: ImageStore, place: SeriesPlace, now: float) -> float | None:
    """Until when pins keep a series, seconds since 1970; None if none does. Raises as `pins_of`."""
    return max((pin.until for pin in pins_of(store, place) if pin.holds(now)), default=None)


def _read(info: ObjectInfo) -> Pin:
    """What is wrong with a pin must not cost the images that it was to keep, nor keep them for ever."""
    try:
        until = float(info.metadata.get(_UNTIL, ""))
    except ValueError:
        until = math.nan
    if not math.isfinite(until):
        until = info.modified + _UNREADABLE
    return Pin(info.key.rpartition("/")[2], min(until, info.modified + LONGEST))
