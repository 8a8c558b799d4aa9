"""Messages through ActiveMQ, the embedded broker and other brokers that speak STOMP 1.2."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from parvis.transport.base import (
    BrokerRefused,
    Callback,
    Disconnected,
    Message,
    Pending,
    Send,
    TransportError,
    check_destination,
)
from parvis.transport.kept import KeptTransport
from parvis.transport.stomp_connection import Connection
from parvis.transport.stomp_frames import Frame, encode
from parvis.transport.stomp_login import Login
from parvis.transport.stomp_messages import (
    address,
    dead_letter,
    received,
    send_frame,
    subscribing,
    transaction,
)
from parvis.transport.stomp_receipts import Receipt
from parvis.transport.stomp_subscription import INDIVIDUAL, Subscription

logger = logging.getLogger(__name__)

_UNSUBSCRIBE_TIMEOUT: Final = 5.0
_SLOW_RECEIPT: Final = 5.0
_POST_BACKLOG: Final = 1_048_576
_POSTED: Final = "posted"  # a receipt nobody waits for: with it, an error says what it is about


@dataclass(slots=True)
class _Written(Pending):
    """A transaction that was written to a connection."""

    connection: Connection
    receipt: Receipt
    acknowledges: bool

    def wait(self, timeout: float = 60) -> None:
        """As `Pending.wait`.

        After anything but a confirmation, a connection on which messages were acknowledged must end: only
        then does the broker hand them out again.
        """
        error = self._answer(timeout)
        if error is None:
            self.connection.useful = True
            return
        if self.acknowledges:
            self.connection.close(str(error))
        raise error

    def _answer(self, timeout: float) -> TransportError | None:
        broker = self.connection.broker
        answered = self.connection.wait_for(self.receipt, min(timeout, _SLOW_RECEIPT))
        if not answered and timeout > _SLOW_RECEIPT:
            logger.warning(
                "%s has not confirmed a message for %g s: it may be holding senders back (flow control)",
                broker,
                _SLOW_RECEIPT,
            )
            answered = self.connection.wait_for(self.receipt, timeout - _SLOW_RECEIPT)
        if answered:
            return self.receipt.error
        return Disconnected(f"{broker} did not confirm in time; it may have happened")


class StompTransport(KeptTransport[Connection, Subscription]):
    """A connection to a STOMP 1.2 broker, made again when it is lost.

    Messages are acknowledged in mode `client` (cumulatively): every ActiveMQ since 5.15.1 keeps what is
    acknowledged in a transaction in mode `client-individual` until the connection ends, and slows down by it.

    A commit whose connection breaks after it was written may have happened or not: that is `Disconnected`,
    and whoever sends again may send twice. What is confirmed has happened.

    Args:
        hosts: Host and port of each broker, tried in this order.
        username, password: The log-in; an empty name for none.
        namespace: Prefix of all queues and topics, a dot follows it; empty for none.
        heartbeat: Seconds within which each side is to be heard; a broker that is silent for more than twice
            as long is given up. 0 for no heart-beats.
        tls: How to check the certificate of the broker (`ssl.create_default_context()` for the authorities
            this machine trusts), or None for a connection that is not encrypted.
        reconnect: Whether to make a lost connection again.

    Raises:
        ValueError: No hosts, or a log-in that STOMP cannot carry.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        username: str,
        password: str,
        namespace: str,
        *,
        heartbeat: float = 10,
        tls: ssl.SSLContext | None = None,
        reconnect: bool = True,
    ) -> None:
        if not hosts:
            raise ValueError("a STOMP transport needs the host and port of at least one broker")
        if any(sign in username + password for sign in "\r\n\0"):
            raise ValueError("the user name and password of a STOMP broker cannot hold line ends or NULs")
        super().__init__(
            tuple(hosts),
            Login(username, password, heartbeat, tls).connect,
            namespace,
            encrypted=tls is not None,
            reconnect=reconnect,
        )
        self._without_delays = False  # whether it has been said that the broker knows none

    def subscribe(
        self,
        queue: str,
        callback: Callback,
        *,
        prefetch: int = 1,
        exclusive: bool = False,
        selector: str | None = None,
        absolute: bool = False,
        individual: bool = False,
        priority: int = 0,
    ) -> int:
        """As `Transport.subscribe`; `*` and `>` in `queue` are wildcards where the broker has them.

        Of several consumers of a queue the one with the highest `priority` (to 127) gets messages first.

        Raises:
            ValueError: `queue` cannot name a queue, or `prefetch` is less than 1.
            Disconnected: No answer within 30 s, in which a lost connection may have been made again.
        """
        if prefetch < 1:
            raise ValueError(f"a subscription needs room for at least 1 message, not {prefetch}")
        _check_wildcards(queue)
        headers = {"destination": address(self.namespace, queue, "queue", absolute=absolute)}
        headers["ack"] = INDIVIDUAL if individual else "client"
        # The names that ActiveMQ and RabbitMQ have for it
        headers["activemq.prefetchSize"] = headers["prefetch-count"] = str(prefetch)
        if exclusive:
            headers["activemq.exclusive"] = "true"
        if priority:
            headers["activemq.priority"] = str(priority)
        if selector is not None:
            headers["selector"] = selector
        return self._listen(headers, callback)

    def subscribe_broadcast(self, topic: str, callback: Callback, *, absolute: bool = False) -> int:
        """As `Transport.subscribe_broadcast`; wildcards as in `subscribe`."""
        _check_wildcards(topic)
        destination = address(self.namespace, topic, "topic", absolute=absolute)
        return self._listen({"destination": destination, "ack": "auto"}, callback)

    def subscribe_temporary(self, hint: str, callback: Callback) -> tuple[int, str]:
        name = check_destination(f"transient.{hint}.{uuid.uuid4()}")
        headers = {"destination": address(self.namespace, name, "queue"), "ack": "auto"}
        return self._listen(headers, callback), name

    def begin(self, acknowledge: Sequence[Message], sends: Sequence[Send], timeout: float = 60) -> Pending:
        """As `Transport.begin`. What acknowledges nothing waits for a lost connection to come back.

        Raises:
            ValueError: Messages are not acknowledged in the order of delivery, or a second time; or a message
                has a header that is the transport's.
        """
        self._keeper.forbid_callback()
        deadline = 0.0 if acknowledge else time.monotonic() + timeout
        frames = [send_frame(send, self.namespace) for send in sends]
        last = {message.subscription: message.token for message in acknowledge}
        while True:
            connection = self._keeper.connection or self._keeper.wait(deadline - time.monotonic())
            number = connection.next_number()
            data, receipt = transaction(number, last.values(), frames)
            try:
                with self._keeper.lock:  # acknowledgements must be written in the order of delivery
                    self._claim(acknowledge)
                    connection.ask(data, receipt)
                return _Written(connection, receipt, bool(acknowledge))
            except Disconnected:
                if acknowledge:
                    raise

    def refuse(self, message: Message, timeout: float = 60) -> None:
        self._keeper.forbid_callback()
        connection = self._keeper.wait(0)
        receipt = Receipt(connection.next_number())
        frame = Frame("NACK", {"id": message.token, "receipt": receipt.number})
        with self._keeper.changed:
            self._claim([message])
            connection.ask(encode(frame), receipt)
        _Written(connection, receipt, acknowledges=True).wait(timeout)

    def post(self, send: Send) -> None:
        frame = send_frame(send, self.namespace)
        frame.headers["receipt"] = _POSTED
        connection = self._keeper.connection
        if connection is not None and connection.backlog < _POST_BACKLOG:
            with contextlib.suppress(Disconnected):
                connection.write(encode(frame))

    def dead_letter(self, message: Message, headers: Mapping[str, str]) -> Send:
        return dead_letter(message, self.namespace, headers)

    def _deliver(self, frame: Frame) -> None:
        name = frame.headers.get("subscription", "")
        subscription = self._subscriptions.get(int(name) if name.isdecimal() else 0)
        if subscription is None:
            return  # it was under way when we unsubscribed
        if "AMQ_SCHEDULED_DELAY" in frame.headers:
            self._check_scheduler(frame)
        message = received(frame, self.namespace, subscription.number, self._keeper.number)
        if subscription.headers["ack"] != "auto":
            subscription.outstanding.append(message.token)
        try:
            subscription.callback(message)
        except Exception:
            logger.exception("the callback for messages from %s failed", message.destination)

    def _check_scheduler(self, frame: Frame) -> None:
        """Say it once if the broker holds no message back: what waits goes round without a pause."""
        if "scheduledJobId" not in frame.headers and not self._without_delays:
            self._without_delays = True
            logger.error(
                "the broker ignores delays: retries and checkpoints come back at once; "
                'switch its scheduler on (ActiveMQ: <broker schedulerSupport="true">)'
            )

    def _restore(self, connection: Connection) -> None:
        connection.on_message = self._deliver
        super()._restore(connection)

    def _listen(self, headers: dict[str, str], callback: Callback) -> int:
        number = next(self._subscription_numbers)
        return self._subscribe(Subscription(number, {"id": str(number), **headers}, callback))

    def _request(self, subscription: Subscription, connection: Connection) -> None:
        """Ask for the subscription on a connection that has not heard of it."""
        then = partial(self._answered, subscription, connection)
        data, receipt = subscribing(connection.next_number(), subscription.headers, then)
        with contextlib.suppress(Disconnected):  # it is asked for again on the next connection
            connection.ask(data, receipt)

    def _answered(
        self, subscription: Subscription, connection: Connection, error: TransportError | None
    ) -> None:
        with self._keeper.changed:
            had_it = subscription.accepted
            if error is None:
                subscription.accepted = True
            elif isinstance(error, BrokerRefused) and not had_it:
                subscription.refused = BrokerRefused(
                    f"the subscription to {subscription.name} was refused: {error}"
                )
            self._keeper.changed.notify_all()
        if had_it and isinstance(error, BrokerRefused):
            connection.close(f"{connection.broker} refuses a subscription that it accepted before: {error}")

    def _end(self, subscription: Subscription) -> None:
        connection = self._keeper.connection
        if connection is None:
            return
        receipt = Receipt(connection.next_number())
        frame = Frame("UNSUBSCRIBE", {"id": subscription.headers["id"], "receipt": receipt.number})
        with contextlib.suppress(Disconnected):  # and with the connection, the subscription
            connection.ask(encode(frame), receipt)
            connection.wait_for(receipt, _UNSUBSCRIBE_TIMEOUT)

    def _claim(self, acknowledge: Sequence[Message]) -> None:
        """Take messages off those outstanding, or raise because they are not the oldest of them."""
        found = self._by_subscription(acknowledge)
        for subscription, messages in found:
            subscription.claim(messages)


def _check_wildcards(name: str) -> None:
    check_destination(name.replace("*", "x").replace(">", "x"))
