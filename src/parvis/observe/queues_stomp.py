"""Figures of queues from a STOMP broker: the embedded one, or ActiveMQ."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from parvis.observe.queue_figures import (
    BODY_LIMIT,
    BrokerFacts,
    NoFigures,
    PeekedMessage,
    QueueFigures,
    QueueSource,
    check_peek,
    clip_headers,
    is_dead_letters,
    local_name,
)
from parvis.transport.base import BrokerRefused, NoConnection, NotAdmitted
from parvis.transport.stomp_console import Facts, NoAnswer, StompConsole, sent_at

if TYPE_CHECKING:
    from parvis.config import Config
    from parvis.transport.base import Kind
    from parvis.transport.stomp_frames import Frame

_BROKER: Final = "/topic/ActiveMQ.Statistics.Broker"
_EVERYTHING: Final = tuple(f"/{kind}/ActiveMQ.Statistics.Destination.>" for kind in ("queue", "topic"))
_PROBE_TIMEOUT: Final = 3.0
_HOUSEKEEPING: Final = ("ActiveMQ.Advisory.", "ActiveMQ.Statistics.")
_OF_THE_LOOK: Final = frozenset({"ack", "subscription", "content-length"})
_PRODUCTS: Final = {"ActiveMQ": "ActiveMQ", "parvis-embedded": "Embedded broker"}


class Reader(Protocol):
    """Who tells the figures of a STOMP broker."""

    origin: str

    def figures(self, namespace: str) -> list[QueueFigures]:
        """As `QueueSource.figures`, in any order."""
        ...

    def facts(self) -> BrokerFacts:
        """What it knows of the broker itself; `product` and `version` are filled in elsewhere."""
        ...


class Statistics:
    """ActiveMQ's statistics plug-in, and the embedded broker, which answers as that does."""

    origin = "statistics over STOMP"

    def __init__(self, console: StompConsole) -> None:
        self._console = console

    def answers(self) -> bool:
        """Whether the broker answers. Raises as `StompConsole.ask`."""
        try:
            self._console.ask([_BROKER], _PROBE_TIMEOUT)
        except NoAnswer:
            return False
        return True

    def figures(self, namespace: str) -> list[QueueFigures]:
        queues, topics, _ = self._console.ask([*_EVERYTHING, _BROKER])
        return [made for facts in [*queues, *topics] if (made := _figures(facts, namespace)) is not None]

    def facts(self) -> BrokerFacts:
        queues, ((broker,)) = self._console.ask([_EVERYTHING[0], _BROKER])
        sizes = [_count(one, "size") or 0 for one in queues]
        return BrokerFacts(
            product="",
            connections=_count(broker, "connectionCount"),
            queues=len(queues),
            messages=sum(sizes),
            in_flight=sum(_count(one, "inflightCount") or 0 for one in queues),
            memory=_count(broker, "memoryPercentUsage"),
            store=_count(broker, "storePercentUsage"),
            temp=_count(broker, "tempPercentUsage"),
            delayed=_count(broker, "scheduledCount"),
        )


class StompSource:
    """A `QueueSource` on a STOMP broker.

    Args:
        console: Questions to the broker, and looks into its queues.
        reader: Who tells the figures.
        namespace: Prefix of all names.
        more: Who knows more of the broker itself, if anybody.
    """

    peek_cost = ""

    def __init__(
        self, console: StompConsole, reader: Reader, namespace: str, more: Reader | None = None
    ) -> None:
        self._console = console
        self._reader = reader
        self._namespace = namespace
        self._more = more
        self.origin = reader.origin
        name, _, self._version = console.server.partition("/")
        self.product = _PRODUCTS.get(name, name)

    def figures(self) -> list[QueueFigures]:
        return sorted(self._reader.figures(self._namespace), key=lambda one: (one.kind, one.name))

    def peek(
        self, queue: str, limit: int = 10, skip: int = 0, *, at_a_price: bool = False
    ) -> list[PeekedMessage]:
        del at_a_price  # it never costs anything here
        check_peek(limit, skip)
        found: list[PeekedMessage] = []
        try:
            for place, frame in enumerate(self._console.browse(queue, skip + limit), 1):
                if place > skip:
                    found.append(_peeked(queue, place, frame))
        except NoAnswer:
            if not found:
                raise
        return found

    def oldest(self, queue: str) -> float | None:
        sent = next((one.sent for one in self.peek(queue, 1)), None)
        return None if sent is None else max(0.0, time.time() - sent)

    def broker_facts(self) -> BrokerFacts:
        facts = self._reader.facts()
        if self._more is not None:
            more = self._more.facts()
            facts = replace(facts, connections=more.connections, heap=more.heap)
        return replace(facts, product=self.product, version=self._version)

    def close(self) -> None:
        self._console.close()


def open_stomp_source(config: Config) -> QueueSource:
    """As `queue_figures.open_queue_source`, for a STOMP broker."""
    from parvis.config import ConfigError
    from parvis.observe.queues_jolokia import Jolokia

    settings = config.stomp
    tls = settings.tls_context()
    console = StompConsole(settings.hosts, settings.username, settings.password, tls)
    try:
        server = console.server
    except ValueError as error:
        raise ConfigError(f"STOMP: {error}") from None
    reasons: list[str] = []
    readers: list[Reader] = []
    if server.startswith(("ActiveMQ/", "parvis-embedded/")):
        statistics = Statistics(console)
        try:
            if statistics.answers():
                readers.append(statistics)
            else:
                reasons.append("its statistics plug-in is not on (<statisticsBrokerPlugin/> in activemq.xml)")
        except (NoConnection, NotAdmitted):
            raise
        except BrokerRefused as error:
            reasons.append(str(error))
    if config.jmx is not None:
        jolokia = Jolokia(config.jmx)
        if problem := jolokia.problem():
            reasons.append(problem)
        else:
            readers.append(jolokia)
    elif server.startswith("ActiveMQ/"):
        reasons.append("plugin jmx of the configuration does not say where its Jolokia is")
    if readers:
        return StompSource(console, readers[0], settings.prefix, *readers[1:])
    console.close()
    if config.rabbitmqapi is not None:
        from parvis.observe.queues_rabbitmq import RabbitMQSource

        return RabbitMQSource.of(config)
    what = "; ".join(reasons) or "name its management interface by plugin rabbitmqapi of the configuration"
    raise NoFigures(f"{server} at {config.broker_hosts} gives no figures of its queues: {what}")


def _figures(facts: Facts, namespace: str) -> QueueFigures | None:
    scheme, _, absolute = str(facts.get("destinationName", "")).partition("://")
    if scheme not in {"queue", "topic"} or absolute.startswith(_HOUSEKEEPING):
        return None
    kind: Kind = "queue" if scheme == "queue" else "topic"
    age = facts.get("oldestMessageAge")
    return QueueFigures(
        name=local_name(absolute, namespace),
        kind=kind,
        absolute=absolute,
        enqueued=_count(facts, "enqueueCount"),
        dequeued=_count(facts, "dequeueCount"),
        held=_count(facts, "size"),
        in_flight=_count(facts, "inflightCount"),
        clients=_count(facts, "consumerCount"),
        oldest=None if age is None else float(age) / 1000,
        size=_count(facts, "memoryUsage"),
        dead_letters=bool(facts.get("dlq")) or (kind == "queue" and is_dead_letters(absolute)),
    )


def _count(facts: Mapping[str, object], name: str) -> int | None:
    value = facts.get(name)
    return int(value) if isinstance(value, int | float) else None


def _peeked(queue: str, place: int, frame: Frame) -> PeekedMessage:
    headers = {name: value for name, value in frame.headers.items() if name not in _OF_THE_LOOK}
    return PeekedMessage(
        queue=queue,
        place=place,
        message_id=frame.headers.get("message-id", ""),
        headers=clip_headers(headers),
        body=frame.body[:BODY_LIMIT],
        size=len(frame.body),
        sent=sent_at(frame),
        redelivered=frame.headers.get("redelivered") == "true",
    )
