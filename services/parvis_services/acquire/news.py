"""Having somebody notice at once that something has changed, whichever thread it was on."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Final


class News:
    """Counts what happens, and wakes those who wait for it.

    Attributes:
        epoch: What tells these counts from those of another process.
    """

    def __init__(self) -> None:
        self.epoch: Final = secrets.token_hex(4)
        self._count = 0
        self._changed = threading.Condition()

    @property
    def count(self) -> int:
        """How much has happened."""
        return self._count

    def tell(self) -> None:
        """Something has happened."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait(self, seen: int, seconds: float) -> bool:
        """Wait until more has happened than what somebody has seen; return False if nothing did in time."""
        return self.wait_for(lambda: self._count != seen, seconds)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds, which whoever brings it about tells of; return whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)
