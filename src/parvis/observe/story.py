"""A recipe's story: whether it has finished, runs, waits, is stuck or has failed; where, and since when.

It is made of hops (`parvis.observe.hops`), in whatever order and how ever often they have been reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from parvis.observe.hops import Hop, Started, hop_to_json

State = Literal["running", "waiting", "stuck", "finished", "failed", "unknown"]
NodeState = Literal["idle", "running", "waiting", "stuck", "silent", "done", "failed"]


@dataclass(frozen=True, slots=True)
class NodeCount:
    """What is known of one node of a recipe.

    Attributes:
        node: Its number; `hops.REQUEST` (0) is the request to the dispatcher.
        queue: Its queue, or its topic.
        service: What people call it.
        state: `idle`, nothing was sent to it yet; `running`; `waiting`, all that is outstanding is held back
            until `until`; `stuck`, nothing has happened for too long; `silent`, messages were handed to a
            queue from which nobody reports; `done`; `failed`, all is done, and some of it was given up.
        since: When it came to be so, in seconds since 1970; None if it is idle.
        sent: How many messages were sent to it; if it has no queue, how many were broadcast.
        handled: How many of them were handled for good.
        outstanding: How many were not.
        waiting: How many of these the broker holds back.
        until: Until when, in seconds since 1970: the last of them.
        given_up: How many were given up: dead letters, and what went to error nodes. What was sent in again
            and is done counts no more.
        dead: How many of them are dead letters.
        again: How often something was tried again.
        duplicates: How often something came that was done before.
        hops: How many handlings there were.
        seconds: How long they took, together.
        longest: How long the longest took.
        first: When the first began; None if there was none.
        last: When the last ended.
        unaccounted: How many messages were handled here that nobody has reported to have sent.
    """

    node: int
    queue: str
    service: str
    state: NodeState
    since: float | None = None
    sent: int = 0
    handled: int = 0
    outstanding: int = 0
    waiting: int = 0
    until: float | None = None
    given_up: int = 0
    dead: int = 0
    again: int = 0
    duplicates: int = 0
    hops: int = 0
    seconds: float = 0
    longest: float = 0
    first: float | None = None
    last: float | None = None
    unaccounted: int = 0


@dataclass(frozen=True, slots=True)
class EdgeCount:
    """Messages from one node to another, or to itself.

    Attributes:
        source: The node that sent them.
        target: The node that they were sent to.
        kind: How: as `hops.Sent.kind`, without `again` and `dead_letter`.
        count: How many.
    """

    source: int
    target: int
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Story:
    """One recipe's life, as far as it was reported.

    Attributes:
        recipe_id: The recipe ID.
        state: How it stands.
        since: Since when, in seconds since 1970; None if nothing is known.
        summary: That in a sentence, for people.
        nodes: The nodes of the recipe by number, and of the request to the dispatcher if it was reported.
        edges: What was sent from where to where.
        failures: The last handling of each message that was given up, the first hundred.
        notes: What is not known, or is doubtful, in sentences for people.
        hops: How many hops there are.
        begun: When it was started, or first heard of.
        last: When something last happened.
        started: As the dispatcher started it; the last time, if more than once.
        times_started: How often it was started.
    """

    recipe_id: str
    state: State
    since: float | None
    summary: str
    nodes: dict[int, NodeCount]
    edges: Sequence[EdgeCount]
    failures: Sequence[Hop]
    notes: Sequence[str]
    hops: int
    begun: float | None
    last: float | None
    started: Started | None
    times_started: int

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen, or be known, unless somebody does something."""
        handed_over = self.state == "unknown" and any(node.state == "silent" for node in self.nodes.values())
        return handed_over or self.state in ("finished", "failed", "stuck")

    def to_json(self) -> dict[str, Any]:
        """Return it for programs, without what the recipe was started with."""
        return {
            "recipe_id": self.recipe_id,
            "state": self.state,
            "since": self.since,
            "summary": self.summary,
            "begun": self.begun,
            "last": self.last,
            "hops": self.hops,
            "times_started": self.times_started,
            "nodes": [asdict(node) for node in self.nodes.values()],
            "edges": [asdict(edge) for edge in self.edges],
            "failures": [hop_to_json(hop) for hop in self.failures],
            "notes": list(self.notes),
        }
