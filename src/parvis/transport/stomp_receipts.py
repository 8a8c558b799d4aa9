"""What was sent to a STOMP broker and waits for its answer."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

from parvis.transport.base import BrokerRefused, Disconnected, TransportError
from parvis.transport.latch import Latch

logger = logging.getLogger(__name__)

Covers = Literal["frame", "transaction", "sequence"]

_EXPLANATION_TIMEOUT: Final = 0.25  # seconds in which the reason for a refused transaction may come
_CLOSING_TIMEOUT: Final = 1.0  # seconds a broker has to hang up after an error about nothing of ours


class Receipt(Latch):
    """A confirmation that somebody waits for.

    Args:
        number: Its name on the wire.
        covers: A `frame`: the broker's error names it. A `transaction`, by its COMMIT: an error that names
            nothing may come before the answer or after it, and says why it failed. A `sequence` of frames, by
            the last: an error that names nothing and comes before the answer, or a moment after it, is about
            one of the others.
        then: Called with the outcome, an error or None, on whatever thread learns it.
    """

    __slots__ = ("covers", "error", "number", "objection", "then")

    def __init__(
        self,
        number: str,
        covers: Covers = "frame",
        then: Callable[[TransportError | None], None] | None = None,
    ) -> None:
        super().__init__()
        self.number = number
        self.covers = covers
        self.then = then
        self.error: TransportError | None = None
        self.objection = ""

    def resolve(self, error: TransportError | None) -> None:
        """Set the outcome."""
        self.error = error
        self.set()
        if self.then is not None:
            self.then(error)


class Receipts:
    """All receipts that a connection waits for. `expect` and `fail` may be called from any thread.

    A frame of a transaction asks for no receipt of its own: ActiveMQ gives up a transaction for a message it
    refuses only if nobody asked for a receipt of that message, and otherwise commits the rest. So its reason
    comes without a name, and even after the answer to COMMIT.

    Attributes:
        broker: For log lines.
        due: When `keep_time` is to be called, on the monotonic clock.
    """

    def __init__(self, broker: str) -> None:
        self.broker = broker
        self.due = math.inf
        self._lock = threading.Lock()
        self._pending: dict[str, Receipt] = {}  # in the order in which the broker will answer
        self._unexplained: tuple[Receipt, str] | None = None
        self._unopposed: list[Receipt] = []  # sequences that were confirmed just now
        self._closing = False

    def expect(self, receipt: Receipt) -> None:
        """Wait for `receipt`."""
        with self._lock:
            self._pending[receipt.number] = receipt

    def confirm(self, number: str) -> None:
        """The broker confirmed."""
        with self._lock:
            receipt = self._pending.pop(number, None)
        if receipt is None:
            return
        if receipt.covers == "sequence":
            # ActiveMQ sends the error from another thread than the answer, and so behind it at times.
            with self._lock:
                self._unopposed.append(receipt)
            self.due = min(self.due, time.monotonic() + _EXPLANATION_TIMEOUT)
            return
        if receipt.objection:
            # An acknowledgement that it did not accept: the message comes again on another connection.
            self._stray(receipt.objection)
        receipt.resolve(None)

    def refuse(self, number: str | None, text: str) -> None:
        """The broker reported an error, about what has the name `number` or does not say about what."""
        if number is None:
            self._refuse_unnamed(text)
            return
        self._explain()
        with self._lock:
            receipt = self._pending.pop(number, None)
            if receipt is not None and receipt.covers == "transaction" and not receipt.objection:
                self._unexplained = receipt, text
                self.due = min(self.due, time.monotonic() + _EXPLANATION_TIMEOUT)
                return
        if receipt is None:
            logger.error("%s refused what nobody waits for: %s", self.broker, text)
        else:
            receipt.resolve(BrokerRefused(receipt.objection or text))

    def _refuse_unnamed(self, text: str) -> None:
        if self._unexplained is not None:
            self._explain(text)
            return
        with self._lock:
            opposed = self._unopposed.pop(0) if self._unopposed else None
        if opposed is not None:
            opposed.resolve(BrokerRefused(text))
            return
        with self._lock:
            oldest = next((receipt for receipt in self._pending.values() if receipt.covers != "frame"), None)
            if oldest is not None and oldest.covers == "sequence":
                del self._pending[oldest.number]
        if oldest is None:
            self._stray(text)
        elif oldest.covers == "sequence":
            oldest.resolve(BrokerRefused(text))
        else:
            oldest.objection = oldest.objection or text

    def keep_time(self) -> None:
        """Give up what was waited for long enough.

        Raises:
            Disconnected: The broker reported an error about nothing of ours, and did not hang up.
        """
        self._explain()
        with self._lock:
            accepted, self._unopposed = self._unopposed, []
        for receipt in accepted:
            receipt.resolve(None)
        self.due = math.inf
        if self._closing:
            raise Disconnected(f"{self.broker} reported an error")

    def _explain(self, text: str = "") -> None:
        """Wait no longer for the reason for a refused transaction: it is `text`, if that is known."""
        with self._lock:
            unexplained, self._unexplained = self._unexplained, None
        if unexplained is not None:
            receipt, known = unexplained
            receipt.resolve(BrokerRefused(text or known))

    def fail(self, reason: str) -> None:
        """The connection ended: nothing more will be answered."""
        self._explain()
        with self._lock:
            receipts = [*self._unopposed, *self._pending.values()]
            self._pending.clear()
            self._unopposed = []
        for receipt in receipts:
            receipt.resolve(BrokerRefused(receipt.objection) if receipt.objection else Disconnected(reason))

    def _stray(self, text: str) -> None:
        logger.error("%s reports an error: %s", self.broker, text)
        self._closing = True
        self.due = time.monotonic() + _CLOSING_TIMEOUT
