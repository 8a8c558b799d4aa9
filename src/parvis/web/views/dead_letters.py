"""Dead letters: why first, then how many and which, with tracebacks and payloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from parvis.observe.dead_letter_search import Group, grouped
from parvis.observe.dead_letters import DeadLetter
from parvis.transport.base import TransportError
from parvis.web.live import Part, View
from parvis.web.rendering import part, part_id
from parvis.web.sources import Sources

_MOST_IN_GROUP: Final = 50
_LONGEST_CONTENT: Final = 4000


@dataclass(frozen=True, slots=True)
class ShownLetter:
    """A dead letter as it is shown; `died` in seconds since 1970."""

    identity: str
    queue: str
    died: float | None
    reason: str
    facts: Sequence[tuple[str, str]]
    traceback: str
    payload: str
    recipe_id: str
    reinjected: int


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """Dead letters of one queue with one reason; `key` names the group in an address."""

    key: str
    queue: str
    reason: str
    count: int
    first: float | None
    last: float | None
    letters: Sequence[ShownLetter]


def dead_letters_view(sources: Sources) -> View:
    """All dead letters that can be looked at, by queue and reason."""
    try:
        listing = sources.broker.dead_letters()
    except TransportError as error:
        return {
            "head": [part("said", "problem", "late", f"Dead letters cannot be looked at: {error}")],
            "groups": (),
        }
    held = sum(listing.held.values())
    text = "Nothing was set aside."
    if held:
        queues = "1 queue" if len(listing.held) == 1 else f"{len(listing.held)} queues"
        text = f"{held:,} {'message was' if held == 1 else 'messages were'} set aside, in {queues}."
    head = [part("said", "held", "bad" if held else "ok", text)]
    head += [part("said", queue, "late", f"{queue}: {why}") for queue, why in listing.problems.items()]
    return {"head": head, "groups": [_group(group) for group in grouped(listing.letters)]}


def group_key(group: Group) -> str:
    """Return what names a group in an address, whatever its reason is."""
    return part_id("g", f"{group.queue}\n{group.reason}")


def _group(group: Group) -> Part:
    reasons = {letter.reason for letter in group.letters}
    times = [letter.died for letter in group.letters if letter.died is not None]
    shown = ShownGroup(
        key=group_key(group),
        queue=group.queue,
        reason=reasons.pop() if len(reasons) == 1 else group.reason,
        count=len(group.letters),
        first=min(times, default=None),
        last=max(times, default=None),
        letters=[shown_letter(letter) for letter in reversed(group.letters[-_MOST_IN_GROUP:])],
    )
    return part("letters", shown.key, shown)


def shown_letter(letter: DeadLetter) -> ShownLetter:
    """Return a dead letter as it is shown."""
    facts = [
        ("died in", letter.origin),
        ("as", letter.result),
        ("by", " at ".join(filter(None, (letter.service, letter.host)))),
        ("tried", _times(letter.tries or 0)),
        ("came by", letter.route),
        ("sent in before", _times(letter.reinjected)),
        ("size", f"{letter.size:,} bytes"),
        ("identity", letter.identity),
    ]
    return ShownLetter(
        identity=letter.identity,
        queue=letter.queue,
        died=letter.died,
        reason=letter.reason,
        facts=[(name, value) for name, value in facts if value],
        traceback=letter.traceback,
        payload=_content(letter),
        recipe_id=letter.recipe_id or "",
        reinjected=letter.reinjected,
    )


def _times(count: int) -> str:
    return "" if count < 1 else "once" if count == 1 else f"{count} times"


def _content(letter: DeadLetter) -> str:
    content: Any = letter.payload
    if content is None and letter.recipe_id is None:
        return letter.body[:_LONGEST_CONTENT].decode(errors="replace")
    try:
        text = orjson.dumps(content, option=orjson.OPT_INDENT_2, default=str).decode()
    except (TypeError, RecursionError):
        text = repr(content)
    return (
        text if len(text) <= _LONGEST_CONTENT else f"{text[:_LONGEST_CONTENT]}\n… ({len(text):,} characters)"
    )
