"""What a process is doing and did last, for its status card.

A message costs hardly anything here: what is said of it is only read from it when a card is sent.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from parvis.observe.recent_messages import KEPT, RECENT, RECIPE, Doings, RecentMessage
from parvis.recipe.envelope import envelope_of
from parvis.service.base import AnyService
from parvis.service.observer import Handled, Observer
from parvis.transport.base import Message

_LARGEST: Final = 1_000_000  # bytes of a body that is neither kept nor read for this
_NO_ERROR: Final = frozenset({"done", "duplicate", "retry"})


class _Handling(contextlib.AbstractContextManager[None]):
    """Holds the message in hand; always the same object, as it is entered for every message."""

    __slots__ = ("message",)

    def __init__(self) -> None:
        self.message: Message | None = None

    def __exit__(self, *_: object) -> None:
        self.message = None


class Recent(Observer):
    """Keeps the last messages of a process, and counts what came of all."""

    def __init__(self) -> None:
        self._handling = _Handling()
        self._last: deque[tuple[float, Handled]] = deque(maxlen=KEPT)
        self._results: dict[str, int] = {}
        self._read: dict[str, tuple[str, str]] = {}

    def handling(self, service: AnyService, messages: Sequence[Message]) -> _Handling:  # noqa: ARG002
        """Remember what is in hand; of a batch, its first message."""
        self._handling.message = messages[0] if messages else None
        return self._handling

    def committed(self, handled: Sequence[Handled]) -> None:
        """Count what was handled, and keep the last of it."""
        now, results = time.time(), self._results
        for one in handled:
            result = one.outcome.result
            results[result] = results.get(result, 0) + 1
        self._last.extend([(now, one) for one in handled[-KEPT:]])

    def card(self) -> Mapping[str, Any]:
        """What is in hand, if anything, and what was handled last. Called on a thread of its own."""
        message, last = self._handling.message, list(self._last)
        known = [one.message for _, one in last] + ([message] if message else [])
        self._read = {
            one.message_id: self._read.get(one.message_id) or _recipe_and_node(one) for one in known
        }
        card: dict[str, Any] = {}
        if message is not None and (recipe := self._read[message.message_id][0]):
            card[RECIPE] = recipe[:40]
        results = dict(self._results)
        if results:
            card[RECENT] = Doings(
                handled=sum(results.values()),
                errors={name: count for name, count in results.items() if name not in _NO_ERROR},
                last=[
                    RecentMessage(
                        moment,
                        *self._read[one.message.message_id],
                        one.outcome.result,
                        one.seconds,
                        one.outcome.reason,
                    )
                    for moment, one in reversed(last)
                ],
            ).to_json()
        return card


def _recipe_and_node(message: Message) -> tuple[str, str]:
    """The recipe ID and the node that a message is for; nothing of one that cannot be read."""
    envelope = envelope_of(message.headers, message.body) if len(message.body) <= _LARGEST else None
    return (envelope.recipe_id or "", str(envelope.pointer)) if envelope else ("", "")
