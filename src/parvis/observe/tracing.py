"""Traces of messages for OpenTelemetry: a span for each that is handled, and the context in its headers.

The context travels as W3C `traceparent`, in the headers in which `workflows` carries it, so that one trace
goes through its services and ours. Spans have the names and attributes of OpenTelemetry's conventions for
messaging.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer

from parvis import __version__
from parvis.observe.logs import log_context
from parvis.recipe.envelope import Envelope, MalformedMessage, as_object, is_recipe_message, parse_json
from parvis.service.identity import identity_of
from parvis.service.observer import Handled, Observer
from parvis.service.status import host_id

if TYPE_CHECKING:
    from parvis.observe.tracing_settings import TracingSettings
    from parvis.service.base import AnyService
    from parvis.transport.base import Message, Send, Transport

_log = logging.getLogger("parvis.tracing")

_LAST_WORDS: Final = 2.0  # seconds that a service waits at its end for the collector
_LAST_WORDS_OF_A_REQUEST: Final = 0.5
_LONGEST: Final = 1000

Attributes = dict[str, str | int | bool]


class Tracing(Observer):
    """Makes the spans of a host.

    Args:
        settings: Where they go.
    """

    def __init__(self, settings: TracingSettings) -> None:
        self._settings = settings
        self._provider: TracerProvider | None = None
        self._tracer: Tracer = trace.NoOpTracer()
        self._open: dict[str, Span] = {}
        self._common: Attributes = {}
        self._namespace = ""

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:
        self._namespace = f"{transport.namespace}." if transport.namespace else ""
        system = type(transport).__name__.removesuffix("Transport").lower()
        self._common = {
            "messaging.system": system,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.client.id": host_id(),
        }
        self._provider = _provider(self._settings, ", ".join(service.name for service in services))
        # For spans that services make themselves, and for services written for `workflows`.
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self._provider)
        self._tracer = self._provider.get_tracer("parvis", __version__)

    @contextlib.contextmanager
    def handling(self, service: AnyService, messages: Sequence[Message]) -> Generator[None]:
        """A span for each message, in its trace; and one for a batch, linked to all of them."""
        if len(messages) == 1:
            span = self._begin(service, messages[0], ())
        else:
            span = self._begin_batch(service, messages)
        context = span.get_span_context()
        token = attach(trace.set_span_in_context(span))
        try:
            with log_context(
                trace_id=trace.format_trace_id(context.trace_id),
                span_id=trace.format_span_id(context.span_id),
            ):
                yield
        finally:
            detach(token)
            if len(messages) != 1:
                span.end()

    def _begin_batch(self, service: AnyService, messages: Sequence[Message]) -> Span:
        contexts = [trace.get_current_span(_context(message)).get_span_context() for message in messages]
        batch = self._tracer.start_span(
            f"process {service.queue}",
            Context(),
            SpanKind.CONSUMER,
            {
                **self._common,
                "messaging.destination.name": self._namespace + messages[0].destination,
                "messaging.batch.message_count": len(messages),
                "parvis.service": service.name,
            },
            [Link(context) for context in contexts if context.is_valid],
        )
        for message in messages:
            self._begin(service, message, [Link(batch.get_span_context())])
        return batch

    def _begin(self, service: AnyService, message: Message, links: Sequence[Link]) -> Span:
        self._end(message)  # it was handled before, and nobody said what came of it
        span = self._tracer.start_span(
            f"process {message.destination}",
            _context(message),
            SpanKind.CONSUMER,
            {
                **self._common,
                "messaging.destination.name": self._namespace + message.destination,
                "messaging.message.id": message.message_id,
                "messaging.message.body.size": len(message.body),
                "parvis.service": service.name,
                "parvis.id": identity_of(message),
                "parvis.redelivered": message.redelivered,
            },
            links,
        )
        if span.is_recording():
            span.set_attributes(_recipe_attributes(message))
        self._open[message.message_id] = span
        return span

    def settling(self, handled: Handled) -> contextlib.AbstractContextManager[None]:
        return _logged(self._open.get(handled.message.message_id, trace.INVALID_SPAN))

    def sending(self, handled: Handled, sends: Sequence[Send]) -> Sequence[Send]:
        span = self._open.get(handled.message.message_id)
        if span is None:
            return sends
        outcome = handled.outcome
        span.set_attribute("parvis.result", outcome.result)
        if outcome.reason:
            span.set_attribute("parvis.reason", outcome.reason[:_LONGEST])
        if outcome.result in {"reject", "fail", "crash", "timeout"}:
            span.set_status(StatusCode.ERROR, outcome.reason[:_LONGEST])
            span.set_attribute("error.type", outcome.result)
        if outcome.trace:
            kind, _, text = outcome.reason.partition(": ")
            described = {
                "exception.type": kind,
                "exception.message": text,
                "exception.stacktrace": outcome.trace,
            }
            span.add_event("exception", described)
        context = _carrier(span)
        return [replace(send, headers={**send.headers, **context}) for send in sends]

    def committed(self, handled: Sequence[Handled]) -> None:
        for one in handled:
            self._end(one.message)

    def uncommitted(self, handled: Sequence[Handled], reason: str) -> None:
        for one in handled:
            span = self._open.get(one.message.message_id)
            if span is not None:
                span.set_status(StatusCode.ERROR, f"not confirmed: {reason}"[:_LONGEST])
            self._end(one.message)

    def stopped(self) -> None:
        for span in self._open.values():
            span.end()
        self._open.clear()
        if self._provider is not None:
            _shut_down(self._provider, _LAST_WORDS)

    def _end(self, message: Message) -> None:
        span = self._open.pop(message.message_id, None)
        if span is not None:
            span.end()


@contextlib.contextmanager
def request_span(settings: TracingSettings, program: str, queue: str) -> Generator[Mapping[str, str]]:
    """A trace that begins with a request to `queue`; gives the headers that carry it."""
    provider = _provider(settings, program)
    tracer = provider.get_tracer("parvis", __version__)
    attributes = {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    attributes["messaging.destination.name"] = queue
    try:
        with tracer.start_as_current_span(f"send {queue}", Context(), SpanKind.PRODUCER, attributes) as span:
            yield _carrier(span)
    finally:
        _shut_down(provider, _LAST_WORDS_OF_A_REQUEST)


def _logged(span: Span) -> contextlib.AbstractContextManager[None]:
    """Have log records tell the trace and span that they belong to."""
    context = span.get_span_context()
    if not context.is_valid:
        return contextlib.nullcontext()
    return log_context(
        trace_id=trace.format_trace_id(context.trace_id), span_id=trace.format_span_id(context.span_id)
    )


def _context(message: Message) -> Context:
    return extract(message.headers, Context())


def _carrier(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    inject(headers, trace.set_span_in_context(span))
    return headers


def _recipe_attributes(message: Message) -> Attributes:
    """What the message says of its recipe; nothing if it cannot be read."""
    try:
        if not is_recipe_message(message.headers):
            return _dcid(as_object(parse_json(message.body)).get("parameters"))
        envelope = Envelope.parse(message.body)
    except MalformedMessage:
        return {}
    found: Attributes = {"parvis.recipe.node": envelope.pointer}
    if envelope.recipe_id is not None:
        found["parvis.recipe.id"] = envelope.recipe_id
    return found | (_dcid(envelope.environment) or _dcid(envelope.node.get("parameters")))


def _dcid(values: Any) -> Attributes:
    """The number of the data collection, if it is among these values."""
    values = as_object(values)
    dcid = values.get("dcid", values.get("ispyb_dcid"))
    return {"dcid": int(dcid)} if str(dcid).isdecimal() and len(str(dcid)) < 16 else {}


def _provider(settings: TracingSettings, name: str) -> TracerProvider:
    resource = Resource.create({"service.version": __version__, "service.instance.id": host_id()})
    if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: name}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(settings)))
    return provider


def _exporter(settings: TracingSettings) -> SpanExporter:
    if settings.exporter == "console":
        return ConsoleSpanExporter(out=sys.stderr)
    collector = settings.collector
    if collector is None:
        return _Discreet(OTLPSpanExporter())
    endpoint = f"https://{collector.host}:{collector.port}/v1/traces"
    return _Discreet(OTLPSpanExporter(endpoint, timeout=collector.timeout))


class _Discreet(SpanExporter):
    """Says once that the collector takes nothing, and once that it does again; meanwhile spans are lost."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        # They tell of every attempt, with tracebacks.
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            _log.warning("the collector of traces takes none; they are dropped until it does")
        elif self._failing and not failing:
            _log.info("the collector takes traces again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _shut_down(provider: TracerProvider, timeout: float) -> None:
    """Send what is left, for at most `timeout` seconds: the library itself would wait for half a minute."""
    thread = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
    thread.start()
    thread.join(timeout)
