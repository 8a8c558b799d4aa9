"""Log records for everybody who looks: broadcast as they are made, kept by nobody.

Monitors show them. A record is a small JSON object on the topic `transient.log`, of which a process sends at
most twenty a second; what was left out is counted and said.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from parvis.config import Config, ConfigError
from parvis.observe.harmless import figure, harmless
from parvis.observe.logs import complete_records, service_of
from parvis.recipe.envelope import MalformedMessage, dump_json, parse_json
from parvis.service.base import AnyService
from parvis.service.observer import Observer
from parvis.service.status import host_id
from parvis.transport.base import Send, Transport

TOPIC: Final = "transient.log"
LEVEL: Final = "parvis.log_broadcast"
"""Key of the configuration: the lowest level that is broadcast, or `off`."""

_RATE: Final = 20.0
_LONGEST: Final = 500
_MOST_BYTES: Final = 10_000
_EXPIRATION: Final = 15.0
_WAITING: Final = 100
_LAST_WORDS: Final = 1.0
_TALLY: Final = 1.0  # seconds after which is said how many were left out
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True)
class LoggedLine:
    """A log record that somebody broadcast.

    Attributes:
        time: When it was made, in seconds of the epoch.
        level: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
        service: Who made it.
        host: The process, as on its status card.
        recipe: ID of the recipe that it is about, or nothing.
        message: What it says, in one line.
    """

    time: float
    level: str
    service: str
    host: str
    recipe: str
    message: str


def read_line(body: bytes) -> LoggedLine | None:
    """Read a broadcast, which may be anything; None if it is no log record."""
    if len(body) > _MOST_BYTES:
        return None
    try:
        content = parse_json(body)
    except MalformedMessage:
        return None
    if not isinstance(content, dict):
        return None
    told = cast("dict[str, Any]", content)
    moment, message = figure(told.get("time")), told.get("message")
    if moment is None or moment > 1e11 or not isinstance(message, str):
        return None
    level = harmless(told.get("level"), 10).upper()
    return LoggedLine(
        time=moment,
        level=level if level in _LEVELS else "INFO",
        service=harmless(told.get("service")),
        host=harmless(told.get("host")),
        recipe=harmless(told.get("recipe_ID"), 40),
        message=harmless(message, _LONGEST),
    )


def broadcast_level(config: Config) -> int | None:
    """Return the lowest level that the configuration wants broadcast, or None for none at all.

    Raises:
        ConfigError: It names no level.
    """
    value = config.storage.get(LEVEL, "INFO")
    if value is False or str(value).lower() == "off":  # YAML reads a bare `off` as false
        return None
    name = str(value).upper()
    if name not in _LEVELS:
        raise ConfigError(f"{LEVEL} must be one of {', '.join(_LEVELS)} or off, not {str(value)[:40]!r}")
    return logging.getLevelNamesMapping()[name]


class LogBroadcast(Observer):
    """Broadcasts the log records of a host while it runs.

    Args:
        level: The lowest level.
    """

    def __init__(self, level: int) -> None:
        self._level = level
        self._handler: _Handler | None = None

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:
        """Begin."""
        self._handler = _Handler(self._level, transport.post)
        logging.getLogger().addHandler(self._handler)
        complete_records(services[0].config)

    def stopped(self) -> None:
        """Say what is still to be said, and end."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            self._handler.close()
            self._handler = None


class _Handler(logging.Handler):
    """Hands records to a thread that broadcasts them: whoever logs never waits, nor meets the transport."""

    def __init__(self, level: int, post: Callable[[Send], None]) -> None:
        super().__init__(level)
        self._post = post
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._budget, self._at = _RATE, time.monotonic()
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name="log broadcast", daemon=True)
        self._thread.start()

    def handle(self, record: logging.LogRecord) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a record, unless there were too many: that is seen before anything is spent on it."""
        # What is logged because of a broadcast must not become one.
        if threading.current_thread() is self._thread:
            return False
        now = time.monotonic()
        self._budget = min(_RATE, self._budget + (now - self._at) * _RATE)
        self._at = now
        if self._budget < 1 or self._waiting.qsize() >= _WAITING:
            self._left_out += 1
            return False
        self._budget -= 1
        return bool(super().handle(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Make of a record what is sent."""
        try:
            self._waiting.put(_content(record))
        except Exception:  # noqa: BLE001 - as all handlers: a record that cannot be shown costs nobody anything
            self.handleError(record)

    def close(self) -> None:
        """Send what waits, for a moment, and end the thread."""
        self._waiting.put(None)
        self._thread.join(_LAST_WORDS)
        super().close()

    def _run(self) -> None:
        due = time.monotonic() + _TALLY
        while True:
            try:
                content = self._waiting.get(timeout=_TALLY)
            except queue.Empty:
                due = 0
            else:
                if content is None:
                    self._say_what_was_left_out()
                    return
                self._send(content)
            if time.monotonic() >= due:
                self._say_what_was_left_out()
                due = time.monotonic() + _TALLY

    def _say_what_was_left_out(self) -> None:
        count, self._left_out = self._left_out, 0
        if count:
            text = f"{count} more log records are not shown here"
            record = logging.LogRecord("parvis.log", logging.WARNING, "", 0, text, None, None)
            self.filter(record)  # which gives it the fields of its process
            self._send(_content(record))

    def _send(self, content: dict[str, Any]) -> None:
        body = dump_json(content)
        self._post(Send(TOPIC, body, kind="topic", expiration=_EXPIRATION, persistent=False))


def _content(record: logging.LogRecord) -> dict[str, Any]:
    fields = record.__dict__
    content: dict[str, Any] = {
        "time": round(record.created, 3),
        "level": record.levelname,
        "service": service_of(record)[:200],
        "host": str(fields.get("workflows_host") or host_id())[:200],
        "message": record.getMessage()[:_LONGEST],
    }
    if recipe := fields.get("recipe_ID"):
        content["recipe_ID"] = str(recipe)[:40]
    return content
