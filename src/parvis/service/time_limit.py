"""A limit to the time that one handling may take."""

from __future__ import annotations

import faulthandler
import signal
import threading
from collections.abc import Callable
from typing import Final

_SHORTEST_GRACE: Final = 1.0
_LONGEST_GRACE: Final = 10.0
_STANDARD_ERROR: Final = 2


class OutOfTime(BaseException):
    """A handling took too long. No `Exception`, so that a service that catches those does not swallow it."""


def grace(seconds: float) -> float:
    """Return the seconds that a handling with a limit of `seconds` has to end after it was interrupted."""
    return min(max(seconds, _SHORTEST_GRACE), _LONGEST_GRACE)


def call_within(seconds: float, call: Callable[[], None], *, hard: bool = True) -> None:
    """Call, and interrupt what takes longer than `seconds`.

    On the main thread that is done by raising `OutOfTime` wherever it is. Python notices only between two of
    its own steps, and other threads cannot be interrupted at all. So if it is not over by the time of grace
    after the limit, the whole process is ended with exit code 1, and says on standard error where it was.

    Args:
        seconds: The limit.
        call: What to call.
        hard: Whether to end the process; not where somebody else does it.

    Raises:
        OutOfTime: It took too long.
    """
    armed = True

    def ring(_number: int, _frame: object) -> None:
        if armed:
            raise OutOfTime

    def disarm() -> None:
        nonlocal armed
        armed = False
        if on_main:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if hard:
            faulthandler.cancel_dump_traceback_later()

    on_main = threading.current_thread() is threading.main_thread()
    try:
        try:
            if hard:  # a thread in C, which does not need the lock of the interpreter
                faulthandler.dump_traceback_later(seconds + grace(seconds), exit=True, file=_STANDARD_ERROR)
            if on_main:
                signal.signal(signal.SIGALRM, ring)
                signal.setitimer(signal.ITIMER_REAL, seconds)
            call()
        finally:
            disarm()
    except OutOfTime:
        disarm()  # it may have come in the middle of that
        raise
