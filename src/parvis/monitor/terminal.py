"""Whether a live view can be shown, and showing it: what every monitor shares, whatever it shows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator
from importlib.util import find_spec
from io import TextIOBase
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from parvis.monitor.app import MonitorApp

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def why_not_live() -> str | None:
    """Return why no live view can be shown here, or None if one can."""
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        return "this is no terminal"
    if os.environ.get("TERM", "") in {"", "dumb"}:
        return "a terminal of type 'dumb' can show none (TERM)"
    if find_spec("textual") is None:
        return "textual is not installed: pip install 'parvis[monitor]'"
    return None


def show(app: MonitorApp) -> None:
    """Show a live view until its user, or SIGTERM, SIGINT or SIGHUP, ends it; the terminal is then as before.

    Raises:
        Exception: What ended the view, if it could not go on.
    """
    asyncio.run(_show(app))
    if app.failure is not None:
        raise app.failure


async def _show(app: MonitorApp) -> None:
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, app.exit)
    await app.run_async()


class _Lines(TextIOBase):
    """Where logs go while a view has the terminal."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take

    def write(self, text: str, /) -> int:
        if text.strip():
            self._take(text.rstrip("\n"))
        return len(text)


@contextlib.contextmanager
def logs_taken(take: Callable[[str], None]) -> Generator[None]:
    """Have what would be logged to the terminal handed to `take`, on any thread, meanwhile."""
    lines = _Lines(take)
    diverted = [(handler, handler.setStream(lines)) for handler in _terminal_handlers()]
    try:
        yield
    finally:
        for handler, stream in diverted:
            if stream is not None:
                handler.setStream(stream)


def _terminal_handlers() -> list[logging.StreamHandler[TextIO | TextIOBase]]:
    known = cast("list[Any]", list(logging.Logger.manager.loggerDict.values()))
    loggers = [one for one in (logging.getLogger(), *known) if isinstance(one, logging.Logger)]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    return [
        cast("logging.StreamHandler[TextIO | TextIOBase]", handler)
        for handler in handlers
        if isinstance(handler, logging.StreamHandler)
        and cast("Any", handler).stream in (sys.stdout, sys.stderr)
    ]
