"""Figures of a running host for Prometheus: how many messages, how they ended, how long everything took.

The endpoint is served from threads of its own, so a scrape is answered while a service computes. It has no
log-in and tells nothing of what is in the messages; it is bound to this machine unless the configuration says
otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from parvis import __version__
from parvis.config import Config, ConfigError
from parvis.observe.ports import at_free_port, web_address
from parvis.service.failure import REASON
from parvis.service.identity import FIRST_SEEN, IDENTITY, identity_of
from parvis.service.observer import Handled, Observer
from parvis.transport.base import whole_number

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram
    from prometheus_client.metrics_core import Metric

    from parvis.service.base import AnyService
    from parvis.transport.base import Message, Send, Transport

_log = logging.getLogger("parvis.metrics")


# From a millisecond to ten hours: handling takes from one to the other, and a queue may grow for a night.
_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    *(60, 120, 300, 600, 1800, 3600, 7200, 18000, 36000),
)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

_HELD_BACK: Final = frozenset({"scheduledJobId", "x-death"})  # headers of ActiveMQ and RabbitMQ
_LABELS: Final = ("service", "queue")
_RESULTS: Final = {
    "reject": "rejected",
    "retry": "retried",
    "fail": "failed",
    "crash": "crashed",
    "timeout": "timed out",
}


def start_metrics(config: Config) -> Metrics:
    """Serve metrics at the configured port, and return what gathers them.

    Raises:
        ConfigError: The package prometheus-client is missing, no port is free, or there is no such address.
    """
    port, address = config.metrics_port, config.metrics_address
    try:
        metrics = Metrics()
    except ImportError:
        raise ConfigError(
            "metrics need the package prometheus-client: pip install 'parvis[metrics]'"
        ) from None
    metrics.serve(port or 0, address)
    return metrics


@dataclass(slots=True)
class _Place:
    """What is counted of one service and queue."""

    messages: Callable[[str], Counter]
    handling: Histogram
    waiting: Histogram
    latency: Histogram
    by_result: dict[str, Counter] = field(default_factory=dict[str, "Counter"])

    def count(self, result: str) -> None:
        counter = self.by_result.get(result)
        if counter is None:
            counter = self.by_result[result] = self.messages(_RESULTS.get(result, result))
        counter.inc()


class Metrics(Observer):
    """Counts and measures what a host does.

    Attributes:
        registry: Where Prometheus finds all of it.
        port: Where it is served, or None.

    Raises:
        ImportError: There is no prometheus-client.
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        registry = self.registry = CollectorRegistry()
        self.port: int | None = None
        self._close: Callable[[], None] | None = None
        self._places: dict[tuple[str, str], _Place] = {}
        self._depth: Callable[[], int] = int
        self._began = 0.0
        # Of messages whose transaction is under way: when it was written, and what counts it, if anything.
        self._written: dict[str, tuple[float, Counter | None]] = {}

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=registry)

        def histogram(
            name: str, about: str, labels: Sequence[str] = (), buckets: Sequence[float] = _SECONDS
        ) -> Histogram:
            return Histogram(name, about, labels, registry=registry, buckets=buckets)

        self._messages = counter(
            "parvis_messages", "Messages that were handled, by what came of them", *_LABELS, "result"
        )
        self._retries = counter("parvis_retries", "Messages that were sent to be tried again", *_LABELS)
        self._dead_letters = counter("parvis_dead_letters", "Messages that became dead letters", *_LABELS)
        self._uncommitted = counter(
            "parvis_uncommitted_messages",
            "Messages that were handled and not confirmed: they come again",
            *_LABELS,
        )
        self._handling = histogram("parvis_handling_seconds", "Handling of a message", _LABELS)
        self._waiting = histogram(
            "parvis_queue_seconds",
            "From when the broker got a message until it was handled, unless it was to be held back",
            _LABELS,
        )
        self._latency = histogram(
            "parvis_latency_seconds",
            "From when the recipe of a message was asked for until the message was done with",
            _LABELS,
        )
        self._commit_wait = histogram("parvis_commit_seconds", "Wait for the broker to confirm a transaction")
        self._commit_size = histogram("parvis_commit_messages", "Messages in a transaction", buckets=_SIZES)
        Gauge("parvis_info", "Always 1", ("version",), registry=registry).labels(__version__).set(1)
        ProcessCollector(registry=registry)

    def serve(self, port: int, address: str = "127.0.0.1") -> None:
        """Serve at `port` or the next of a hundred that is free; at any free one if it is 0.

        Raises:
            ConfigError: None is free, or there is no such address here.
        """
        self.port, self._close = at_free_port(
            "metrics", address, port, lambda candidate: _serve(self.registry, candidate, address)
        )
        _log.info("metrics at %s/metrics", web_address(address, self.port))

    def inbox(self, depth: Callable[[], int]) -> None:
        self._depth = depth

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:
        for service in services:
            self._place(service, service.queue)  # so that it is there before the first message
        self.registry.register(_Now(transport, services, self._depth))

    def handling(
        self,
        service: AnyService,  # noqa: ARG002
        messages: Sequence[Message],  # noqa: ARG002
    ) -> contextlib.AbstractContextManager[None]:
        self._began = time.time()
        return _NOTHING

    def sending(self, handled: Handled, sends: Sequence[Send]) -> Sequence[Send]:
        message = handled.message
        self._written[message.message_id] = (time.monotonic(), self._fate(handled, sends))
        arrived = whole_number(message.headers.get("timestamp")) or 0
        # Brokers say when a message that was held back was sent, and not how long it was to be held back.
        if arrived and not _HELD_BACK.intersection(message.headers):
            waited = max(0.0, self._began - arrived / 1000)
            self._place(handled.service, message.destination).waiting.observe(waited)
        return sends

    def committed(self, handled: Sequence[Handled]) -> None:
        now = time.monotonic()
        wait = 0.0
        for one in handled:
            # What is set aside with little but its body was never announced.
            written, fate = self._written.pop(one.message.message_id, (now, self._dead_letters))
            wait = max(wait, now - written)
            self._count(one, fate)
        self._commit_wait.observe(wait)
        self._commit_size.observe(len(handled))

    def uncommitted(self, handled: Sequence[Handled], reason: str) -> None:  # noqa: ARG002
        for one in handled:
            self._written.pop(one.message.message_id, None)
            self._uncommitted.labels(one.service.name, one.message.destination).inc()

    def stopped(self) -> None:
        if self._close is not None:
            self._close()

    def card(self) -> Mapping[str, Any]:
        return {"metrics": self.port}

    def _fate(self, handled: Handled, sends: Sequence[Send]) -> Counter | None:
        """What counts a message that is tried again or a dead letter; None if error nodes get it."""
        if handled.outcome.result not in _RESULTS:
            return None
        if any(REASON in send.headers for send in sends):
            return self._dead_letters
        again = identity_of(handled.message)
        return self._retries if any(send.headers.get(IDENTITY) == again for send in sends) else None

    def _count(self, handled: Handled, fate: Counter | None) -> None:
        message, result = handled.message, handled.outcome.result
        place = self._place(handled.service, message.destination)
        place.count(result)
        place.handling.observe(handled.seconds)
        first_seen = whole_number(message.headers.get(FIRST_SEEN)) or 0
        if first_seen:
            place.latency.observe(max(0.0, time.time() - first_seen / 1000))
        if fate is not None:
            fate.labels(handled.service.name, message.destination).inc()

    def _place(self, service: AnyService, queue: str) -> _Place:
        labels = (service.name, queue)
        place = self._places.get(labels)
        if place is None:
            place = self._places[labels] = _Place(
                lambda result: self._messages.labels(*labels, result),
                self._handling.labels(*labels),
                self._waiting.labels(*labels),
                self._latency.labels(*labels),
            )
        return place


def _serve(registry: CollectorRegistry, port: int, address: str) -> tuple[int, Callable[[], None]]:
    """Serve at exactly this port, or at any if it is 0; return which, and what ends it."""
    from prometheus_client import start_http_server

    server, thread = start_http_server(port, address, registry)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, close


_NOTHING = contextlib.nullcontext()


class _Now:
    """What is looked up when somebody asks: how things are at this moment."""

    def __init__(
        self, transport: Transport, services: Sequence[AnyService], depth: Callable[[], int]
    ) -> None:
        self._transport = transport
        self._services = services
        self._depth = depth

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        connected = float(self._transport.is_connected)
        yield GaugeMetricFamily("parvis_connected", "1 while there is a connection to the broker", connected)
        yield CounterMetricFamily(
            "parvis_reconnections",
            "How often a lost connection was made again",
            max(0, self._transport.connection - 1),
        )
        yield GaugeMetricFamily("parvis_inbox_messages", "Messages that wait in this process", self._depth())
        flow = GaugeMetricFamily(
            "parvis_flow",
            "What fan-outs have in flight or may send, and how many wait",
            labels=("service", "what"),
        )
        for service in self._services:
            for what, value in service.ledger.summary().items() if service.ledger else ():
                flow.add_metric((service.name, what), value)
        yield flow
        yield from self._own_figures()

    def _own_figures(self) -> Iterator[Metric]:
        """What the services say of themselves."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for service in self._services:
            for figure in service.figures():
                kind = CounterMetricFamily if figure.is_counter else GaugeMetricFamily
                family = families.setdefault(
                    figure.name, kind(f"parvis_{figure.name}", figure.about, labels=("service",))
                )
                family.add_metric((service.name,), figure.value)
        yield from families.values()

    def describe(self) -> Iterable[Metric]:
        return ()
