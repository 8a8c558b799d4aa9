"""Counts of the hops of one recipe, kept up as hops come in, in whatever order and however often.

A message may be handled more than once: tried again, delivered twice, given up and sent in again. All these
handlings have its identity, and what they send has the same identities, too. So each message counts once at
its node, by how its last handling ended, and for what it has sent by the most that any of them did.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from parvis.observe.hops import Hop, Sent, SentKind

_DONE = ("done", "duplicate")


class EdgeKey(NamedTuple):
    """Messages from a node to a node, or to what is no node of the recipe (-1), of a kind."""

    source: int
    target: int
    queue: str
    kind: SentKind


@dataclass(slots=True)
class EdgeTally:
    """How many messages went a way.

    Attributes:
        count: How many.
        first: When the first of them could be handled, in seconds since 1970.
        last: When the last of them could.
    """

    count: int = 0
    first: float = math.inf
    last: float = 0.0


@dataclass(slots=True)
class NodeTally:
    """What happened at a node.

    Attributes:
        queue, service: Where, and who did it last.
        hops: How many handlings there were.
        seen: How many messages were handled, perhaps to be tried again.
        ended: How many of them are not to be tried again.
        given_up: How many of these were not done.
        dead: How many of these are dead letters.
        again: How many handlings ended with another try.
        duplicates: How many messages were done before.
        microseconds: How long handling took, together. Whole, so that the order of adding does not matter.
        longest: How long it took at most, in seconds.
        first, last: When the first handling began, when the last ended.
        sent_on: When a message last left from here, to this node or another.
    """

    queue: str = ""
    service: str = ""
    hops: int = 0
    seen: int = 0
    ended: int = 0
    given_up: int = 0
    dead: int = 0
    again: int = 0
    duplicates: int = 0
    microseconds: int = 0
    longest: float = 0.0
    first: float = math.inf
    last: float = 0.0
    sent_on: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """Messages that the broker holds back.

    Attributes:
        node: Number of the node that they are for.
        count: How many.
        until: Until when, in seconds since 1970.
        sent: When they were sent.
        kind: As `Sent.kind`.
    """

    node: int
    count: int
    until: float
    sent: float
    kind: SentKind


@dataclass(frozen=True, slots=True)
class _Share:
    """What the handlings of one message add to the counts."""

    seen: int = 0
    ended: int = 0
    given_up: int = 0
    dead: int = 0
    sent: Counter[EdgeKey] = field(default_factory=Counter[EdgeKey])


@dataclass(slots=True)
class Tally:
    """The counts of one recipe.

    Attributes:
        nodes: By number.
        edges: By where from, where to, and how.
    """

    nodes: dict[int, NodeTally] = field(default_factory=dict[int, NodeTally])
    edges: dict[EdgeKey, EdgeTally] = field(default_factory=dict[EdgeKey, EdgeTally])

    def add(self, hop: Hop, others: Sequence[Hop] = ()) -> set[EdgeKey]:
        """Count a hop; return the edges whose counts it has changed.

        Args:
            hop: One that has not been counted.
            others: Those of the same message at the same node that have been.
        """
        before, after = _share(others), _share([*others, hop])
        node = self.nodes.setdefault(hop.node, NodeTally())
        node.seen += after.seen - before.seen
        node.ended += after.ended - before.ended
        node.given_up += after.given_up - before.given_up
        node.dead += after.dead - before.dead
        _count(node, hop)
        changed = after.sent.keys() | before.sent.keys()
        for key in changed:
            edge = self.edges.setdefault(key, EdgeTally())
            edge.count += after.sent[key] - before.sent[key]
        for sent in hop.sent:
            edge = self.edges[_key(hop, sent)]
            ready = hop.ended + sent.delay
            edge.first, edge.last = min(edge.first, ready), max(edge.last, ready)
        return changed


def tally_of(hops: Iterable[Hop]) -> Tally:
    """Count hops; what was reported twice counts once."""
    tally = Tally()
    known: dict[tuple[int, str], list[Hop]] = {}
    for hop in dict.fromkeys(hops):
        others = known.setdefault((hop.node, hop.identity), [])
        tally.add(hop, others)
        others.append(hop)
    return tally


def _order(hop: Hop) -> tuple[bool, int, int, float, str, str]:
    """What tells which of two handlings of a message is the later; known copies come before all.

    Counts are better than clocks, which differ from host to host.
    """
    return hop.result != "duplicate", hop.reinjected, hop.tries, hop.ended, hop.result, hop.host


def latest_of(hops: Iterable[Hop]) -> list[Hop]:
    """Return the last handling of each message, but for copies that were known to be such."""
    latest: dict[tuple[int, str], Hop] = {}
    for hop in hops:
        before = latest.setdefault((hop.node, hop.identity), hop)
        if _order(hop) > _order(before):
            latest[hop.node, hop.identity] = hop
    return list(latest.values())


def is_given_up(hop: Hop) -> bool:
    """Whether a message ended with this handling and was not done."""
    return hop.is_final and hop.result not in _DONE


def held_after(hop: Hop, now: float) -> list[Held]:
    """Return what a hop has sent that the broker still holds back."""
    return [
        Held(sent.node, sent.count, hop.ended + sent.delay, hop.ended, sent.kind)
        for sent in hop.sent
        if sent.node is not None
        and sent.delay > 0
        and hop.ended + sent.delay > now
        and sent.kind != "broadcast"
    ]


def _share(hops: Sequence[Hop]) -> _Share:
    if not hops:
        return _Share()
    (last,) = latest_of(hops)
    sent: Counter[EdgeKey] = Counter()
    for hop in hops:
        left: Counter[EdgeKey] = Counter()
        for one in hop.sent:
            left[_key(hop, one)] += one.count
        sent |= left
    return _Share(1, last.is_final, is_given_up(last), _is_dead(last), sent)


def _is_dead(hop: Hop) -> bool:
    return is_given_up(hop) and any(sent.kind == "dead_letter" for sent in hop.sent)


def _key(hop: Hop, sent: Sent) -> EdgeKey:
    return EdgeKey(hop.node, -1 if sent.node is None else sent.node, sent.queue, sent.kind)


def _count(node: NodeTally, hop: Hop) -> None:
    if (hop.ended, hop.queue, hop.service) >= (node.last, node.queue, node.service):
        node.queue, node.service = hop.queue, hop.service
    node.hops += 1
    node.again += not hop.is_final
    node.duplicates += hop.result == "duplicate"
    node.microseconds += round(hop.seconds * 1e6)
    node.longest = max(node.longest, hop.seconds)
    node.first = min(node.first, hop.begun)
    node.last = max(node.last, hop.ended)
    if any(sent.kind not in ("again", "dead_letter", "reminder") for sent in hop.sent):
        node.sent_on = max(node.sent_on, hop.ended)
