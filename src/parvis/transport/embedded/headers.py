"""Values of STOMP headers, read with care."""

from __future__ import annotations

from typing import Final

from parvis.transport.embedded.clock import Clock
from parvis.transport.embedded.message import Message

HEARTBEAT_FLOOR: Final = 100
"""Shortest heart-beat interval, in ms."""

_MAX_DELAY: Final = 10 * 366 * 86_400_000
"""Longest delay, in ms: ten years."""


class Refusal(Exception):
    """A frame that cannot be obeyed: becomes an ERROR frame, then the connection is closed."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


def number(headers: dict[str, str], name: str, default: int = 0) -> int:
    """A whole number from a header.

    Raises:
        Refusal: it is none, or has more than 18 digits.
    """
    text = headers.get(name)
    if text is None:
        return default
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise Refusal(f"header {name} is no whole number: {text[:40]!r}")
    return sign * int(digits)


def describe(message: Message, headers: dict[str, str], clock: Clock) -> None:
    """Take priority, expiry, persistence and delay of a message from the headers of its SEND.

    Raises:
        Refusal: one of them cannot be read, or is not supported.
    """
    if "priority" in headers:
        message.priority = min(9, max(0, number(headers, "priority")))
    if "expires" in headers:
        message.expires = max(0, number(headers, "expires"))
        message.deadline = max(1, clock.from_wall(message.expires)) if message.expires else 0
    message.persistent = headers.get("persistent", "").lower() == "true"
    for name in ("AMQ_SCHEDULED_PERIOD", "AMQ_SCHEDULED_REPEAT", "AMQ_SCHEDULED_CRON"):
        if name in headers:
            raise Refusal(f"{name} is not supported: only AMQ_SCHEDULED_DELAY is")
    delay = min(number(headers, "AMQ_SCHEDULED_DELAY"), _MAX_DELAY)
    if delay > 0:
        message.due = message.timestamp + delay
        if message.expires:  # it lives as long, once it has come
            message.expires += delay
            message.deadline += delay
        message.headers["scheduledJobId"] = message.id


def heartbeats(text: str) -> tuple[int, int]:
    """Intervals in ms at which the broker sends and expects signs of life, 0 for not at all.

    `text` is the client's `heart-beat` header: what it can do and what it wants, in ms.

    Raises:
        Refusal: it is not two whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise Refusal(f"heart-beat {text[:40]!r} is not two whole numbers")
    can, want = (max(HEARTBEAT_FLOOR, int(part)) if int(part) else 0 for part in parts)
    return want, can
