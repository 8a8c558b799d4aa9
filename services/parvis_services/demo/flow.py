"""How fast images go from the detector to their results, and how long each takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_WINDOW: Final = 3.0  # s over which a rate is taken
_PAUSE: Final = 2.0  # s without anything after which the rate is 0
_STAGES: Final = ("in", "stored", "analysed", "results")
_SPANS: Final = {
    "frame_to_stored": ("file-received-at", "file-seen-at"),
    "stored_to_result": ("file-seen-at", "result"),
    "frame_to_result": ("file-received-at", "result"),
}


class Rate:
    """How often something happens, told from how often it has happened so far."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, now: float, count: int) -> None:
        """Take note of a count, at a time in s."""
        if not self._samples or count != self._samples[-1][1]:
            self._samples.append((now, count))
        elif now - self._samples[-1][0] > _PAUSE:  # what comes next begins now, and is no slow series
            self._samples = deque([(now, count)])
        while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW:
            self._samples.popleft()

    def per_second(self, now: float) -> float:
        """The rate of late; 0 when nothing has happened for a while."""
        (began, first), (ended, last) = (
            (self._samples[0], self._samples[-1]) if self._samples else ((now, 0),) * 2
        )
        if ended == began:
            return 0.0
        return (last - first) / (ended - began)


@dataclass
class Flow:
    """The way of images through the services.

    Attributes:
        counts: How many images have come so far: `in` from the detector, `stored`, `analysed`, `results`.
        rates: The rate of each.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_STAGES, 0))
    rates: dict[str, Rate] = field(default_factory=dict[str, Rate])
    _spans: dict[str, list[float]] = field(default_factory=lambda: {name: list[float]() for name in _SPANS})

    def take(self, result: Mapping[str, Any], now: float) -> None:
        """Learn from the result of an image, which is here now (s since 1970)."""
        times = {"result": now} | {
            name: float(result[name])
            for name in ("file-received-at", "file-seen-at")
            if isinstance(result.get(name), int | float)
        }
        for name, (begin, end) in _SPANS.items():
            if begin in times and end in times:
                self._spans[name].append(times[end] - times[begin])

    def update(self, now: float, **counts: int) -> None:
        """Take note of counts, which never fall, at a time in s."""
        for name, count in counts.items():
            self.counts[name] = max(count, self.counts[name])
            self.rates.setdefault(name, Rate()).update(now, self.counts[name])

    def per_second(self, now: float) -> dict[str, float]:
        """The rate of each count of late."""
        return {name: rate.per_second(now) for name, rate in self.rates.items()}

    def latency(self, span: str) -> dict[str, float] | None:
        """Median and 99th percentile of a span, one of `latencies`, in s; None if nothing is known of it."""
        spans = sorted(self._spans[span])
        return {"p50": _quantile(spans, 0.5), "p99": _quantile(spans, 0.99)} if spans else None

    @property
    def latencies(self) -> dict[str, dict[str, float] | None]:
        """From the detector's frame to the store's confirmation, from there to the result, and in all."""
        return {name: self.latency(name) for name in _SPANS}


def _quantile(values: Sequence[float], fraction: float) -> float:
    return values[min(len(values) - 1, int(fraction * len(values)))]
