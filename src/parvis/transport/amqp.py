"""Messages through RabbitMQ and other brokers that speak AMQP 0-9-1 with RabbitMQ's extensions."""

from __future__ import annotations

import contextlib
import random
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pika import spec

from parvis.transport.amqp_connection import Connection
from parvis.transport.amqp_login import Login
from parvis.transport.amqp_messages import (
    Listening,
    dead_letter,
    full_name,
    listen_to_queue,
    listen_to_temporary,
    listen_to_topic,
    publication,
)
from parvis.transport.amqp_publisher import Publisher
from parvis.transport.amqp_subscription import Subscription
from parvis.transport.amqp_transaction import Transaction
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

_UNSUBSCRIBE_TIMEOUT: Final = 5.0
_POST_BACKLOG: Final = 1_048_576

_Claim = tuple[Subscription, list[int], int]


class AmqpTransport(KeptTransport[Connection, Subscription]):
    """A connection to RabbitMQ, made again when it is lost.

    RabbitMQ knows no transaction over several queues. So what is sent is confirmed by the broker first, every
    message of it, and only then is what caused it acknowledged: nothing is lost, and what is sent may be sent
    twice if we or the connection die in between. Both have the same header `parvis-id` then, if the sender
    gave one.

    Args:
        hosts: Host and port of each node of the broker, tried in an order that chance decides once.
        username, password: The log-in.
        vhost: The virtual host.
        namespace: Prefix of all queues and topics, a dot follows it; empty for none, as services of
            `workflows` have it.
        heartbeat: Seconds within which each side is to be heard; a broker that is silent for more than twice
            as long is given up. 0 for no heart-beats.
        tls: How to check the certificate of the broker, or None for a connection that is not encrypted.
        reconnect: Whether to make a lost connection again.

    Raises:
        ValueError: No hosts, or a log-in that AMQP cannot carry.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        username: str,
        password: str,
        vhost: str = "/",
        namespace: str = "",
        *,
        heartbeat: float = 10,
        tls: ssl.SSLContext | None = None,
        reconnect: bool = True,
    ) -> None:
        if not hosts:
            raise ValueError("an AMQP transport needs the host and port of at least one broker")
        if "\0" in username + password or len(vhost.encode()) > 255:
            raise ValueError("the user name and password cannot hold NULs, nor a virtual host over 255 bytes")
        super().__init__(
            random.sample(list(hosts), len(hosts)),  # spreads clients over the nodes
            Login(username, password, vhost, heartbeat, tls).connect,
            namespace,
            encrypted=tls is not None,
            reconnect=reconnect,
        )
        self._publisher: Publisher | None = None

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
    ) -> int:
        """As `Transport.subscribe`. A queue that is missing is made where the broker allows it: a quorum
        queue with a delivery limit, and `dlq.<name>` for its dead letters.

        `exclusive` needs a queue with a single active consumer, as one that is made here, or a classic queue.

        Raises:
            ValueError: `queue` cannot name a queue, `prefetch` is not from 1 to 65535, or there is a
                `selector`, which RabbitMQ does not have.
            Disconnected: No answer within 30 s, in which a lost connection may have been made again.
        """
        if not 1 <= prefetch <= 65_535:
            raise ValueError(f"a subscription needs room for 1 to 65535 messages, not {prefetch}")
        if selector is not None:
            raise ValueError("RabbitMQ has no selectors: let the sender choose among queues")
        name = full_name(self.namespace, check_destination(queue), absolute=absolute)
        listening = listen_to_queue(name, prefetch, exclusive=exclusive)
        return self._listen(listening, callback, individual=individual)

    def subscribe_broadcast(self, topic: str, callback: Callback, *, absolute: bool = False) -> int:
        name = full_name(self.namespace, check_destination(topic), absolute=absolute)
        return self._listen(listen_to_topic(name), callback)

    def subscribe_temporary(self, hint: str, callback: Callback) -> tuple[int, str]:
        name = check_destination(f"transient.{hint}.{uuid.uuid4()}")
        return self._listen(listen_to_temporary(full_name(self.namespace, name)), callback), name

    def begin(self, acknowledge: Sequence[Message], sends: Sequence[Send], timeout: float = 60) -> Pending:
        """As `Transport.begin`, but no transaction: see the class. What acknowledges nothing waits for a lost
        connection to come back.

        Raises:
            ValueError: Messages are not acknowledged in the order of delivery, or a second time; or a message
                has headers that AMQP cannot carry, or that are the transport's.
        """
        self._keeper.forbid_callback()
        deadline = time.monotonic() + timeout
        publications = [publication(send, self.namespace) for send in sends]
        while True:
            connection = self._keeper.wait(0 if acknowledge else deadline - time.monotonic())
            with self._keeper.changed:
                if connection is not self._keeper.connection or self._publisher is None:
                    if acknowledge:
                        raise Disconnected("the connection was lost")
                    continue
                publisher = self._publisher
                messages = [publisher.encode(one) for one in publications]
                claims = self._claim(acknowledge)
            transaction = Transaction(
                connection, publisher, messages, acknowledges=bool(acknowledge), then=_settling(claims)
            )
            try:
                transaction.start()
            except Disconnected:
                if acknowledge:
                    raise
            else:
                return transaction

    def refuse(self, message: Message, timeout: float = 60) -> None:
        """As `Transport.refuse`: to the dead letters, if the queue has a place for them, else it is gone."""
        del timeout  # the broker does not answer
        self._keeper.forbid_callback()
        self._keeper.wait(0)
        with self._keeper.changed:
            for subscription, tags, generation in self._claim([message]):
                subscription.reject(tags[0], generation)

    def post(self, send: Send) -> None:
        connection, publisher = self._keeper.connection, self._publisher
        one = publication(send, self.namespace)
        if connection is None or publisher is None or connection.blocked:
            return
        if connection.backlog < _POST_BACKLOG:
            message = publisher.encode(one)
            with contextlib.suppress(Disconnected):
                Transaction(
                    connection, publisher, [message], acknowledges=False, then=lambda _error: None
                ).start()

    def dead_letter(self, message: Message, headers: Mapping[str, str]) -> Send:
        return dead_letter(message, self.namespace, headers)

    def _restore(self, connection: Connection) -> None:
        try:
            self._publisher = Publisher(connection)
        except Disconnected:
            return
        super()._restore(connection)

    def _forget_deliveries(self) -> None:
        self._publisher = None
        super()._forget_deliveries()

    def _listen(self, listening: Listening, callback: Callback, *, individual: bool = False) -> int:
        number = next(self._subscription_numbers)
        changed = self._keeper.changed
        return self._subscribe(
            Subscription(number, listening, callback, self.namespace, individual=individual, changed=changed)
        )

    def _request(self, subscription: Subscription, connection: Connection) -> None:
        if self._publisher is not None:
            subscription.request(connection, self._publisher, self._keeper.number)

    def _end(self, subscription: Subscription) -> None:
        ended = threading.Event()
        subscription.end(ended.set)
        ended.wait(_UNSUBSCRIBE_TIMEOUT)

    def _claim(self, acknowledge: Sequence[Message]) -> list[_Claim]:
        """Take messages off those outstanding, or raise because they are not the oldest of them."""
        found = self._by_subscription(acknowledge)
        return [(one, one.claim(messages), one.generation) for one, messages in found]


def _settling(claims: Sequence[_Claim]) -> Callable[[TransportError | None], None]:
    """What is done once the outcome of what was sent is known."""

    def settle(error: TransportError | None) -> None:
        for subscription, tags, generation in claims:
            if error is None:
                subscription.settle(tags, spec.Basic.Ack, generation)
            elif isinstance(error, BrokerRefused):
                subscription.settle(tags, spec.Basic.Nack, generation, requeue=True)

    return settle
