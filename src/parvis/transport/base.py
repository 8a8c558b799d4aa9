"""What a broker can do for us, and the words for it."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

Kind = Literal["queue", "topic"]

#: Header of a message that is dropped, and no dead letter, when nobody takes it in its time. A broker that
#: must know its queues beforehand makes one for it.
DISPOSABLE: Final = "parvis-disposable"

#: Seconds that a message may be held back at most: ten days.
LONGEST_DELAY = 864_000.0

# A queue name becomes part of a header line and of a path on the broker: letters, digits and the few signs
# that queue names in the field use.
_DESTINATION = re.compile(r"[A-Za-z0-9_.\-]{1,255}")


class TransportError(Exception):
    """Something between us and the broker went wrong."""


class Disconnected(TransportError):
    """The connection is not there, or went away before the broker confirmed."""


class BrokerRefused(TransportError):
    """The broker answered with an error: a refused log-in, subscription, message or transaction."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was delivered.

    Attributes:
        destination: Name of the queue or topic, without prefix and namespace.
        body: The body, as sent.
        headers: All headers, as text.
        message_id: The broker's identifier, unique on this broker.
        subscription: Number of the subscription that it came by.
        redelivered: The broker handed it out before, and the consumer went away without acknowledging.
        connection: Counts connections; an acknowledgement is only good on the connection of the delivery.
        token: What the broker wants to see in an acknowledgement.
    """

    destination: str
    body: bytes
    headers: Mapping[str, str]
    message_id: str
    subscription: int
    redelivered: bool = False
    connection: int = 0
    token: str = ""


@dataclass(frozen=True, slots=True)
class Send:
    """A message that is to leave.

    Attributes:
        destination: Name of the queue or topic, without namespace unless `absolute`.
        body: The body.
        headers: Headers of our own; the transport adds those it needs.
        kind: `queue` (one consumer gets it) or `topic` (all present subscribers get it).
        delay: Seconds that the broker holds it back, at most `LONGEST_DELAY`.
        expiration: Seconds after which it is worthless, or None.
        priority: 0 (least) to 9, or None for the broker's default.
        persistent: Whether it survives a restart of the broker.
        absolute: `destination` is the whole name on the broker, outside any namespace.
    """

    destination: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    kind: Kind = "queue"
    delay: float = 0
    expiration: float | None = None
    priority: int | None = None
    persistent: bool = True
    absolute: bool = False

    def with_headers(self, headers: Mapping[str, str]) -> Send:
        """Return the same with `headers`, in place of those that have their names."""
        # Quicker than `dataclasses.replace`, as it is called for every message.
        return Send(
            self.destination,
            self.body,
            {**self.headers, **headers},
            self.kind,
            self.delay,
            self.expiration,
            self.priority,
            self.persistent,
            self.absolute,
        )

    def __post_init__(self) -> None:
        check_destination(self.destination)
        if not 0 <= self.delay <= LONGEST_DELAY:
            raise ValueError(f"a delay must be from 0 to {LONGEST_DELAY:g} s, not {self.delay}")


Callback = Callable[[Message], None]


@lru_cache(maxsize=1024)
def check_destination(name: str) -> str:
    """Return `name` if it can name a queue or topic.

    Raises:
        ValueError: It cannot.
    """
    if not _DESTINATION.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} cannot name a queue: use letters, digits, '.', '_' and '-', at most 255 of them"
        )
    return name


class NoConnection(Disconnected):
    """No connection could be made at all: nobody answers."""

    exit_code = 2


class NotAdmitted(BrokerRefused):
    """No connection could be made at all, and trying again will not help: the settings must be mended."""

    exit_code = 2


# What brokers and clients add for one delivery; none of it belongs to the message itself.
_ABSURD_DIGITS = 16
_TRANSPORT_PREFIXES = ("amq_scheduled_", "jmsx")
_TRANSPORT_HEADERS = frozenset(
    {
        "ack",
        "content-length",
        "content-type",
        "destination",
        "dlqdeliveryfailurecause",
        "expires",
        "id",
        "message-id",
        "original-destination",
        "originalexpiration",
        "persistent",
        "priority",
        "receipt",
        "redelivered",
        "redeliverydelay",
        "scheduledjobid",
        "subscription",
        "timestamp",
        "transaction",
    }
)


def own_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a message without those of its last delivery: to send it once more."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _TRANSPORT_HEADERS and not name.lower().startswith(_TRANSPORT_PREFIXES)
    }


def whole_number(text: str | None) -> int | None:
    """Read a header that is a whole number, such as a time in milliseconds; None if it is none, or absurd."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < _ABSURD_DIGITS else None


class Pending(ABC):
    """A transaction that the broker has not confirmed yet."""

    @abstractmethod
    def wait(self, timeout: float = 60) -> None:
        """Return when the broker has confirmed it.

        Raises:
            Disconnected: No confirmation came within `timeout` seconds, or the connection was lost: what was
                acknowledged comes again.
            BrokerRefused: The broker refused the transaction: none of it happened.
        """


class Transport(ABC):
    """A connection to a broker.

    All methods may be called from any thread. Callbacks run on the transport's own thread and must return
    at once (put the message in a queue); they must not call the transport.

    A lost connection is made again with growing delays, and subscriptions are made again on it. What was
    delivered before and not acknowledged comes again, marked `redelivered`.
    """

    #: Prefix of all names, such as `zocalo`; empty for none.
    namespace: str

    @abstractmethod
    def connect(self, timeout: float = 30) -> None:
        """Connect and log in.

        Raises:
            NoConnection: Nobody answers within `timeout` seconds.
            NotAdmitted: There is no such host, or the broker does not let us in.
        """

    @abstractmethod
    def disconnect(self) -> None:
        """Leave. Messages that were delivered and not acknowledged go back to the broker."""

    @property
    @abstractmethod
    def is_connected(self) -> bool:
        """Whether there is a connection now."""

    @property
    @abstractmethod
    def connection(self) -> int:
        """Number of the present connection: a message from an earlier one cannot be acknowledged any more."""

    @abstractmethod
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
        """Take messages from a queue, at most `prefetch` unacknowledged at a time; return the subscription.

        Acknowledging a message acknowledges all those delivered before it on the same subscription. If
        `individual`, it acknowledges that one alone, in whichever order; each is committed on its own then.
        Of those that are committed with sends, ActiveMQ keeps a note until the connection ends: not for
        what runs long.

        Raises:
            BrokerRefused: The broker refuses the subscription.
        """

    @abstractmethod
    def subscribe_broadcast(self, topic: str, callback: Callback, *, absolute: bool = False) -> int:
        """Hear what is broadcast on a topic; nothing to acknowledge. Return the subscription."""

    @abstractmethod
    def subscribe_temporary(self, hint: str, callback: Callback) -> tuple[int, str]:
        """Take messages, without acknowledging, from a new queue that only we know.

        Return the subscription and the name of the queue (`transient.<hint>.<unique>`).
        """

    @abstractmethod
    def unsubscribe(self, subscription: int) -> None:
        """Take no more. What is unacknowledged goes back to the broker."""

    @abstractmethod
    def begin(self, acknowledge: Sequence[Message], sends: Sequence[Send], timeout: float = 60) -> Pending:
        """Acknowledge and send in one transaction, without waiting for the broker's confirmation.

        Wait for one before you begin the next that acknowledges messages of the same subscription: as
        acknowledgements are cumulative, the second would confirm what the first, if refused, has not.

        Args:
            acknowledge: Delivered messages, in order of delivery, with none left out before the last.
            sends: What to send.
            timeout: Seconds to wait for a connection, if nothing is acknowledged.

        Raises:
            Disconnected: The messages were delivered by a connection that is gone: they come again.
        """

    def commit(self, acknowledge: Sequence[Message], sends: Sequence[Send], timeout: float = 60) -> None:
        """As `begin`, and return when the broker has confirmed it. Raises as `begin` and `Pending.wait`."""
        if not acknowledge and not sends:
            return
        deadline = time.monotonic() + timeout
        self.begin(acknowledge, sends, timeout).wait(max(0.0, deadline - time.monotonic()))

    def send(self, *sends: Send, timeout: float = 60) -> None:
        """Send, all or nothing; return when the broker has confirmed. Raises as `commit`."""
        self.commit((), sends, timeout)

    @abstractmethod
    def post(self, send: Send) -> None:
        """Send without waiting: for status broadcasts and the like, lost if there is no connection."""

    @abstractmethod
    def refuse(self, message: Message, timeout: float = 60) -> None:
        """Have the broker deal with a message as with one that nobody wants (NACK), without a word why.

        For what cannot even be sent to the dead letters. It must be the oldest that is not acknowledged.

        Raises: as `commit`.
        """

    def drive(self, seconds: float, until: Callable[[], object]) -> bool:  # noqa: ARG002
        """Have the calling thread do what the transport's own does, which saves handing messages over.

        Callbacks run on this thread then. Only one thread of a process may do this.

        Args:
            seconds: For how long.
            until: Whether to return before; asked after whatever arrived.

        Returns:
            False, at once, if this is not possible now, or never with this transport: then messages arrive as
            they always do.
        """
        return False

    def hand_back(self) -> None:  # noqa: B027 - nothing to do where `drive` is not possible
        """Have the transport's own thread read from now on, not only when nobody has for a moment.

        For whoever drives, and is about to do something that takes long while messages should arrive.
        """

    def wake(self) -> None:  # noqa: B027 - nothing to do where `drive` is not possible
        """Have `drive` look at `until`. May be called from a signal handler."""

    @abstractmethod
    def dead_letter(self, message: Message, headers: Mapping[str, str]) -> Send:
        """Return what sends `message` to the dead-letter queue of its queue, with `headers` added."""
