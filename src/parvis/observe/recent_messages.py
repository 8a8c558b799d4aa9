"""What a status card says of the messages that a process handled last: the form on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from parvis.observe.harmless import figure, figures, harmless
from parvis.recipe.envelope import dump_json

RECIPE: Final = "parvis-recipe"
"""Key of a card: the ID of the recipe whose message is being handled."""
RECENT: Final = "parvis-recent"
"""Key of a card: what was handled."""
KEPT: Final = 5
"""So many messages are named."""

_MOST_BYTES: Final = 1400
_LONGEST_NAME: Final = 40
_LONGEST_REASON: Final = 120
_LAST_MOMENT: Final = 1e11  # a calendar ends somewhere


@dataclass(frozen=True, slots=True)
class RecentMessage:
    """A message that was handled.

    Attributes:
        time: When, in seconds of the epoch.
        recipe: ID of its recipe, or nothing.
        node: Its node of the recipe, or nothing.
        result: What came of it: `done`, `reject`, `retry`, `fail`, `timeout`, `crash` or `duplicate`.
        seconds: How long it took.
        reason: Why it is not done.
    """

    time: float
    recipe: str
    node: str
    result: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Doings:
    """What a process has done.

    Attributes:
        handled: How many messages it has handled.
        errors: How many of them failed, by result.
        last: The last of them, the latest first.
    """

    handled: int = 0
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    last: Sequence[RecentMessage] = ()

    def to_json(self) -> dict[str, Any]:
        """What a card says under `RECENT`: less than 1.5 kB, whatever is in it."""
        last = [
            [
                round(one.time, 1),
                harmless(one.recipe, _LONGEST_NAME),
                harmless(one.node, _LONGEST_NAME),
                one.result,
                round(one.seconds, 3),
                harmless(one.reason, _LONGEST_REASON),
            ]
            for one in self.last
        ]
        content = {"handled": self.handled, "errors": dict(self.errors), "last": last}
        while last and len(dump_json(content)) > _MOST_BYTES:
            last.pop()
        return content

    @classmethod
    def read(cls, value: Any) -> Doings:
        """Read what a card says, which may be anything."""
        if not isinstance(value, dict):
            return cls()
        told = cast("dict[str, Any]", value)
        rows = cast("list[Any]", told.get("last")) if isinstance(told.get("last"), list) else []
        read = [_read(row) for row in rows[:KEPT]]
        return cls(
            handled=_count(figure(told.get("handled"))),
            errors={name: _count(count) for name, count in figures(told.get("errors"), 10).items()},
            last=tuple(one for one in read if one is not None),
        )


def _read(row: Any) -> RecentMessage | None:
    if not isinstance(row, list) or len(cast("list[Any]", row)) != 6:
        return None
    time, recipe, node, result, seconds, reason = cast("list[Any]", row)
    moment, took, name = figure(time), figure(seconds), harmless(result, 20)
    if moment is None or took is None or not name or moment > _LAST_MOMENT:
        return None
    return RecentMessage(
        moment,
        harmless(recipe, _LONGEST_NAME),
        harmless(node, _LONGEST_NAME),
        name,
        took,
        harmless(reason, _LONGEST_REASON),
    )


def _count(number: float | None) -> int:
    return int(min(number or 0, 1e15))
