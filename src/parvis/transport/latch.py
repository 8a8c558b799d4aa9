"""An event that happens once, for one thread that waits."""

from __future__ import annotations

import threading


class Latch:
    """As `threading.Event`, at half the price; set once, and waited for by one thread at a time."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = threading.Lock()
        self._pending.acquire()

    def is_set(self) -> bool:
        """Whether it has happened."""
        return not self._pending.locked()

    def set(self) -> None:
        """It has happened."""
        self._pending.release()

    def wait(self, timeout: float) -> bool:
        """Wait until it happens, or `timeout` seconds; return whether it has."""
        if not self._pending.acquire(timeout=max(0.0, timeout)):
            return False
        self._pending.release()
        return True
