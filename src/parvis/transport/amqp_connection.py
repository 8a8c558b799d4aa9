"""One connection to an AMQP 0-9-1 broker, from the log-in to its end: channels and what is said on them."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from pika import spec

from parvis.transport.amqp_frames import HEARTBEAT, Content, Delivery, Item, Splitter, method, publication
from parvis.transport.base import BrokerRefused, Disconnected, TransportError
from parvis.transport.wire import ProtocolError, Wire

logger = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[TransportError | None], None]
OnDelivery: TypeAlias = Callable[[Delivery, spec.BasicProperties, bytes], None]

NOT_FOUND: Final = 404
DENIED: Final = 403
MISMATCH: Final = 406


class ChannelClosed(BrokerRefused):
    """The broker closed a channel because of what was asked on it; `code` is AMQP's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Channel:
    """A channel. Answers and messages come on the thread that reads.

    Attributes:
        number: Its number on this connection.
        on_delivery: Called with each message for a consumer.
        on_other: Called with each method that answers nothing, and the properties of its content, if any.
        on_closed: Called when the broker closed it, after all that waited for answers were told.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self.number = number
        self.on_delivery: OnDelivery | None = None
        self.on_other: Callable[[Any, spec.BasicProperties | None], None] | None = None
        self.on_closed: Callable[[TransportError], None] | None = None
        self.closed = False
        self._connection = connection
        self._asked: deque[tuple[int, Answer]] = deque()
        self._arriving: tuple[Any, spec.BasicProperties | None, list[bytes], int] | None = None

    def ask(self, methods: Sequence[Any], then: Answer) -> None:
        """Say methods that the broker answers, in one piece; `then` is called once, when all are answered.

        Raises:
            Disconnected: The connection or the channel has ended; `then` is not called.
        """
        data = b"".join(method(self.number, one) for one in methods)
        with self._connection.asking:  # questions must be written in the order in which they are noted
            if self.closed:
                raise Disconnected("the channel was closed")
            entry = (len(methods), then)
            self._asked.append(entry)
            try:
                self._connection.write(data)
            except Disconnected:
                with contextlib.suppress(ValueError):
                    self._asked.remove(entry)
                raise

    def say(self, *methods: Any) -> None:
        """Say methods that are not answered.

        Raises:
            Disconnected: The connection has ended.
        """
        self._connection.write(b"".join(method(self.number, one) for one in methods))

    def take(self, item: Item) -> None:
        """Take what the broker said on this channel."""
        if self._arriving is not None:
            self._take_content(item, *self._arriving)
        elif isinstance(item, (Delivery, spec.Basic.Return)):
            self._arriving = item, None, [], 0
        elif isinstance(item, spec.Channel.Close):
            self._connection.write(method(self.number, spec.Channel.CloseOk()))
            self.end(ChannelClosed(item.reply_code or 0, str(item.reply_text)))
        elif isinstance(item, spec.Channel.Flow):
            self.say(spec.Channel.FlowOk(item.active))
        elif isinstance(item, (spec.Basic.Ack, spec.Basic.Nack, spec.Basic.Cancel)):
            if self.on_other is not None:
                self.on_other(item, None)
        elif isinstance(item, (Content, bytes)):
            raise ProtocolError("content that belongs to no message")
        else:
            self._answered(isinstance(item, spec.Channel.CloseOk))

    def end(self, error: TransportError) -> None:
        """Tell everybody who waits that this channel has ended."""
        with self._connection.asking:
            self.closed = True
            asked, self._asked = self._asked, deque()
        self._connection.forget(self)
        for _, then in asked:
            then(error)
        if self.on_closed is not None:
            self.on_closed(error)

    def _answered(self, was_last: bool) -> None:
        with self._connection.asking:
            if not self._asked:
                raise ProtocolError("an answer to no question")
            count, then = self._asked.popleft()
            if count > 1:
                self._asked.appendleft((count - 1, then))
        if was_last:
            self.closed = True
            self._connection.forget(self)
        if count == 1:
            then(None)

    def _take_content(
        self,
        item: Item,
        about: Any,
        properties: spec.BasicProperties | None,
        parts: list[bytes],
        missing: int,
    ) -> None:
        if properties is None:
            if not isinstance(item, Content):
                raise ProtocolError("a message without properties")
            properties, missing = item.properties, item.size
        elif isinstance(item, bytes) and len(item) <= missing:
            parts.append(item)
            missing -= len(item)
        else:
            raise ProtocolError("a message that is not of the size it says")
        if missing:
            self._arriving = about, properties, parts, missing
            return
        self._arriving = None
        if not isinstance(about, Delivery):
            if self.on_other is not None:
                self.on_other(about, properties)
        elif self.on_delivery is not None:
            self.on_delivery(about, properties, parts[0] if len(parts) == 1 else b"".join(parts))


class Connection(Wire):
    """A socket on which the broker has let us in. Made by `amqp_login.Login.connect`.

    Args:
        sock: The socket, non-blocking.
        broker: As of `Wire`.
        server: As the attribute.
        frame_max: Bytes of the largest frame that was agreed.
        channel_max: Highest number of a channel.
        send_every, silent_after: As of `Wire`.

    Attributes:
        server: What the broker calls itself.
        blocked: Why the broker takes no messages now (an alarm), empty if it does.
        known: Names of what was declared on this connection; for who declares to keep.
        asking: Held while questions are written.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        broker: str,
        server: str,
        frame_max: int,
        channel_max: int,
        send_every: float,
        silent_after: float,
    ) -> None:
        super().__init__(
            sock, broker=broker, heartbeat=HEARTBEAT, send_every=send_every, silent_after=silent_after
        )
        self.server = server
        self.blocked = ""
        self.known: set[str] = set()
        self.asking = threading.RLock()
        self._frame_max = frame_max
        self._channel_max = channel_max
        self._splitter = Splitter(max(frame_max, 4096))
        self._channels: dict[int, Channel] = {}
        self._last = 0
        self._left = threading.Event()

    def open_channel(self) -> Channel:
        """Return a new channel; what is asked on it follows its opening.

        Raises:
            Disconnected: The connection has ended.
            BrokerRefused: There are as many channels as the broker allows.
        """
        with self.asking:
            if len(self._channels) >= self._channel_max:
                raise BrokerRefused(f"{self.broker} allows no more than {self._channel_max} channels")
            number = self._last % self._channel_max + 1
            while number in self._channels:
                number = number % self._channel_max + 1
            self._last = number  # the numbers in turn: what is late for one must not meet its successor
            channel = self._channels[number] = Channel(self, number)
            try:
                channel.ask([spec.Channel.Open()], _ignore)
            except Disconnected:
                self._channels.pop(number, None)
                raise
        return channel

    def forget(self, channel: Channel) -> None:
        """Give the number of a closed channel free."""
        with self.asking:
            self._channels.pop(channel.number, None)

    def publication(
        self,
        channel: Channel,
        exchange: str,
        routing_key: str,
        properties: spec.BasicProperties,
        body: bytes,
        *,
        mandatory: bool,
    ) -> bytes:
        """The frames that publish a message. Raises as `amqp_frames.publication`."""
        return publication(
            channel.number,
            exchange,
            routing_key,
            properties,
            body,
            mandatory=mandatory,
            frame_max=self._frame_max,
        )

    def leave(self, timeout: float) -> None:
        try:
            self.write(method(0, spec.Connection.Close(200, "bye", 0, 0)))
            self.wait_for(self._left, timeout)
        except Disconnected:
            logger.debug("the connection was lost before we could leave")

    def _received(self, data: bytes) -> None:
        for number, item in self._splitter.feed(data):
            if number == 0:
                self._take(item)
                continue
            channel = self._channels.get(number)
            if channel is not None:  # else it was under way when the channel ended
                channel.take(item)

    def _take(self, item: Item) -> None:
        if isinstance(item, spec.Connection.Blocked):
            self.blocked = str(item.reason)
            logger.warning("%s takes no messages now (%s): senders wait", self.broker, self.blocked)
        elif isinstance(item, spec.Connection.Unblocked):
            self.blocked = ""
            logger.warning("%s takes messages again", self.broker)
        elif isinstance(item, spec.Connection.Close):
            with contextlib.suppress(Disconnected):
                self.write(method(0, spec.Connection.CloseOk()))
            raise Disconnected(f"{self.broker} ended the connection: {item.reply_code} {item.reply_text}")
        elif isinstance(item, spec.Connection.CloseOk):
            self._left.set()
        else:
            raise ProtocolError(f"{type(item).__name__} about the connection")

    def _ended(self, reason: str) -> None:
        self._left.set()
        error = Disconnected(reason)
        with self.asking:
            channels = list(self._channels.values())
        for channel in channels:
            channel.end(error)


def _ignore(_error: TransportError | None) -> None:
    """For what needs no answer: an error is told to who asked next, and to `on_closed`."""
