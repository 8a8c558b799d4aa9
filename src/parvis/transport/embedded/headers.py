"""Values of STOMP headers, read with care."""

from __future__ import annotations

from typing import Final

HEARTBEAT_FLOOR: Final = 100
"""Shortest heart-beat interval, in ms."""


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
