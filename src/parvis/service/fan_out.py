"""One handling of a service that sends many messages from one: how many may leave now, and whose they are."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from parvis.recipe.envelope import Envelope
from parvis.service.flow_report import FLOW, Key, State
from parvis.transport.base import Send

if TYPE_CHECKING:
    from parvis.service.flow_ledger import Ledger

#: Header of a checkpoint: what its fan-out has sent so far.
STATE: Final = "parvis-flow-state"
#: Key of the recipe environment: who started the recipe.
USER: Final = "parvis_user"

_UNBOUNDED: Final = 10**9


class FanOut:
    """What one handling of a fan-out sends, beside what was sent before.

    Args:
        headers: Headers of the message that is handled.
        envelope: The message.
        ledger: Who knows what is in flight; None where nobody does, and nothing is held back.
    """

    def __init__(self, headers: Mapping[str, str], envelope: Envelope, ledger: Ledger | None) -> None:
        state = State.parse(headers.get(STATE)) or State(secrets.token_hex(6), {})
        self._before = dict(state.counts)
        self._key = Key.of(envelope.recipe_id, str(envelope.environment.get(USER) or ""), state.watch)
        self._envelope = envelope
        self._ledger = ledger
        self._rooms: dict[str, int] = {}
        self._sent: Counter[str] = Counter()

    def room(self, targets: Sequence[int], total: int | None) -> int:
        """Return how many more messages may leave to all of some nodes.

        Args:
            targets: The nodes.
            total: How many messages the fan-out will have in all, if that is known.
        """
        return min((self._room(queue, total) for queue in self._queues(targets)), default=_UNBOUNDED)

    def marked(self, sends: Iterable[Send]) -> Iterator[Send]:
        """Yield messages with the header that says whose they are, and count them."""
        for send in sends:
            if send.kind == "queue":
                self._sent[send.destination] += 1
                yield send.with_headers({FLOW: str(self._key)})
            else:
                yield send

    def checkpoint(self, sends: Sequence[Send]) -> list[Send]:
        """Return a checkpoint with the header that says what was sent so far."""
        counts: dict[str, tuple[int, int]] = {}
        for queue in {*self._before, *self._sent}:
            sent, done = self._before.get(queue, (0, 0))
            if self._ledger is not None:
                done = max(done, self._ledger.done(queue, self._key))
            counts[queue] = sent + self._sent[queue], done
        header = State(self._key.watch, counts).to_header()
        return [send.with_headers({STATE: header}) for send in sends]

    def _queues(self, targets: Sequence[int]) -> set[str]:
        nodes = (self._envelope.recipe.get(str(target)) for target in targets)
        return {str(node["queue"]) for node in nodes if isinstance(node, dict) and node.get("queue")}  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]

    def _room(self, queue: str, total: int | None) -> int:
        if self._ledger is None:
            return _UNBOUNDED
        if queue not in self._rooms:
            sent, done = self._before.get(queue, (0, 0))
            self._rooms[queue] = self._ledger.look(queue, self._key, sent=sent, done=done, total=total)
        room = self._rooms[queue] - self._sent[queue]
        if room < 1:
            self._ledger.hold(queue, self._key)
        return max(0, room)
