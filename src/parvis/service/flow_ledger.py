"""What is in flight, and how much more may be sent: the ledger of those who send many messages from one.

How the bounds come about is explained in `docs/explanation/flow-control.md`.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from parvis.service.flow_limits import Limits
from parvis.service.flow_report import Key, Report, Sent, Served, Tally

_log = logging.getLogger("parvis.flow")

UNBOUNDED: Final = sys.maxsize
HORIZON: Final = 3.0  # seconds of work that may wait in a queue
SMALL: Final = 200  # messages: a fan-out of no more goes at once, and so does the beginning of one
_PER_CONSUMER: Final = 2  # messages that each consumer needs to stay busy, whatever its rate
_LEAST: Final = 10
_GREEDY: Final = 3.0  # seconds for which a fan-out that was held back counts as wanting more
_ACTIVE: Final = 3.0  # seconds without a look after which a fan-out with nothing in flight takes no share
_DEAD: Final = 15.0  # seconds without a report after which a host is gone
_GRACE: Final = 6.0  # seconds in which consumers that report must have been heard of
_AWAY: Final = 600.0  # seconds for which consumers that reported may be away before they are forgotten
_QUIET: Final = 1.5  # seconds for which all consumers must be idle for their queue to be empty
_OVERDUE: Final = 15.0  # seconds after which messages that others overtook are written off
_MOST_PATIENCE: Final = 10  # times that this is doubled
_FORGET: Final = 900.0
_TIDY: Final = 0.5
_MOST_FLOWS: Final = 20_000
_MOST_CONSUMERS: Final = 10_000
_MOST_QUEUES: Final = 10_000
_MOST_KEYS: Final = 4_000  # of one consumer


@dataclass(slots=True)
class _Consumer:
    """A host that handles messages, by its reports."""

    heard: float
    idle: float = 0.0
    queues: dict[str, Served] = field(default_factory=dict[str, Served])
    tallies: dict[tuple[str, Key], Tally] = field(default_factory=dict[tuple[str, Key], Tally])


@dataclass(slots=True)
class _Queue:
    """A queue that fan-outs send to."""

    asked: float  # when we first wanted to know
    served: float | None = None  # when somebody was last known to take messages from it
    handled: int = 0
    is_foreign: bool = False


@dataclass(slots=True)
class _Flow:
    """The messages of one key to one queue."""

    queue: str
    key: Key
    sent: int = 0
    done: int = 0
    arrived: float = 0.0  # when the last message sent is with the broker, its delay over
    looked: float = 0.0  # when somebody last looked at it
    looked_here: float = -inf
    room: int = 0  # what was left when we last looked
    held: float | None = None  # when it last had to wait
    news: float = 0.0  # when something was sent or done
    handled_then: int = 0  # what the queue had handled by then
    patience: int = 0
    is_ours: bool = False  # a fan-out sends it; what others send on because of it follows from their reports
    told: Sent | None = None

    @property
    def in_flight(self) -> int:
        return max(0, self.sent - self.done)


class Ledger:
    """Knows what is in flight by what hosts report. Methods may be called from any thread.

    Args:
        limits: How much may be in flight.
        clock: Seconds of a clock that only goes forward.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._consumers: dict[str, _Consumer] = {}
        self._queues: dict[str, _Queue] = {}
        self._flows: dict[tuple[str, Key], _Flow] = {}
        self._resting: dict[tuple[str, Key], _Flow] = {}  # nothing in flight, nobody asks; oldest first
        self._tidied = clock()

    def hear(self, report: Report) -> None:
        """Take in what a host reports."""
        with self._lock:
            now = self._clock()
            for name, sent in report.sent.items():
                self._learn(self._flow(*name, now), sent, now)
            if report.queues:
                self._hear_consumer(report, now)
            if report.gone:
                self._consumers.pop(report.host, None)

    def look(self, queue: str, key: Key, *, sent: int, done: int, total: int | None) -> int:
        """Return how many more messages may be sent now.

        Args:
            queue: Where to.
            key: Whose they are.
            sent: How many were sent so far, by the checkpoint.
            done: How many of them were known to be handled, by the checkpoint.
            total: How many there will be in all, if that is known.
        """
        with self._lock:
            now = self._clock()
            if now - self._tidied >= _TIDY:
                self._tidy(now)
            flow = self._flow(queue, key, now)
            flow.is_ours = True
            flow.sent, flow.done = max(flow.sent, sent), max(flow.done, done)
            flow.done = min(flow.done, flow.sent)
            flow.looked = flow.looked_here = now
            flow.room = self._room(flow, total, now)
            return flow.room

    def hold(self, queue: str, key: Key) -> None:
        """Note that more would be sent if there were room."""
        with self._lock:
            flow = self._flows.get((queue, key))
            if flow is not None:
                flow.held = self._clock()

    def add(self, queue: str, key: Key, messages: int, delay: float) -> None:
        """Note that messages were sent, which the broker holds back for `delay` seconds."""
        with self._lock:
            now = self._clock()
            flow = self._flow(queue, key, now)
            flow.is_ours = True
            flow.sent += messages
            flow.room = max(0, flow.room - messages)
            flow.arrived = max(flow.arrived, now + delay)
            self._note(flow, now)

    def done(self, queue: str, key: Key) -> int:
        """How many messages are known to be handled."""
        with self._lock:
            flow = self._flows.get((queue, key)) or self._resting.get((queue, key))
            return flow.done if flow else 0

    def tell(self, *, everything: bool) -> dict[tuple[str, Key], Sent]:
        """Return what there is to report of fan-outs: those looked at here lately, if something changed."""
        told: dict[tuple[str, Key], Sent] = {}
        with self._lock:
            now = self._clock()
            for name, flow in self._flows.items():
                if now - flow.looked_here > _ACTIVE:
                    continue
                sent = Sent(flow.sent, flow.done, held=self._is_greedy(flow, now))
                before, flow.told = flow.told, sent
                if everything or before is None or (before.sent, before.held) != (sent.sent, sent.held):
                    told[name] = sent
        return told

    def summary(self) -> dict[str, int]:
        """What monitors show: fan-outs `held` back, messages `in-flight`, and `room` for more from here."""
        with self._lock:
            now = self._clock()
            active = [flow for flow in self._flows.values() if now - flow.looked <= _ACTIVE]
            return {
                "held": len({flow.key for flow in active if self._is_greedy(flow, now)}),
                "in-flight": _in_flight(flow for flow in self._flows.values() if self._counts(flow, now)),
                "room": sum(min(flow.room, self._limits.fan_out) for flow in active),
            }

    def _flow(self, queue: str, key: Key, now: float) -> _Flow:
        flow = self._flows.get((queue, key))
        if flow is None:
            for flows in (self._flows, self._resting):
                if len(flows) >= _MOST_FLOWS:
                    del flows[next(iter(flows))]
            flow = self._resting.pop((queue, key), None) or _Flow(queue, key, news=now)
            flow.handled_then = self._queue(queue, now).handled
            self._flows[queue, key] = flow
        return flow

    def _queue(self, name: str, now: float) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            if len(self._queues) >= _MOST_QUEUES:
                del self._queues[next(iter(self._queues))]
            queue = self._queues[name] = _Queue(asked=now)
        return queue

    def _learn(self, flow: _Flow, sent: Sent, now: float) -> None:
        """Take in what another instance knows of a fan-out."""
        flow.is_ours = True
        if sent.sent > flow.sent:
            flow.sent = sent.sent
            flow.arrived = max(flow.arrived, now)
            self._note(flow, now)
        flow.done = max(flow.done, sent.done)
        flow.looked = now
        if sent.held:
            flow.held = now

    def _note(self, flow: _Flow, now: float) -> None:
        flow.news = now
        flow.handled_then = self._queue(flow.queue, now).handled

    def _hear_consumer(self, report: Report, now: float) -> None:
        if report.host not in self._consumers and len(self._consumers) >= _MOST_CONSUMERS:
            return
        consumer = self._consumers.setdefault(report.host, _Consumer(now))
        consumer.heard, consumer.idle = now, report.idle
        for name, served in report.queues.items():
            queue = self._queue(name, now)
            before = consumer.queues.get(name)
            queue.handled += max(0, served.handled - before.handled) if before else 0
            queue.served = now
            if queue.is_foreign:
                queue.is_foreign = False
                _log.info("queue %s has consumers again that report: flow control is on for it", name)
        consumer.queues = dict(report.queues)
        for name, tally in report.tallies.items():
            before = consumer.tallies.pop(name, None)
            consumer.tallies[name] = tally
            if len(consumer.tallies) > _MOST_KEYS:
                del consumer.tallies[next(iter(consumer.tallies))]
            self._count(self._flow(*name, now), before, tally, now)

    def _count(self, flow: _Flow, before: Tally | None, tally: Tally, now: float) -> None:
        """Add what is new in a tally to a flow."""
        if before is not None and (tally.done < before.done or tally.sent < before.sent):
            before = None  # the host has forgotten the key in between
        if before is not None:
            done, sent = tally.done - before.done, tally.sent - before.sent
        elif flow.is_ours:
            done, sent = tally.done_new, tally.sent_new  # the checkpoint knows of what was before
        else:
            done, sent = tally.done, tally.sent
        flow.done += done
        flow.sent += sent
        if done:
            flow.patience = 0
        if sent:
            flow.arrived = max(flow.arrived, now)
        if done or sent:
            self._note(flow, now)

    def _room(self, flow: _Flow, total: int | None, now: float) -> int:
        consumers = self._consumers_of(flow.queue, now)
        if not consumers and self._is_foreign(flow.queue, now):
            return UNBOUNDED
        counted = [one for one in self._flows.values() if one is flow or self._counts(one, now)]
        room = min(
            self._window(flow, consumers, total, now) - flow.in_flight,
            self._limits.fan_out - max(one.in_flight for one in counted if one.key == flow.key),
            self._limits.recipe - _in_flight(one for one in counted if one.key.recipe == flow.key.recipe),
            self._limits.user - _in_flight(one for one in counted if one.key.user == flow.key.user != ""),
        )
        return max(0, room)

    def _window(self, flow: _Flow, consumers: list[_Consumer], total: int | None, now: float) -> int:
        """How many messages the fan-out may have in flight, its fair share of a few seconds of work."""
        rate = _rate(served.rate for served in (one.queues[flow.queue] for one in consumers))
        if rate is None:
            return min(SMALL, self._limits.fan_out)
        budget = HORIZON * rate
        share, others = self._share(flow, budget, now)
        least = max(_LEAST, _PER_CONSUMER * len(consumers))
        window = max(least, share)
        if total is not None and total <= SMALL:
            owner = _owner(flow.key)
            owned = _in_flight(one for one in others if _owner(one.key) == owner)
            if owned <= 2 * max(budget, SMALL):
                window = max(window, total)
        return min(int(window), self._limits.fan_out)

    def _share(self, flow: _Flow, budget: float, now: float) -> tuple[float, list[_Flow]]:
        """What the fan-out may have of a queue's budget: what the modest leave, shared by the greedy."""
        others = [one for one in self._flows.values() if one.queue == flow.queue and one is not flow]
        others = [one for one in others if one.in_flight or now - one.looked <= _ACTIVE]
        modest = [one for one in others if not self._is_greedy(one, now)]
        greedy = 1 + len(others) - len(modest)
        return max(budget / (1 + len(others)), (budget - _in_flight(modest)) / greedy), others

    def _write_off(self, queue: str, flows: Sequence[_Flow], now: float) -> None:
        """Correct what is in flight where reports were lost: nothing may wait for what does not come."""
        consumers = self._consumers_of(queue, now)
        are_idle = bool(consumers) and all(one.idle >= _QUIET for one in consumers)
        emptied = min(one.heard for one in consumers) - _QUIET if are_idle else -inf
        handled, in_flight = self._queue(queue, now).handled, _in_flight(flows)
        for flow in flows:
            is_empty = flow.arrived <= emptied
            due = max(flow.news, flow.arrived) + _OVERDUE * 2**flow.patience
            if is_empty or (now > due and handled - flow.handled_then > 2 * in_flight):
                tallies = (one.tallies.get((queue, flow.key)) for one in consumers)
                waiting = max(0, sum(tally.waiting for tally in tallies if tally is not None))
                self._settle(flow, waiting, now, is_certain=is_empty)

    def _settle(self, flow: _Flow, waiting: int, now: float, *, is_certain: bool) -> None:
        """Take it that nothing is in flight but what waits to be tried again."""
        if flow.in_flight <= waiting:
            return
        _log.debug("%d messages to %s are not accounted for", flow.in_flight - waiting, flow.queue)
        flow.done = flow.sent - waiting
        flow.patience += 0 if is_certain or flow.patience >= _MOST_PATIENCE else 1
        self._note(flow, now)

    def _is_foreign(self, name: str, now: float) -> bool:
        """Whether nobody who reports takes messages from a queue, so that what is in flight is not known."""
        queue = self._queue(name, now)
        if queue.served is not None and now - queue.served > _AWAY:
            queue.served, queue.asked = None, now
        if queue.served is not None or now - queue.asked <= _GRACE:
            return False
        if not queue.is_foreign:
            queue.is_foreign = True
            _log.warning("queue %s has no consumer that reports: flow control is off for it", name)
        return True

    def _consumers_of(self, queue: str, now: float) -> list[_Consumer]:
        return [one for one in self._consumers.values() if queue in one.queues and now - one.heard <= _DEAD]

    def _counts(self, flow: _Flow, now: float) -> bool:
        """Whether what is in flight can be known: those who take it report."""
        if flow.in_flight == 0:
            return False
        queue = self._queue(flow.queue, now)
        is_served = queue.served is not None and now - queue.served <= _AWAY
        return is_served or (flow.is_ours and not queue.is_foreign)

    @staticmethod
    def _is_greedy(flow: _Flow, now: float) -> bool:
        return flow.held is not None and now - flow.held <= _GREEDY

    def _tidy(self, now: float) -> None:
        """Write off what cannot be in flight any more, and drop what is over."""
        self._tidied = now
        for name in [name for name, one in self._consumers.items() if now - one.heard > _FORGET]:
            del self._consumers[name]
        flows: defaultdict[str, list[_Flow]] = defaultdict(list)
        for flow in self._flows.values():
            if flow.in_flight:
                flows[flow.queue].append(flow)
        for queue, in_flight in flows.items():
            self._write_off(queue, in_flight, now)
        for name, flow in list(self._flows.items()):
            last = max(flow.looked, flow.news)
            if now - last > (_FORGET if flow.in_flight else _ACTIVE):
                del self._flows[name]
                self._resting[name] = flow
        for name, flow in list(self._resting.items()):
            if now - max(flow.looked, flow.news) <= _FORGET:
                break
            del self._resting[name]


def _in_flight(flows: Iterable[_Flow]) -> int:
    return sum(one.in_flight for one in flows)


def _owner(key: Key) -> str:
    """Who counts as one when small fan-outs are let go at once: whoever starts many has to share."""
    return key.user or key.recipe


def _rate(rates: Iterable[float | None]) -> float | None:
    """Return the sum, with the mean for those that are not known; None if none is."""
    given = list(rates)
    known = [rate for rate in given if rate is not None]
    return sum(known) / len(known) * len(given) if known else None
