"""Who is there and what they are doing, from the status that every service and wrapper broadcasts.

Anybody may broadcast, in the form of `workflows`, of `zocalo` or ours, and anything: what is no status is
counted and ignored, and no card holds text that could do harm to a terminal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

from parvis.observe.harmless import figure, figures, harmless
from parvis.observe.recent_messages import RECENT, RECIPE, Doings
from parvis.recipe.envelope import MalformedMessage, parse_json
from parvis.service.figures import DOING, FIGURES
from parvis.service.status import TEXTS, Status
from parvis.transport.base import Message

LATE: Final = 10.0
"""Seconds after which a card says when it was last heard of; broadcasts come every six seconds or sooner."""
GONE: Final = 90.0
"""Seconds after which it is taken away."""

_MOST_BYTES: Final = 65_536
_MOST_CARDS: Final = 10_000
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
        is_task: Whether it is the task of a wrapper, which ends by itself and takes no command.
        job: Number of its job at the scheduler of a cluster, or nothing.
        node: The node of a Kubernetes cluster that it runs on, or nothing.
        recipe: ID of the recipe whose message it has in hand, or nothing.
        doings: What it did.
        doing: What the service says it is doing, where it is more than handling messages.
        figures: How the service says it gets on.
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
    is_task: bool = False
    job: str = ""
    node: str = ""
    recipe: str = ""
    doings: Doings = field(default_factory=Doings)
    doing: str = ""
    figures: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def place(self) -> str:
        """Where it runs, as short as people say it: machine and process, or node and tag in Kubernetes."""
        if self.node:
            return ".".join(filter(None, (self.node, self.tag)))
        return short_host(self.host)

    def age(self, now: float | None = None) -> float:
        """Seconds since it was last heard of."""
        return max(0.0, (time.monotonic() if now is None else now) - self.seen)

    def to_json(self) -> dict[str, Any]:
        """The card for programs; `age` in seconds in place of `seen`."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "seen"}
        doings = {
            "handled": self.doings.handled,
            "errors": dict(self.doings.errors),
            "last": [asdict(one) for one in self.doings.last],
        }
        maps = {"flow": dict(self.flow), "figures": dict(self.figures)}
        return {**values, **maps, "doings": doings, "age": round(self.age(), 1)}


def short_host(host: str) -> str:
    """The machine and the number of the process of a `host`, as people say it, and stop it by."""
    return ".".join(host.split(".")[-2:])


class CardBoard:
    """The cards of all who are there. Methods may be called from any thread.

    Args:
        wanted: Which cards to keep; all if not given.

    Attributes:
        ignored: How many broadcasts were no status.
    """

    def __init__(self, wanted: Callable[[Card], bool] | None = None) -> None:
        self.ignored = 0
        self._wanted = wanted
        self._cards: dict[str, Card] = {}
        self._lock = threading.Lock()

    def take(self, message: Message) -> None:
        """Take a status broadcast: the callback for topic `transient.status`."""
        self.put(message.body)

    def put(self, body: bytes, now: float | None = None) -> None:
        """Take the body of a status broadcast that came at `now`."""
        moment = time.monotonic() if now is None else now
        card = read_card(body, moment)
        with self._lock:
            if card is None or (card.host not in self._cards and self._is_full(moment)):
                self.ignored += 1
            elif self._wanted is None or self._wanted(card):
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


def read_card(body: bytes, now: float) -> Card | None:
    """Read a status broadcast, which may be anything; None if it is no status."""
    if len(body) > _MOST_BYTES:
        return None
    try:
        content = parse_json(body)
    except MalformedMessage:
        return None
    if not isinstance(content, dict):
        return None
    told = cast("dict[str, Any]", content)
    host = harmless(told.get("host"))
    if not host:
        return None
    status = told.get("status")
    known = isinstance(status, int) and not isinstance(status, bool) and abs(status) <= _HIGHEST_STATUS
    status = status if known else None
    return Card(
        host=host,
        status=status,
        state=_state(status, told.get("statustext")),
        service=harmless(told.get("service")) or harmless(told.get("task")),
        service_class=harmless(told.get("serviceclass")),
        tag=harmless(told.get("tag")),
        utilisation=_busy(told.get("utilization")),
        memory=figure(told.get("mem-uss")),
        version=_version(told),
        flow=figures(told.get("parvis-flow")),
        seen=now,
        is_task=not harmless(told.get("service")) and bool(harmless(told.get("task"))),
        job=_job(told),
        node=harmless(told.get("container_node")),
        recipe=harmless(told.get(RECIPE), 40),
        doings=Doings.read(told.get(RECENT)),
        doing=harmless(told.get(DOING), 40),
        figures=figures(told.get(FIGURES)),
    )


def _state(status: int | None, text: Any) -> str:
    known = TEXTS[Status(status)] if status is not None and status in Status.__members__.values() else ""
    return known or harmless(text) or ("" if status is None else str(status)[:20])


def _busy(value: Any) -> float | None:
    """The share of time in states in which work is done; keys of the JSON object are numbers as text."""
    if not isinstance(value, dict):
        return None
    shares = cast("dict[Any, Any]", value)
    return min(1.0, sum(figure(shares.get(str(int(status)))) or 0.0 for status in _BUSY))


def _job(told: Mapping[str, Any]) -> str:
    """The number of a job: text, or a number, under the name that the scheduler of the site gives it."""
    value = told.get("cluster_JOB_ID") or told.get("cluster_jobid")
    return harmless(str(value) if isinstance(value, int) and abs(value) < 10**15 else value, 40)


def _version(told: Mapping[str, Any]) -> str:
    return next((f"{name} {harmless(told[name])}" for name in _MAKERS if harmless(told.get(name))), "")
