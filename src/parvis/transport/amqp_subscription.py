"""A subscription on RabbitMQ: a channel of its own, and what was delivered on it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from pika import spec

from parvis.transport.amqp_connection import DENIED, NOT_FOUND, Channel, ChannelClosed, Connection
from parvis.transport.amqp_frames import Delivery
from parvis.transport.amqp_messages import Listening, is_stale, received
from parvis.transport.amqp_publisher import Publisher
from parvis.transport.base import BrokerRefused, Callback, Disconnected, Message, TransportError

logger = logging.getLogger(__name__)

_IN_USE: Final = "in exclusive use"
_ASK_AGAIN: Final = 2.0


class Subscription:
    """What somebody listens to, on whichever connection there is.

    Args:
        number: As of `Message.subscription`.
        listening: What is asked of the broker.
        callback: Called with each message.
        namespace: Of the transport.
        individual: Messages are acknowledged one by one, in whichever order.
        changed: Guards and announces changes.

    Attributes:
        accepted: Whether the broker has accepted it once.
        refused: Why it has not.
        outstanding: Tokens of what was delivered and not claimed, in order of delivery.
    """

    def __init__(
        self,
        number: int,
        listening: Listening,
        callback: Callback,
        namespace: str,
        *,
        individual: bool,
        changed: threading.Condition,
    ) -> None:
        self.number = number
        self.listening = listening
        self.individual = individual
        self.accepted = False
        self.refused: BrokerRefused | None = None
        self.outstanding: dict[str, None] = {}
        self._callback = callback
        self._namespace = namespace
        self._changed = changed
        self._connection: Connection | None = None
        self._publisher: Publisher | None = None
        self._channel: Channel | None = None
        self._unsettled: dict[int, None] = {}  # delivered, and neither acknowledged nor given back yet
        self._connections = 0
        self._generation = 0  # counts channels: an acknowledgement is only good on that of the delivery
        self._ended = False

    @property
    def name(self) -> str:
        """What it is to, for people."""
        return self.listening.name

    def request(self, connection: Connection, publisher: Publisher, number: int) -> None:
        """Ask for it on a new connection, the `number`th."""
        with self._changed:
            self._connection, self._publisher, self._connections = connection, publisher, number
        self._ask(may_make=True)

    def forget(self) -> None:
        """The connection is lost, and with it what was delivered."""
        with self._changed:
            self._channel = None
            self.outstanding.clear()
            self._unsettled.clear()

    def end(self, then: Callable[[], None]) -> None:
        """Take no more; what is unacknowledged goes back. `then` is called when the broker knows."""
        with self._changed:
            self._ended = True
            channel, self._channel = self._channel, None
            self.outstanding.clear()
        if channel is None or channel.closed:
            then()
            return
        channel.on_delivery = channel.on_closed = channel.on_other = None
        methods: list[Any] = []
        if self.listening.kind == "temporary":
            methods.append(spec.Queue.Delete(queue=self.listening.name))
        try:
            channel.ask([*methods, spec.Channel.Close(200, "done", 0, 0)], lambda _error: then())
        except Disconnected:  # and with the connection, the subscription
            then()

    def check(self, messages: Sequence[Message]) -> None:
        """Raise unless messages can be claimed.

        Raises:
            Disconnected: They were delivered on a channel that is gone.
            ValueError: They are not the oldest, or were claimed before.
        """
        if any(message.token.partition(".")[0] != str(self._generation) for message in messages):
            raise Disconnected("a message of a channel that is gone: it comes again")
        where = messages[0].destination
        if self.individual:
            if any(message.token not in self.outstanding for message in messages):
                raise ValueError(f"a message from {where} is acknowledged only once")
            return
        oldest = itertools.islice(self.outstanding, len(messages))
        if [message.token for message in messages] != list(oldest):
            raise ValueError(f"messages from {where} can be acknowledged only once, in the order of delivery")

    def claim(self, messages: Sequence[Message]) -> list[int]:
        """Take messages that were checked off those outstanding; return what to settle them by."""
        for message in messages:
            self.outstanding.pop(message.token)
        return [int(message.token.partition(".")[2]) for message in messages]

    def settle(self, tags: Sequence[int], how: type[Any], generation: int, **options: Any) -> None:
        """Acknowledge (`spec.Basic.Ack`) or give back (`spec.Basic.Nack`, `requeue=True`) what was claimed.

        In one go if nothing older waits, as the broker keeps a log in which each is an entry.
        """
        with self._changed:
            channel = self._channel
            if channel is None or generation != self._generation:
                return
            first = list(itertools.islice(self._unsettled, len(tags)))
            together = first == list(tags)
            for tag in tags:
                self._unsettled.pop(tag, None)
            if together:
                methods = [how(delivery_tag=tags[-1], multiple=len(tags) > 1, **options)]
            else:
                methods = [how(delivery_tag=tag, multiple=False, **options) for tag in tags]
            with contextlib.suppress(Disconnected):  # they come again
                channel.say(*methods)

    def reject(self, tag: int, generation: int) -> None:
        """Have the broker deal with a message as with one that nobody wants."""
        with self._changed:
            channel = self._channel
            if channel is not None and generation == self._generation:
                self._unsettled.pop(tag, None)
                channel.say(spec.Basic.Reject(delivery_tag=tag, requeue=False))

    @property
    def generation(self) -> int:
        """Number of the channel."""
        return self._generation

    def _ask(self, *, may_make: bool) -> None:
        with self._changed:
            connection = self._connection
            if self._ended or connection is None:
                return
            self._generation += 1
            self.outstanding.clear()
            self._unsettled.clear()
            try:
                channel = self._channel = connection.open_channel()
                channel.on_delivery = self._delivered(self._generation, channel)
                channel.on_other = self._heard
                channel.ask(
                    self.listening.consume,
                    lambda error: self._answered(error, channel, connection, may_make=may_make),
                )
            except BrokerRefused as error:
                self._refuse(error, connection)
            except Disconnected:  # it is asked for again on the next connection
                logger.debug("the connection was lost before %s was asked for", self.listening.name)

    def _answered(
        self, error: TransportError | None, channel: Channel, connection: Connection, *, may_make: bool
    ) -> None:
        if error is None:
            channel.on_closed = self._lost
            with self._changed:
                self.accepted = True
                self._changed.notify_all()
        elif not isinstance(error, ChannelClosed):
            return  # the connection is lost: it is asked for again on the next one
        elif error.code == NOT_FOUND and may_make and self.listening.missing:
            self._make(connection)
        elif error.code == DENIED and _IN_USE in str(error):
            self._wait_for_turn()
        else:
            self._refuse(error, connection)

    def _make(self, connection: Connection) -> None:
        publisher = self._publisher
        if publisher is None:
            return

        def made(error: TransportError | None) -> None:
            if error is None:
                logger.info("made %s", ", ".join(one.what for one in self.listening.missing))
                self._ask(may_make=False)
            elif isinstance(error, BrokerRefused):
                self._refuse(error, connection)

        connection.known.difference_update(one.key for one in self.listening.missing)
        with contextlib.suppress(Disconnected):
            publisher.ensure(self.listening.missing, made)

    def _wait_for_turn(self) -> None:
        """Somebody else is the one consumer of a queue: ask again until we are."""
        with self._changed:
            if not self.accepted:
                logger.info("%s has its one consumer already: waiting for our turn", self.listening.name)
            self.accepted = True
            self._changed.notify_all()
        timer = threading.Timer(_ASK_AGAIN, self._ask, kwargs={"may_make": True})
        timer.daemon = True
        timer.start()

    def _refuse(self, error: BrokerRefused, connection: Connection) -> None:
        text = f"the subscription to {self.listening.name} was refused: {error}"
        with self._changed:
            had_it = self.accepted
            if not had_it:
                self.refused = BrokerRefused(text)
                self._changed.notify_all()
        if had_it:
            connection.close(f"{connection.broker} refuses what it accepted before: {text}")

    def _lost(self, error: TransportError) -> None:
        if isinstance(error, ChannelClosed):
            logger.warning("the broker ended the subscription to %s: %s", self.listening.name, error)
            self._ask(may_make=True)

    def _heard(self, item: Any, _properties: spec.BasicProperties | None) -> None:
        if isinstance(item, spec.Basic.Cancel):
            logger.warning("the broker ended the subscription to %s: the queue is gone", self.listening.name)
            self._ask(may_make=True)

    def _delivered(
        self, generation: int, channel: Channel
    ) -> Callable[[Delivery, spec.BasicProperties, bytes], None]:
        acknowledged = self.listening.acknowledged

        def deliver(delivery: Delivery, properties: spec.BasicProperties, body: bytes) -> None:
            if acknowledged and is_stale(properties):
                channel.say(spec.Basic.Reject(delivery_tag=delivery.tag, requeue=False))
                return
            token = f"{generation}.{delivery.tag}"
            message = received(
                delivery,
                properties,
                body,
                namespace=self._namespace,
                is_topic=self.listening.kind == "topic",
                subscription=self.number,
                connection=self._connections,
                token=token,
            )
            if acknowledged:
                with self._changed:
                    if generation != self._generation or self._ended:
                        return
                    self.outstanding[token] = None
                    self._unsettled[delivery.tag] = None
            try:
                self._callback(message)
            except Exception:
                logger.exception("the callback for messages from %s failed", message.destination)
            if self.listening.kind == "temporary":  # by us, as what is under way must not be lost with us
                channel.say(spec.Basic.Ack(delivery_tag=delivery.tag))

        return deliver
