"""The broker's clock: time in ms since 1970 that goes on evenly when somebody sets the machine's clock."""

from __future__ import annotations

import time
from collections.abc import Callable


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Clock:
    """Starts with the machine's clock and goes on with one that nobody can set.

    Args:
        wall: the machine's clock, ms since 1970.
        steady: ms since some moment, never set.
    """

    def __init__(self, wall: Callable[[], int] = _wall_ms, steady: Callable[[], int] = _steady_ms) -> None:
        self._wall = wall
        self._steady = steady
        self._start = wall() - steady()

    def now(self) -> int:
        """The time in ms since 1970, as if the machine's clock had not been set since the start."""
        return self._start + self._steady()

    def from_wall(self, moment: int) -> int:
        """When a moment of the machine's clock, as it is set now, comes by this clock."""
        return moment + self.now() - self._wall()
