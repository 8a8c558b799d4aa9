"""Tells the story of a recipe: `story_of` from its hops, `tell` from their counts."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from parvis.observe.hop_tally import (
    EdgeKey,
    EdgeTally,
    Held,
    NodeTally,
    Tally,
    held_after,
    is_given_up,
    latest_of,
    tally_of,
)
from parvis.observe.hops import REQUEST, Hop, Started
from parvis.observe.story import EdgeCount, NodeCount, NodeState, State, Story
from parvis.observe.wording import clock_text
from parvis.recipe.envelope import MalformedMessage, as_object, node_numbers
from parvis.recipe.policy import PolicyError, error_targets, timeout_of
from parvis.recipe.problem import printable

_COUNTED: Final = ("message", "checkpoint", "reminder", "error")  # what has to be handled
_SHOWN: Final = (*_COUNTED, "broadcast")
_MOST_FAILURES: Final = 100
_MOST_NAMED: Final = 4
_DOUBTFUL: Final = 30.0  # seconds after which somebody should have taken a message
_MOST_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was reported of a recipe.

    Attributes:
        recipe_id: The recipe ID.
        tally: The counts of its hops.
        started: As it was started; empty if that is not known.
        held: What the broker holds back now.
        failures: The last handling of what was given up.
    """

    recipe_id: str
    tally: Tally
    started: Sequence[Started] = ()
    held: Sequence[Held] = ()
    failures: Sequence[Hop] = field(default=())


def story_of(
    started: Sequence[Started],
    hops: Iterable[Hop],
    now: float,
    stuck_after: float,
    reporting: Collection[str] = (),
) -> Story:
    """Tell the story of a recipe from its hops.

    Args:
        started: The recipe as it was started, each time; empty if that is not known.
        hops: What was reported of it, in any order, and perhaps more than once.
        now: Seconds since 1970.
        stuck_after: Seconds without a hop after which what is outstanding is stuck.
        reporting: Queues from which hops have come before, of whatever recipe.
    """
    known = dict.fromkeys(hops)
    evidence = Evidence(
        recipe_id=next((one.recipe_id for one in [*started, *known]), ""),
        tally=tally_of(known),
        started=started,
        held=[held for hop in known for held in held_after(hop, now)],
        failures=[hop for hop in latest_of(known) if is_given_up(hop)],
    )
    return tell(evidence, now, stuck_after, reporting)


def tell(evidence: Evidence, now: float, stuck_after: float, reporting: Collection[str] = ()) -> Story:
    """Tell the story of a recipe. Arguments as `story_of`."""
    starts = sorted(
        {one.identity: one for one in evidence.started}.values(), key=lambda one: (one.at, one.identity)
    )
    teller = _Teller(evidence, starts, now, stuck_after, reporting)
    nodes = {number: teller.node(number) for number in teller.numbers()}
    state, since, summary, notes = teller.judge(nodes)
    tallies = evidence.tally.nodes.values()
    edges = [
        EdgeCount(key.source, key.target, key.kind, edge.count)
        for key, edge in sorted(teller.edges.items())
        if key.target >= 0 and key.kind in _SHOWN
    ]
    failures = sorted(evidence.failures, key=lambda hop: (hop.ended, hop.node, hop.identity))
    return Story(
        recipe_id=evidence.recipe_id,
        state=state,
        since=since,
        summary=summary,
        nodes=nodes,
        edges=_together(edges),
        failures=failures[:_MOST_FAILURES],
        notes=notes,
        hops=sum(node.hops for node in tallies),
        begun=min((one.at for one in starts), default=min((node.first for node in tallies), default=None)),
        last=max((node.last for node in tallies), default=None),
        started=starts[-1] if starts else None,
        times_started=len(starts),
    )


class _Teller:
    """What is known of one recipe, and what follows from it."""

    def __init__(
        self,
        evidence: Evidence,
        starts: Sequence[Started],
        now: float,
        stuck_after: float,
        reporting: Collection[str],
    ) -> None:
        self._evidence = evidence
        self._tallies = evidence.tally.nodes
        self._starts = starts
        self._recipe: Mapping[str, Any] = starts[-1].recipe if starts else {}
        self._now = now
        self._stuck_after = stuck_after
        self._reporting = reporting
        self.edges = dict(evidence.tally.edges)
        if starts and not any(key.source == REQUEST and key.target > REQUEST for key in self.edges):
            self._start_from_recipe()

    def numbers(self) -> list[int]:
        """The numbers of all nodes that anything is known of."""
        found = {int(key) for key in self._recipe if key.isdecimal() and len(key) <= _MOST_DIGITS}
        found |= self._tallies.keys() | {key.target for key in self.edges if key.target >= 0}
        return sorted(found)

    def node(self, number: int) -> NodeCount:
        """What is known of a node."""
        tally = self._tallies.get(number, NodeTally())
        content = self._content(number)
        ways = [(key, edge) for key, edge in self.edges.items() if key.target == number]
        sent = sum(edge.count for key, edge in ways if key.kind in _COUNTED)
        if number == REQUEST:  # nobody of ours reports who asked first
            sent = max(sent + 1, tally.seen)
        held = [one for one in self._evidence.held if one.node == number]
        moot = sum(one.count for one in held if one.kind == "reminder" and tally.sent_on > one.sent)
        held = [one for one in held if one.kind != "reminder" or tally.sent_on <= one.sent]
        outstanding = max(sent - tally.ended - moot, tally.seen - tally.ended, 0)
        waiting = min(sum(one.count for one in held), outstanding)
        heard = sum(edge.count for key, edge in ways if key.kind == "broadcast")
        queue = tally.queue or _text(content.get("queue") or content.get("topic"))
        queue = queue or min((key.queue for key, _ in ways), default="")
        count = NodeCount(
            node=number,
            queue=queue,
            service=tally.service or _text(content.get("service")) or ("dispatcher" if not number else ""),
            state="idle",
            sent=sent or heard,
            handled=tally.ended,
            outstanding=outstanding,
            waiting=waiting,
            until=max((one.until for one in held), default=None),
            given_up=tally.given_up,
            dead=tally.dead,
            again=tally.again,
            duplicates=tally.duplicates,
            hops=tally.hops,
            seconds=tally.microseconds / 1e6,
            longest=tally.longest,
            first=tally.first if tally.hops else None,
            last=tally.last if tally.hops else None,
            unaccounted=max(0, tally.seen - sent) if number != REQUEST else 0,
        )
        state, since = self._state(count, ways, held)
        return replace(count, state=state, since=since)

    def judge(self, nodes: Mapping[int, NodeCount]) -> tuple[State, float | None, str, list[str]]:
        """Say how it stands with all, since when, in a sentence, and what is not known."""
        if not self._tallies and not self._starts:
            return "unknown", None, "No service has reported anything of it.", []
        missing = self._missing(nodes)
        notes = self._notes(nodes, missing)
        state, concerned = _overall(nodes.values())
        last = max((node.last for node in nodes.values() if node.last is not None), default=None)
        since = last
        if state in ("waiting", "stuck"):
            since = min((node.since for node in concerned if node.since is not None), default=last)
        elif state == "running":
            since = min((one.at for one in self._starts), default=None)
            firsts = [node.first for node in nodes.values() if node.first is not None]
            since = min(firsts, default=None) if since is None else since
        incomplete = bool(missing) or not self._start_is_known()
        if incomplete and state in ("finished", "stuck"):
            text = "All that was reported of it is done, but not all was reported."
            if state == "stuck":
                text = f"It may be stuck: {_places(concerned)}. But not all was reported."
            return "unknown", since, text, notes
        return state, since, self._summary(state, nodes, concerned, since), notes

    def _start_from_recipe(self) -> None:
        """Make up for the hop of the dispatcher, which is missing."""
        for one in self._starts:
            entries: Any = one.recipe.get("start")
            for entry in cast("list[Any]", entries) if isinstance(entries, list) else []:
                with contextlib.suppress(MalformedMessage, TypeError, IndexError, KeyError):
                    number = node_numbers(entry[0])[0]
                    queue = _text(as_object(one.recipe.get(str(number))).get("queue"))
                    kind = "message" if queue else "broadcast"
                    edge = self.edges.setdefault(EdgeKey(REQUEST, number, queue, kind), EdgeTally())
                    edge.count += 1
                    edge.first, edge.last = min(edge.first, one.at), max(edge.last, one.at)

    def _start_is_known(self) -> bool:
        return bool(self._starts) or any(key.source == REQUEST for key in self.edges)

    def _content(self, number: int) -> Mapping[str, Any]:
        return as_object(self._recipe.get(str(number)))

    def _state(
        self, node: NodeCount, ways: Sequence[tuple[EdgeKey, EdgeTally]], held: Sequence[Held]
    ) -> tuple[NodeState, float | None]:
        if not node.outstanding:
            if node.given_up:
                return "failed", node.last
            return ("done", node.last) if node.hops or ways else ("idle", None)
        if node.waiting >= node.outstanding:
            return "waiting", max(one.sent for one in held)
        ready = [edge.last for _, edge in ways if edge.last <= self._now]
        if node.last is None:
            since = min((edge.first for _, edge in ways), default=self._now)
            since = min(since, self._now)
        else:
            since = max(node.last, *ready, 0.0)
        patience = self._stuck_after + max(node.longest, self._time_limit(node.node))
        if self._now - since < patience:
            return "running", since
        is_silent = not node.hops and node.queue not in self._reporting
        return ("silent" if is_silent else "stuck"), since

    def _time_limit(self, number: int) -> float:
        with contextlib.suppress(PolicyError):
            return timeout_of(self._content(number)) or 0.0
        return 0.0

    def _missing(self, nodes: Mapping[int, NodeCount]) -> list[int]:
        """The nodes that handled what nobody has reported to have sent, though all who lead there report."""
        if not self._start_is_known():
            return []
        return [
            node.node
            for node in nodes.values()
            if node.unaccounted
            and not any(
                nodes[source].state == "silent" or (nodes[source].sent and not nodes[source].hops)
                for source in self._sources(node.node)
                if source in nodes
            )
        ]

    def _sources(self, target: int) -> list[int]:
        found: list[int] = []
        for key in self._recipe:
            if not key.isdecimal() or len(key) > _MOST_DIGITS:
                continue
            outputs: Any = self._content(int(key)).get("output")
            entries: list[Any] = (
                list(cast("dict[Any, Any]", outputs).values()) if isinstance(outputs, dict) else [outputs]
            )
            with contextlib.suppress(MalformedMessage):
                targets = [number for entry in entries for number in node_numbers(entry)]
                if target in [*targets, *error_targets(self._recipe, int(key))]:
                    found.append(int(key))
        return found

    def _notes(self, nodes: Mapping[int, NodeCount], missing: Sequence[int]) -> list[str]:
        notes: list[str] = []
        if not self._start_is_known():
            notes.append("How it was started was not reported, or is no longer kept.")
        if len(self._starts) > 1:
            notes.append(f"It was started {len(self._starts)} times; the recipe is that of the last time.")
        for number in missing[:_MOST_NAMED]:
            node = nodes[number]
            what = "message that nobody has" if node.unaccounted == 1 else "messages that nobody has"
            notes.append(
                f"Hops are missing: {_called(node)} handled {node.unaccounted} {what} reported to have sent."
            )
        notes += [
            f"{node.outstanding:,} handed to {printable(node.queue, 80)}, whence nothing was ever reported: "
            "whoever takes messages there does not report, or nobody listens."
            for node in nodes.values()
            if node.outstanding and not node.hops and node.queue not in self._reporting
            if node.since is not None and self._now - node.since >= min(_DOUBTFUL, self._stuck_after)
        ][:_MOST_NAMED]
        if any(node.state == "running" for node in nodes.values()):
            notes += [
                f"{node.outstanding:,} wait at {_called(node)}, where nothing has happened since "
                f"{clock_text(node.since)}."
                for node in nodes.values()
                if node.state == "stuck"
            ][:_MOST_NAMED]
        return notes

    def _summary(
        self,
        state: State,
        nodes: Mapping[int, NodeCount],
        concerned: Sequence[NodeCount],
        since: float | None,
    ) -> str:
        given_up = sum(node.given_up for node in nodes.values())
        trouble = f" {given_up:,} given up so far." if given_up else ""
        handled = sum(node.handled for node in nodes.values())
        match state:
            case "finished":
                return f"Finished: {handled:,} messages handled{self._took(since)}."
            case "failed":
                reason = _first_reason(self._evidence)
                return f"Ended, and {given_up:,} of {handled:,} messages were given up{reason}"
            case "waiting":
                until = max((node.until for node in concerned if node.until is not None), default=self._now)
                return f"Waiting until {clock_text(until)}: {_places(concerned)}.{trouble}"
            case "stuck":
                return f"Stuck since {clock_text(since)}: {_places(concerned)}.{trouble}"
            case "unknown":
                return f"Nobody reports what became of {_places(concerned)}.{trouble}"
            case "running":
                return f"Running: {_places(concerned)}.{trouble}"

    def _took(self, ended: float | None) -> str:
        begun = min((one.at for one in self._starts), default=None)
        return "" if begun is None or ended is None else f" in {max(0.0, ended - begun):.1f} s"


def _overall(nodes: Iterable[NodeCount]) -> tuple[State, list[NodeCount]]:
    """The state of all nodes together, and those that make it so."""
    nodes = list(nodes)
    for node_state, state in (("running", "running"), ("stuck", "stuck"), ("waiting", "waiting")):
        concerned = [node for node in nodes if node.state == node_state]
        if concerned:
            return cast("State", state), concerned
    silent = [node for node in nodes if node.state == "silent"]
    if silent:
        return "unknown", silent
    return ("failed" if any(node.given_up for node in nodes) else "finished"), []


def _places(nodes: Sequence[NodeCount]) -> str:
    named = [f"{node.outstanding:,} at {_called(node)}" for node in nodes[:_MOST_NAMED]]
    more = f" and at {len(nodes) - _MOST_NAMED} more nodes" if len(nodes) > _MOST_NAMED else ""
    return ", ".join(named) + more


def _called(node: NodeCount) -> str:
    if node.node == REQUEST:
        return "the dispatcher"
    return f"node {node.node} ({printable(node.queue or node.service, 80)})"


def _first_reason(evidence: Evidence) -> str:
    first = min(evidence.failures, key=lambda hop: (hop.ended, hop.node, hop.identity), default=None)
    if first is None:
        return "."
    return (
        f", the first at node {first.node} by {printable(first.service, 80)}: {printable(first.reason, 300)}"
    )


def _together(edges: Iterable[EdgeCount]) -> list[EdgeCount]:
    """Edges that differ in the queue alone, as one."""
    sums: dict[tuple[int, int, str], int] = {}
    for edge in edges:
        key = (edge.source, edge.target, edge.kind)
        sums[key] = sums.get(key, 0) + edge.count
    return [EdgeCount(*key, count) for key, count in sums.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
