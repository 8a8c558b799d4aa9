"""What goes on in queues and topics: figures, rates, and a look at messages without taking them.

Where the figures come from is up to the broker: `open_queue_source` finds out. A figure that a broker does
not give is None.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from parvis.transport.base import Kind, TransportError

if TYPE_CHECKING:
    from parvis.config import Config

#: Bytes of a body, and characters of a header, that a look at a message shows at most.
BODY_LIMIT: Final = 1_000_000
HEADER_LIMIT: Final = 20_000
#: Messages that may be looked at at once.
LONGEST_PEEK: Final = 1000

_TREND: Final = 60
#: Prefixes that brokers put before the name of a queue to name the queue of its dead letters.
DEAD_PREFIXES: Final = ("DLQ.", "dlq.")
_DEAD_NAMES: Final = frozenset({"ActiveMQ.DLQ"})


class NoFigures(TransportError):
    """The broker gives no figures, or none to us; the text says what to enable."""


class NoPeek(TransportError):
    """Messages of this queue cannot be looked at, or only at a price; the text says why."""


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """A queue or topic at one moment. Counts are since the broker started, or made the queue.

    Attributes:
        name: Its name without the namespace of the configuration, if it is in that.
        kind: `queue` or `topic`.
        absolute: Its whole name on the broker.
        enqueued: Messages that came in.
        dequeued: Messages that were taken and acknowledged.
        held: Messages in it, those in flight included; None where the broker holds none, as in a topic.
        in_flight: Messages that were handed out and are not acknowledged yet.
        clients: Consumers or subscribers.
        oldest: Seconds since the message came that is in it longest; 0 where there is none.
        size: Bytes of the messages in it, as far as the broker counts them.
        dead_letters: Whether it holds the dead letters of others.
    """

    name: str
    kind: Kind
    absolute: str
    enqueued: int | None = None
    dequeued: int | None = None
    held: int | None = None
    in_flight: int | None = None
    clients: int | None = None
    oldest: float | None = None
    size: int | None = None
    dead_letters: bool = False

    def to_json(self) -> dict[str, object]:
        """All of it, for programs."""
        return {
            "name": self.name,
            "kind": self.kind,
            "absolute": self.absolute,
            "enqueued": self.enqueued,
            "dequeued": self.dequeued,
            "held": self.held,
            "in_flight": self.in_flight,
            "clients": self.clients,
            "oldest": self.oldest,
            "size": self.size,
            "dead_letters": self.dead_letters,
        }


@dataclass(frozen=True, slots=True)
class PeekedMessage:
    """A message that was looked at and is where it was.

    Attributes:
        queue: Whole name of its queue on the broker.
        place: Its place in the queue, from 1.
        message_id: The broker's identifier; empty where it has none.
        headers: Its headers, each at most `HEADER_LIMIT` characters long.
        body: The beginning of its body, at most `BODY_LIMIT` bytes.
        size: Bytes of the whole body.
        sent: When it was sent, in s since 1970; None if that is not known.
        redelivered: Somebody had it before and did not acknowledge it.
    """

    queue: str
    place: int
    message_id: str
    headers: Mapping[str, str]
    body: bytes
    size: int
    sent: float | None = None
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """The broker itself at one moment; None is what it does not tell.

    Attributes:
        product: What it is, such as `ActiveMQ`, `RabbitMQ` or `Embedded broker`.
        version: Its version.
        connections, channels: How many clients are connected, and channels of AMQP.
        queues: How many queues there are.
        messages, in_flight: Messages in all queues, and those handed out and not acknowledged.
        memory, store, temp, heap: Percent in use of the memory for messages, of the disk for persistent and
            for other messages, and of the heap of Java.
        delayed: Messages held back for later.
        alarms: What the broker itself finds wrong, in words.
    """

    product: str
    version: str | None = None
    connections: int | None = None
    channels: int | None = None
    queues: int | None = None
    messages: int | None = None
    in_flight: int | None = None
    memory: float | None = None
    store: float | None = None
    temp: float | None = None
    heap: float | None = None
    delayed: int | None = None
    alarms: tuple[str, ...] = ()


class QueueSource(Protocol):
    """Where figures of queues come from. Methods may take seconds; one is called at a time.

    A connection that was lost is made again by the next call.
    """

    @property
    def product(self) -> str:
        """What the broker is, for people: `ActiveMQ`, `RabbitMQ` or `Embedded broker`."""
        ...

    @property
    def origin(self) -> str:
        """How the figures are had, for people."""
        ...

    @property
    def peek_cost(self) -> str:
        """What a look at messages costs, in words; empty for nothing."""
        ...

    def figures(self) -> list[QueueFigures]:
        """Every queue and topic, by name; those of the broker's own housekeeping are left out.

        Raises:
            TransportError: The broker does not answer.
        """
        ...

    def peek(
        self, queue: str, limit: int = 10, skip: int = 0, *, at_a_price: bool = False
    ) -> list[PeekedMessage]:
        """Look at messages of a queue, in the order in which they are to be delivered, and leave them there.

        Args:
            queue: The whole name of the queue on the broker.
            limit: How many at most, up to `LONGEST_PEEK` together with `skip`.
            skip: How many to leave out at the head of the queue.
            at_a_price: Do it even where it may cost something: see `docs/how-to/watch-the-queues.md`.

        Raises:
            NoPeek: This queue cannot be looked into, or only `at_a_price`.
            TransportError: The broker does not answer.
        """
        ...

    def oldest(self, queue: str) -> float | None:
        """Seconds since the first message of a queue came, by looking at it; None if that cannot be known.

        Raises:
            TransportError: The broker does not answer.
        """
        ...

    def broker_facts(self) -> BrokerFacts:
        """The broker itself. Raises as `figures`."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class QueueTraffic:
    """A queue or topic, and what became of it since the look before.

    Attributes:
        figures: The last figures.
        came, went: Messages that came in and were acknowledged since the look before; None at the first.
        seconds: Time since the look before.
        trend: Messages that were held at the last looks, the newest last.
        relevance: How much there is to see: 0 for nothing.
    """

    figures: QueueFigures
    came: int | None
    went: int | None
    seconds: float
    trend: tuple[int, ...]
    relevance: float

    @property
    def rate_in(self) -> float | None:
        """Messages a second that came in."""
        return None if self.came is None or self.seconds <= 0 else self.came / self.seconds

    @property
    def rate_out(self) -> float | None:
        """Messages a second that were acknowledged."""
        return None if self.went is None or self.seconds <= 0 else self.went / self.seconds

    def to_json(self) -> dict[str, object]:
        """All of it, for programs."""
        rates = {"rate_in": self.rate_in, "rate_out": self.rate_out, "relevance": self.relevance}
        return self.figures.to_json() | rates | {"trend": list(self.trend)}


@dataclass(slots=True)
class _Seen:
    figures: QueueFigures
    relevance: float = 0.0
    trend: deque[int] = field(default_factory=lambda: deque[int](maxlen=_TREND))


class QueueHistory:
    """Makes rates, trends and relevance of successive figures.

    Relevance is what is held and in flight, the messages that came and went since the look before, and half
    of the last relevance: a queue that falls idle fades out within a few looks.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[Kind, str], _Seen] = {}
        self._at: float | None = None

    def take(self, figures: Sequence[QueueFigures], at: float | None = None) -> list[QueueTraffic]:
        """Add the figures of a moment; return every queue and topic, as `in_order`.

        Args:
            figures: As of `QueueSource.figures`.
            at: The moment, in s on any clock that never goes back; by default now.
        """
        now = time.monotonic() if at is None else at
        seconds = 0.0 if self._at is None else now - self._at
        self._at = now
        before, self._seen = self._seen, {}
        return in_order([self._compare(one, before, seconds) for one in figures])

    def _compare(
        self, figures: QueueFigures, before: Mapping[tuple[Kind, str], _Seen], seconds: float
    ) -> QueueTraffic:
        key = (figures.kind, figures.absolute)
        seen = before.get(key) or _Seen(figures)
        # A queue that was not there at the look before has come with all that it tells.
        known = seen.figures if key in before else QueueFigures("", figures.kind, "", 0, 0)
        came = _gained(known.enqueued, figures.enqueued) if seconds else None
        went = _gained(known.dequeued, figures.dequeued) if seconds else None
        weight = (figures.held or 0) + (figures.in_flight or 0) + (came or 0) + (went or 0)
        relevance = weight + seen.relevance / 2
        seen.relevance = relevance if relevance >= 1 else 0.0
        seen.figures = figures
        if figures.held is not None:
            seen.trend.append(figures.held)
        self._seen[key] = seen
        return QueueTraffic(figures, came, went, seconds, tuple(seen.trend), seen.relevance)


def in_order(traffic: Sequence[QueueTraffic]) -> list[QueueTraffic]:
    """Return queues and topics, those that hold most first, then by name."""
    return sorted(traffic, key=lambda one: (-(one.figures.held or 0), one.figures.name))


def _gained(before: int | None, now: int | None) -> int | None:
    if before is None or now is None:
        return None
    return now - before if now >= before else now  # counted anew: the broker was started again


def is_dead_letters(absolute: str) -> bool:
    """Whether a queue of this whole name is one for dead letters, on any broker."""
    return absolute.startswith(DEAD_PREFIXES) or absolute in _DEAD_NAMES


def local_name(absolute: str, namespace: str) -> str:
    """The name of a queue or topic without the namespace, if it is in that."""
    return absolute.removeprefix(f"{namespace}.") if namespace else absolute


def check_peek(limit: int, skip: int) -> None:
    """Raise ValueError unless that many messages may be looked at."""
    if limit < 1 or skip < 0 or limit + skip > LONGEST_PEEK:
        raise ValueError(f"from 1 to {LONGEST_PEEK} messages can be looked at, those left out included")


def clip_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as a look at a message shows them: not beyond `HEADER_LIMIT` characters each."""
    return {name[:HEADER_LIMIT]: value[:HEADER_LIMIT] for name, value in headers.items()}


def find_queue(figures: Sequence[QueueFigures], wanted: str, namespace: str) -> QueueFigures:
    """Return the queue that somebody means by a name, whole or without its namespace.

    Raises:
        ValueError: There is no such queue; says which come close.
    """
    from difflib import get_close_matches

    queues = {one.absolute: one for one in figures if one.kind == "queue"}
    for name in (f"{namespace}.{wanted}" if namespace else wanted, wanted):
        if name in queues:
            return queues[name]
    names = {one.name for one in queues.values()} | set(queues)
    close = get_close_matches(wanted, sorted(names), n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ValueError(f"There is no queue {wanted[:100]!r} on the broker.{hint}")


def open_queue_source(config: Config) -> QueueSource:
    """Find out who can tell about the queues of the configured broker, and connect.

    With a STOMP broker this is the broker itself (the embedded one, or ActiveMQ with its statistics plug-in),
    else ActiveMQ's Jolokia (plugin `jmx` of the configuration), else RabbitMQ's management interface (plugin
    `rabbitmqapi`). With RabbitMQ it is that interface, by default at port 15672.

    Raises:
        NoFigures: Nobody tells; the text says what to enable.
        ConfigError: The settings of the broker are no good.
        TransportError: The broker does not answer, or does not let us in.
    """
    from parvis.config import PikaSettings

    if isinstance(config.broker, PikaSettings):
        from parvis.observe.queues_rabbitmq import RabbitMQSource

        return RabbitMQSource.of(config)
    from parvis.observe.queues_stomp import open_stomp_source

    return open_stomp_source(config)
