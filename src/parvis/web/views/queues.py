"""Queues: what is in them, what comes and goes, and how that has been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from parvis.observe.queue_figures import QueueTraffic
from parvis.observe.wording import age_text
from parvis.web.live import Part, View
from parvis.web.rendering import part
from parvis.web.sources import Sources

OLD: Final = 300.0
"""Seconds that a message may wait before somebody should know."""


@dataclass(frozen=True, slots=True)
class ShownQueue:
    """A queue as it is shown: figures as text; `points` are those of the line that shows the trend."""

    name: str
    tone: str
    address: str
    held: str
    in_flight: str
    rate_in: str
    rate_out: str
    clients: str
    oldest: str
    old_tone: str
    points: str
    trend_text: str


def queues_view(sources: Sources) -> View:
    """Queues in which something is or goes on, and the names of the others and of topics."""
    traffic = sources.broker.traffic
    problem = sources.broker.problem
    head: list[Part] = []
    if problem is not None:
        head.append(part("said", "problem", "bad" if traffic is None else "late", problem))
    elif traffic is None:
        head.append(part("said", "problem", "", "Looking at the queues for the first time …"))
    topics = [one for one in traffic or () if one.figures.kind == "topic"]
    queues = [one for one in traffic or () if one.figures.kind == "queue"]
    busy = [one for one in queues if _is_busy(one)]
    idle = [one for one in queues if not _is_busy(one)]
    parts = [part("queue", one.figures.absolute, _shown(one)) for one in busy]
    if traffic is not None and not busy:
        parts.append(part("said", "empty", "ok", "All queues are empty, and nothing comes or goes."))
    for label, few in (("empty and idle", idle), ("topics", topics)):
        if few:
            names = sorted((one.figures.name, _clients(one)) for one in few)
            parts.append(part("names", label, label, names))
    return {"head": head, "queues": parts}


def holding(traffic: Sequence[QueueTraffic]) -> tuple[int, float]:
    """Return how many messages all queues but those of dead letters hold, and the age of the oldest."""
    live = [one.figures for one in traffic if one.figures.kind == "queue" and not one.figures.dead_letters]
    return sum(one.held or 0 for one in live), max((one.oldest or 0.0 for one in live), default=0.0)


def _is_busy(one: QueueTraffic) -> bool:
    return one.relevance >= 1 or bool(one.figures.held) or any(one.trend)


def _shown(one: QueueTraffic) -> ShownQueue:
    figures = one.figures
    oldest = figures.oldest or 0.0
    is_abandoned = bool(figures.held) and figures.clients == 0 and not figures.dead_letters
    tone = "bad" if figures.dead_letters and figures.held else ""
    tone = tone or ("late" if is_abandoned or oldest > OLD else "")
    return ShownQueue(
        name=figures.name,
        tone=tone,
        address="/dead-letters" if figures.dead_letters else "",
        held="?" if figures.held is None else f"{figures.held:,}",
        in_flight=f"{figures.in_flight:,}" if figures.in_flight else "",
        rate_in="" if one.rate_in is None else f"{one.rate_in:.1f}",
        rate_out="?" if one.rate_out is None else f"{one.rate_out:.1f}",
        clients=_clients(one),
        oldest=age_text(oldest) if oldest >= 1 else "",
        old_tone="late" if oldest > OLD else "off",
        points=_points(one.trend) if len(one.trend) > 1 else "",
        trend_text=f"Held over the last minutes: from {min(one.trend, default=0):,} to "
        f"{max(one.trend, default=0):,}, now {figures.held or 0:,}",
    )


def _clients(one: QueueTraffic) -> str:
    clients = one.figures.clients
    if clients is None:
        return ""
    if clients == 0:
        return "nobody listens"
    who = "consumer" if one.figures.kind == "queue" else "listener"
    return f"{clients} {who}" + ("" if clients == 1 else "s")


def _points(trend: Sequence[int]) -> str:
    """Points of a line in a field of 120 by 24, the newest at the right."""
    highest = max(*trend, 1)
    step = 120 / (len(trend) - 1)
    return " ".join(f"{step * place:.1f},{22 - 20 * held / highest:.1f}" for place, held in enumerate(trend))
