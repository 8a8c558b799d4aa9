"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Return as soon as a condition holds.

    Args:
        condition: is called until what it returns is true.
        timeout: seconds after which it is given up.
        what: is waited for, to name in the error.

    Raises:
        AssertionError: the condition did not hold in time.
    """
    end = time.monotonic() + timeout
    pause = 0.001
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
