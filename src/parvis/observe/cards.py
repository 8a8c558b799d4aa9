"""Who is there and what they are doing, from the status that every service and wrapper broadcasts.

Anybody may broadcast, in the form of `workflows`, of `zocalo` or ours, and anything: what is no status is
counted and ignored, and no card holds text that could do harm to a terminal.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from parvis.recipe.envelope import MalformedMessage, parse_json
from parvis.service.status import TEXTS, Status
from parvis.transport.base import Message

LATE: Final = 10.0
"""Seconds after which a card says when it was last heard of; broadcasts come every six seconds or sooner."""
GONE: Final = 90.0
"""Seconds after which it is taken away."""

_MOST_BYTES: Final = 65_536
_MOST_CARDS: Final = 10_000
_LONGEST_TEXT: Final = 200
_HIGHEST_STATUS: Final = 1_000_000
_OVER = frozenset({Status.END, Status.TEARDOWN})
_BUSY = (Status.TIMER, Status.PROCESSING)
_MAKERS = ("parvis", "zocalo", "dlstbx", "workflows")


@dataclass(frozen=True, slots=True)
class Card:
    """What one process says of itself.

    Attributes:
        host: Name of the process among all: host name, its parts reversed, and process number.
        status: Number of its state (`parvis.service.status.Status`), or None.
        state: The state in words.
        service: What people call the service, or the task of a wrapper.
        service_class: Class of the service.
        tag: A word that whoever started it gave it.
        utilisation: Share of its last period that it was busy, 0 to 1, or None.
        memory: Memory that it holds and does not share, in MB, or None.
        version: Which software, and which version of it: `parvis 0.1.0`.
        flow: Figures of flow control.
        seen: When it was last heard of, on the monotonic clock.
    """

    host: str
    status: int | None
    state: str
    service: str
    service_class: str
    tag: str
    utilisation: float | None
    memory: float | None
    version: str
    flow: Mapping[str, float]
    seen: float

    def age(self, now: float | None = None) -> float:
        """Seconds since it was last heard of."""
        return max(0.0, (time.monotonic() if now is None else now) - self.seen)

    def to_json(self) -> dict[str, Any]:
        """The card for programs; `age` in seconds in place of `seen`."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "seen"}
        return {**values, "flow": dict(self.flow), "age": round(self.age(), 1)}


class CardBoard:
    """The cards of all who are there. Methods may be called from any thread.

    Attributes:
        ignored: How many broadcasts were no status.
    """

    def __init__(self) -> None:
        self.ignored = 0
        self._cards: dict[str, Card] = {}
        self._lock = threading.Lock()

    def take(self, message: Message) -> None:
        """Take a status broadcast: the callback for topic `transient.status`."""
        self.put(message.body)

    def put(self, body: bytes, now: float | None = None) -> None:
        """Take the body of a status broadcast that came at `now`."""
        moment = time.monotonic() if now is None else now
        card = _read(body, moment)
        with self._lock:
            if card is None or (card.host not in self._cards and self._is_full(moment)):
                self.ignored += 1
            else:
                self._cards[card.host] = card

    def cards(self, now: float | None = None) -> list[Card]:
        """Return who is there, by service and host: not those who left, or were silent for too long."""
        moment = time.monotonic() if now is None else now
        with self._lock:
            self._take_away(moment)
            return sorted(self._cards.values(), key=lambda card: (card.service.casefold(), card.host))

    def _is_full(self, now: float) -> bool:
        if len(self._cards) >= _MOST_CARDS:
            self._take_away(now)
        return len(self._cards) >= _MOST_CARDS

    def _take_away(self, now: float) -> None:
        gone = [
            card.host
            for card in self._cards.values()
            if card.age(now) > (LATE if card.status in _OVER else GONE)
        ]
        for host in gone:
            del self._cards[host]


def _read(body: bytes, now: float) -> Card | None:
    if len(body) > _MOST_BYTES:
        return None
    try:
        content = parse_json(body)
    except MalformedMessage:
        return None
    if not isinstance(content, dict):
        return None
    told = cast("dict[str, Any]", content)
    host = _text(told.get("host"))
    if not host:
        return None
    status = told.get("status")
    known = isinstance(status, int) and not isinstance(status, bool) and abs(status) <= _HIGHEST_STATUS
    status = status if known else None
    return Card(
        host=host,
        status=status,
        state=_state(status, told.get("statustext")),
        service=_text(told.get("service")) or _text(told.get("task")),
        service_class=_text(told.get("serviceclass")),
        tag=_text(told.get("tag")),
        utilisation=_busy(told.get("utilization")),
        memory=_figure(told.get("mem-uss")),
        version=_version(told),
        flow=_figures(told.get("parvis-flow")),
        seen=now,
    )


def _state(status: int | None, text: Any) -> str:
    known = TEXTS[Status(status)] if status is not None and status in Status.__members__.values() else ""
    return known or _text(text) or ("" if status is None else str(status)[:20])


def _text(value: Any) -> str:
    """A text, cut to a bearable length, without what moves a cursor or changes colours."""
    if not isinstance(value, str):
        return ""
    return "".join(sign if sign.isprintable() else "?" for sign in value[:_LONGEST_TEXT]).strip()


def _figure(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        figure = float(value)
    except OverflowError:
        return None
    return figure if math.isfinite(figure) and figure >= 0 else None


def _figures(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    read = {_text(name): _figure(figure) for name, figure in cast("dict[Any, Any]", value).items()}
    return {name: figure for name, figure in list(read.items())[:20] if name and figure is not None}


def _busy(value: Any) -> float | None:
    """The share of time in states in which work is done; keys of the JSON object are numbers as text."""
    if not isinstance(value, dict):
        return None
    shares = cast("dict[Any, Any]", value)
    return min(1.0, sum(_figure(shares.get(str(int(status)))) or 0.0 for status in _BUSY))


def _version(told: Mapping[str, Any]) -> str:
    return next((f"{name} {_text(told[name])}" for name in _MAKERS if _text(told.get(name))), "")
