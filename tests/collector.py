"""A collector of OpenTelemetry for tests: takes traces by OTLP over HTTP, and can be asked for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from http_server import HttpServer, Quiet
from waiting import wait_until


@dataclass(frozen=True)
class CollectedSpan:
    """A span as it came in; identifiers are in hexadecimal digits."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    links: list[str]
    status: int
    message: str
    events: list[tuple[str, dict[str, Any]]]


class Collector(HttpServer):
    """Listens on this machine while its context lasts."""

    def __init__(self) -> None:
        self.spans: list[CollectedSpan] = []
        spans = self.spans

        class Handler(Quiet, BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
                spans.extend(_spans(request))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        super().__init__(Handler)

    def one(self, what: Callable[[CollectedSpan], bool]) -> CollectedSpan:
        """The only span of that sort, once it has come."""
        wait_until(lambda: any(map(what, list(self.spans))), 20, "a span")
        found = [span for span in self.spans if what(span)]
        assert len(found) == 1, found
        return found[0]


def _spans(request: ExportTraceServiceRequest) -> list[CollectedSpan]:
    return [
        CollectedSpan(
            service=_attributes(resource.resource.attributes)["service.name"],
            name=span.name,
            kind=span.kind,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            attributes=_attributes(span.attributes),
            links=[link.span_id.hex() for link in span.links],
            status=span.status.code,
            message=span.status.message,
            events=[(event.name, _attributes(event.attributes)) for event in span.events],
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
