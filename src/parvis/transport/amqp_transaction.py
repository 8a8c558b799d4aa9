"""What is sent together, and what is acknowledged once the broker has all of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from parvis.transport.amqp_connection import Connection
from parvis.transport.amqp_publisher import Encoded, Publisher
from parvis.transport.base import BrokerRefused, Disconnected, Pending, TransportError
from parvis.transport.latch import Latch

logger = logging.getLogger(__name__)

_SLOW: Final = 5.0


class Transaction(Pending):
    """Messages on their way, and whom to tell when the broker has confirmed every one of them.

    Args:
        connection: Where they go.
        publisher: Of that connection.
        messages: What to send.
        acknowledges: Whether messages are acknowledged by it.
        then: Called once with the outcome, an error or None, before anybody else learns it.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        messages: Sequence[Encoded],
        *,
        acknowledges: bool,
        then: Callable[[TransportError | None], None],
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._messages = messages
        self._acknowledges = acknowledges
        self._then = then
        self._error: TransportError | None = None
        self._mended = False
        self._over = Latch()

    def start(self) -> None:
        """Send, as soon as all that must exist does.

        Raises:
            Disconnected: The connection has ended; nothing was sent.
        """
        if not self._messages:
            self._finish(None)
            return
        known = self._connection.known
        needs = {
            need.key: need
            for message in self._messages
            for need in message.publication.needs
            if need.key not in known
        }
        if needs:
            self._publisher.ensure(needs.values(), self._prepared)
        else:
            self._publisher.publish(self._messages, self._published)

    def wait(self, timeout: float = 60) -> None:
        """As `Pending.wait`. While the broker says that it takes no messages, what acknowledges waits on:
        whoever gave up would only have to do the same again.
        """
        if not self._answered(timeout):
            error = Disconnected(f"{self._connection.broker} did not confirm in time; it may have happened")
            if self._acknowledges:
                self._connection.close(str(error))
            raise error
        if self._error is not None:
            raise self._error
        self._connection.useful = True

    def _answered(self, timeout: float) -> bool:
        if self._is_over(min(timeout, _SLOW)):
            return True
        why = self._connection.blocked
        if not why and timeout > _SLOW:
            logger.warning("%s has not confirmed a message for %g s", self._connection.broker, _SLOW)
        if self._is_over(timeout - _SLOW):
            return True
        while self._acknowledges and self._connection.blocked:
            if self._is_over(_SLOW):
                return True
        return self._is_over(0)

    def _is_over(self, timeout: float) -> bool:
        return self._connection.wait_for(self._over, timeout)

    def _prepared(self, error: TransportError | None) -> None:
        if error is None:
            try:
                self._publisher.publish(self._messages, self._published)
            except Disconnected as lost:
                error = lost
        if error is not None:
            self._finish(error)

    def _published(self, error: TransportError | None, problems: dict[int, str]) -> None:
        if error is not None or not problems:
            self._finish(error)
            return
        failed = [self._messages[index].publication for index in problems]
        for publication in failed:
            self._connection.known.difference_update(need.key for need in publication.needs)
        fallbacks = [publication.fallback for publication in failed if publication.fallback is not None]
        if len(fallbacks) == len(failed) and not self._mended:
            self._mended = True
            self._messages = [self._messages[index] for index in problems]
            try:
                self._publisher.ensure(fallbacks, self._prepared)
            except Disconnected as lost:
                self._finish(lost)
            return
        index, problem = next(iter(problems.items()))
        self._finish(BrokerRefused(self._describe(index, problem)))

    def _describe(self, index: int, problem: str) -> str:
        name = self._messages[index].publication.name
        if problem == "no queue takes it":
            return f"there is no queue {name}; `parvis rabbitmq configure` makes it"
        return f"a message to {name} was refused: {problem}"

    def _finish(self, error: TransportError | None) -> None:
        self._error = error
        self._then(error)
        self._over.set()
