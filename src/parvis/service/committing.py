"""Commit what was handled: several handlings in one transaction while messages wait, else each at once.

A transaction is written, and while the broker confirms it the next messages are handled. There is never more
than one that is not confirmed: acknowledgements are cumulative, so a second one would acknowledge what the
first, if it is refused, has not.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from parvis.observe.logs import recipe_context
from parvis.recipe.envelope import Envelope, MalformedMessage
from parvis.service.base import AnyService
from parvis.service.handling import Outcome
from parvis.service.identity import identified, occasion_of
from parvis.service.observer import Handled
from parvis.service.observers import Observers
from parvis.service.remembered import Remembered
from parvis.service.settling import bare_dead_letter, settle
from parvis.transport.base import BrokerRefused, Disconnected, Message, Pending, Send, Transport

_log = logging.getLogger("parvis.host")

#: Seconds for which a transaction is held open while further messages are waiting.
GROUP_TIME = 0.02

_MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class Unit:
    """Messages that were handled together, and what leaves because of them."""

    handled: Sequence[Handled]
    sends: Sequence[Send]


@dataclass(slots=True)
class Refused:
    """A message that the broker did not let us settle: how often, alone, and what it said."""

    times: int
    reason: str


@dataclass(slots=True)
class _Group:
    units: list[Unit] = field(default_factory=list[Unit])
    size: int = 0
    due: float = 0.0  # when it is to be closed, whoever waits


class Committer:
    """Gathers what was handled, and commits it.

    Args:
        transport: What the messages came by.
        observers: Who is told.
        handle_again: Handles a message once more, on its own.

    Attributes:
        confirmed: What was in the transaction that was confirmed last.
        memories: What services remember, those that do.
        refused: Messages that the broker did not let us settle, by their identifier.
        survived: Identifiers of messages that this process was given before, and lives: it is not they that
            killed whoever had them before.
    """

    def __init__(
        self,
        transport: Transport,
        observers: Observers,
        handle_again: Callable[[AnyService, Message], Handled],
    ) -> None:
        self._transport = transport
        self._observers = observers
        self._handle_again = handle_again
        self._group = _Group()
        self._pending: tuple[Pending, list[Unit]] | None = None
        self._untold: list[Unit] = []  # confirmed, and nobody has been told yet
        self.confirmed: Sequence[Handled] = ()
        self.memories: dict[AnyService, Remembered] = {}
        self.refused: dict[str, Refused] = {}
        self.survived: dict[str, None] = {}

    @property
    def has_open(self) -> bool:
        """Whether something was handled and not written yet."""
        return self._group.size > 0

    @property
    def has_pending(self) -> bool:
        """Whether something was written that the broker has not confirmed, as far as we have looked."""
        return self._pending is not None

    def add(self, handled: Sequence[Handled], begun: float) -> None:
        """Put messages that were handled together into the open transaction.

        Args:
            handled: One message, or a batch.
            begun: When handling them began, on the monotonic clock.
        """
        try:
            sends = [send for one in handled for send in self._sends(one)]
        except Exception as error:  # noqa: BLE001 - a message is at fault, the host goes on
            _log.exception("what %s sends cannot be made out", handled[0].service.name)
            self.close()  # acknowledgements go in the order of delivery
            self._take_apart([Unit(handled, ())], error)
            return
        group = self._group
        if not group.units:
            group.due = begun + GROUP_TIME
        group.units.append(Unit(handled, sends))
        group.size += len(handled)
        for memory, identity in self._done(handled):
            memory.expect(identity)

    def close_if_full(self, most: int, now: float) -> None:
        """Write the open transaction if it holds `most` messages, or has been open for its time."""
        if self._group.size >= most or (self._group.size and now >= self._group.due):
            self.close()

    def close(self) -> None:
        """Write the open transaction, once the one before is confirmed."""
        if self._group.units:
            group, self._group = self._group, _Group()
            self._begin(group.units)

    def confirm(self) -> None:
        """Wait until the broker has confirmed what was written, and tell of it."""
        self.await_answer()
        self._tell()

    def await_answer(self) -> None:
        """Wait until the broker has confirmed what was written; it is told of when the next is written."""
        if self._pending is None:
            return
        pending, units = self._pending
        try:
            pending.wait()
        except Disconnected as error:
            self._lost(units, error)
        except BrokerRefused as error:
            self._note_refusal(units, error)
        else:
            self._untold += units
        finally:
            self._pending = None

    def finish(self) -> None:
        """Write what is open, and wait until all is confirmed."""
        self.close()
        self.confirm()

    def set_aside(self, handled: Handled, reason: str) -> None:
        """Make a message a dead letter with little but its body, and wait until that is confirmed."""
        self.finish()
        letter = bare_dead_letter(self._transport, handled.message, reason)
        self._begin([Unit([handled], [letter])])
        self.confirm()

    def note_survival(self, message: Message) -> None:
        """Remember that we were given a message, and live."""
        self.survived[message.message_id] = None
        if len(self.survived) > _MOST_REMEMBERED:
            del self.survived[next(iter(self.survived))]

    def _sends(self, handled: Handled) -> Sequence[Send]:
        message, outcome = handled.message, handled.outcome
        if outcome.result in {"done", "duplicate"}:
            sends = outcome.sends
        else:
            with recipe_context(_recipe_id(message)), self._observers.settling(handled):
                sends = settle(self._transport, handled.service, message, outcome)
        sends = identified(message, sends)
        return self._observers.sending(handled, sends)

    def _begin(self, units: list[Unit]) -> None:
        self.await_answer()
        messages = [one.message for unit in units for one in unit.handled]
        sends = [send for unit in units for send in unit.sends]
        if self._observers.has_closing:
            sends += self._observers.closing([one for unit in units for one in unit.handled])
        try:
            self._pending = self._transport.begin(messages, sends), units
        except Disconnected as error:
            self._lost(units, error)
        except BrokerRefused as error:
            self._note_refusal(units, error)
        except Exception as error:  # noqa: BLE001 - a message is at fault, the host goes on
            self._take_apart(units, error)
        self._tell()

    def _take_apart(self, units: list[Unit], error: Exception) -> None:
        """Settle units one by one, handle those of a batch again one by one; reject what cannot be sent."""
        if len(units) > 1:
            for unit in units:
                self._begin([unit])
            return
        (unit,) = units
        self._forget(unit.handled)
        if len(unit.handled) > 1:
            for one in unit.handled:
                self._settle_alone(self._handle_again(one.service, one.message))
            return
        (handled,) = unit.handled
        if not handled.outcome.tells_error_nodes:  # even the dead letter cannot be sent
            with contextlib.suppress(Disconnected, BrokerRefused):
                self._transport.refuse(handled.message)
            self._observers.uncommitted(unit.handled, str(error))
            return
        _log.error("what %s sends cannot be put into a frame: %s", handled.service.name, error)
        reason = f"what came of it cannot be sent: {type(error).__name__}: {error}"
        if handled.outcome.result == "reject":
            reason = f"{handled.outcome.reason}; {reason}"
        self._settle_alone(rejected(handled.service, handled.message, reason))

    def _settle_alone(self, handled: Handled) -> None:
        try:
            unit = Unit([handled], self._sends(handled))
        except Exception as error:  # noqa: BLE001 - as in `add`
            self._take_apart([Unit([handled], ())], error)
        else:
            self._begin([unit])

    def _tell(self) -> None:
        """Tell, and have remembered, what the broker confirmed."""
        if not self._untold:
            return
        units, self._untold = self._untold, []
        self.confirmed = handled = [one for unit in units for one in unit.handled]
        for one in handled if self.refused or self.survived else ():
            self.refused.pop(one.message.message_id, None)
            self.survived.pop(one.message.message_id, None)
        for memory, identity in self._done(handled):
            memory.record([identity])
        self._observers.committed(handled)

    def _done(self, handled: Sequence[Handled]) -> Iterator[tuple[Remembered, str]]:
        """What is to be remembered of messages.

        Not of what was rejected: if somebody mends the cause and sends the dead letter in again, it counts.
        """
        for one in handled if self.memories else ():
            if one.outcome.result == "done" and one.service in self.memories:
                yield self.memories[one.service], occasion_of(one.message)

    def _lost(self, units: Sequence[Unit], error: Disconnected) -> None:
        _log.warning("what was handled could not be committed and will be handled again: %s", error)
        self._uncommitted(units, str(error))

    def _note_refusal(self, units: Sequence[Unit], error: BrokerRefused) -> None:
        """The messages come again, as the connection is closed; then each is settled alone."""
        handled = [one for unit in units for one in unit.handled]
        names = ", ".join(sorted({one.service.name for one in handled}))
        reason = f"the broker refused what {names} wants to send: {error}"
        _log.error("%s", reason)
        for one in handled:
            before = self.refused.get(one.message.message_id)
            times = (before.times if before else 0) + (len(handled) == 1)
            failed = one.outcome.tells_error_nodes and one.outcome.result != "done" and one.outcome.reason
            said = f"{failed}; {reason}" if failed else reason
            self.refused[one.message.message_id] = Refused(times, said)
        while len(self.refused) > _MOST_REMEMBERED:
            del self.refused[next(iter(self.refused))]
        self._uncommitted(units, reason)

    def _uncommitted(self, units: Sequence[Unit], reason: str) -> None:
        handled = [one for unit in units for one in unit.handled]
        for one in handled:
            self.note_survival(one.message)
        self._forget(handled)
        self._observers.uncommitted(handled, reason)

    def _forget(self, handled: Sequence[Handled]) -> None:
        """What was done is not to be taken for a duplicate when it is handled again."""
        for memory, identity in self._done(handled):
            memory.forget([identity])


def rejected(service: AnyService, message: Message, reason: str) -> Handled:
    """A message that is to be a dead letter, whatever came of handling it."""
    return Handled(service, message, Outcome("reject", reason=reason, tells_error_nodes=False), 0)


def _recipe_id(message: Message) -> str | None:
    try:
        return Envelope.parse(message.body).recipe_id
    except MalformedMessage:
        return None
