"""Traces: one through services of ours and of `workflows`, read by a collector from what it is sent."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import orjson
import pytest
from pydantic import BaseModel, RootModel

import workflows_peer
from collector import CollectedSpan, Collector
from parvis.config import Config, OpenTelemetrySettings
from parvis.observe.logs import set_up_logging
from parvis.observe.tracing import Tracing
from parvis.observe.tracing_settings import tracing_settings
from parvis.recipe.envelope import RECIPE_HEADER, dump_json
from parvis.service.base import Service, Step
from parvis.service.contract import Anything, Outputs
from parvis.service.handling import Outcome
from parvis.service.host import Host
from parvis.service.observer import Handled
from parvis.service.observers import default_observers
from parvis.transport.base import Message, Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, broker_environment, connected, hosted, in_thread, recipe_message
from sample_services import Gatherer, Multiplier
from waiting import wait_until

PRODUCER, CONSUMER = 4, 5  # kinds of spans, as OTLP numbers them
ERROR = 2
TRACE, BEGIN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{BEGIN}-01"


class Whole(RootModel[int]):
    """A number."""


class Adder(Service[Whole, Anything]):
    """Adds one, and logs it."""

    name: ClassVar[str] = "Adder"
    queue: ClassVar[str] = "t.add"
    Payload: ClassVar[type[BaseModel]] = Whole
    outputs: ClassVar[Outputs] = {"sum": None}
    default_output: ClassVar[str | None] = "sum"

    def process(self, payload: Whole, step: Step[Anything]) -> None:
        self.log.info("adding one to %d", payload.root)
        step.send("sum", payload.root + 1)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that everything is told of by OpenTelemetry's variables."""
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield running


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged, as JSON, one object a line."""
    root = logging.getLogger()
    handlers, level, filters = root.handlers[:], root.level, [handler.filters[:] for handler in root.handlers]
    stream = io.StringIO()
    set_up_logging(Config(log_format="json"), stream)
    yield stream
    set_up_logging(Config(), io.StringIO())
    root.handlers[:] = handlers
    for handler, known in zip(handlers, filters, strict=True):
        handler.filters[:] = known
    root.setLevel(level)


def of(service: str, **attributes: Any) -> Callable[[CollectedSpan], bool]:
    """Whether a span is of that service and has these attributes."""
    wanted = {name.replace("__", "."): value for name, value in attributes.items()}
    return lambda span: span.service == service and wanted.items() <= span.attributes.items()


def context(message: Message) -> tuple[str, str]:
    """The trace and span that a message says it comes from."""
    _, trace, span, _ = message.headers["traceparent"].split("-")
    return trace, span


def test_one_trace_goes_through_ours_and_theirs(collector: Collector, broker: BrokerThread):
    recipe = {
        "1": {"queue": "t.add", "output": 2, "parameters": {"dcid": "993677"}},
        "2": {"queue": "t.double", "output": 3},
        "3": {"queue": "t.add", "output": 4},
        "4": {"queue": "results"},
        "start": [[1, []]],
    }
    body = {
        "recipe": recipe,
        "recipe-pointer": 1,
        "recipe-path": [],
        "environment": {"ID": "abc"},
        "payload": 1,
    }
    peer = subprocess.Popen(
        [sys.executable, workflows_peer.__file__, str(broker.port), f"{collector.url}/v1/traces"]
    )
    transports = [StompTransport([("127.0.0.1", broker.port)], "", "", "") for _ in range(2)]
    try:
        with in_thread(Host(transports[0], [Adder(Config())])):
            transports[1].connect()
            results = Listener(transports[1], "results")
            transports[1].send(Send("t.add", dump_json(body), {RECIPE_HEADER: "True", "traceparent": PARENT}))
            (message,) = results.wait_for(1)
        assert orjson.loads(message.body)["payload"] == 5
        first = collector.one(of("Adder", parvis__recipe__node=1))
        taken = collector.one(lambda span: span.name == "transport.subscribe")
        sent = collector.one(lambda span: span.name == "transport.send")
        last = collector.one(of("Adder", parvis__recipe__node=3))
    finally:
        peer.terminate()
        peer.wait()
        transports[1].disconnect()
    assert taken.service == sent.service == "Doubler"
    chain = (first, taken, sent, last)
    assert {span.trace for span in chain} == {TRACE}
    assert [span.parent for span in chain] == [BEGIN, first.id, taken.id, sent.id]
    assert context(message) == (last.trace, last.id)


def test_span_tells_of_message_and_recipe(collector: Collector, broker: BrokerThread):
    message = recipe_message("multiply", {"number": 4}, parameters={"dcid": "993677"})
    with hosted(broker.port, Multiplier), connected(broker.port) as transport:
        transport.send(message)
        span = collector.one(of("Multiplier"))
    assert (span.name, span.kind, span.status, span.parent) == ("process multiply", CONSUMER, 0, "")
    assert (
        span.attributes.items()
        >= {
            "messaging.system": "stomp",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "test.multiply",
            "messaging.message.body.size": len(message.body),
            "parvis.service": "Multiplier",
            "parvis.recipe.id": "test-recipe",
            "parvis.recipe.node": 1,
            "parvis.redelivered": False,
            "parvis.result": "done",
            "dcid": 993677,
        }.items()
    )
    assert span.attributes["messaging.message.id"]


def test_reason_of_a_failure_is_told(collector: Collector, broker: BrokerThread):
    with hosted(broker.port, Multiplier), connected(broker.port) as transport:
        dead = Listener(transport, "DLQ.test.multiply")
        transport.send(recipe_message("multiply", {"number": 13}))
        transport.send(recipe_message("multiply", {"number": 15}))
        (letter,) = dead.wait_for(1)
        rejected = collector.one(of("Multiplier", parvis__result="reject"))
        failed = collector.one(of("Multiplier", parvis__result="fail"))
    assert (rejected.status, rejected.message) == (ERROR, "13 is no good")
    assert context(letter) == (rejected.trace, rejected.id)
    assert (failed.status, failed.message) == (ERROR, "ZeroDivisionError: 15 is a surprise")
    ((name, exception),) = failed.events
    assert (name, exception["exception.type"]) == ("exception", "ZeroDivisionError")
    assert "sample_services.py" in exception["exception.stacktrace"]


def test_what_is_not_confirmed_is_told(collector: Collector, broker: BrokerThread):
    service = Multiplier(Config())
    message = Message("multiply", b"{}", {}, "a", 1)
    settings = tracing_settings(service.config)
    assert settings is not None
    tracing = Tracing(settings)
    with connected(broker.port) as transport:
        tracing.started(transport, [service])
        with tracing.handling(service, [message]):
            pass
        tracing.uncommitted([Handled(service, message, Outcome("done"), 0.0)], "the connection was lost")
        span = collector.one(of("Multiplier"))
        tracing.stopped()
    assert (span.status, span.message) == (ERROR, "not confirmed: the connection was lost")


def test_batch_is_linked_to_its_messages(collector: Collector, broker: BrokerThread):
    headers = {"traceparent": PARENT}
    messages = [recipe_message("gather", {"number": number}) for number in range(5)]
    with connected(broker.port) as transport:
        results = Listener(transport, "results")
        transport.send(*(replace(message, headers={**message.headers, **headers}) for message in messages))
        with hosted(broker.port, Gatherer):
            (result,) = results.wait_for(1)
        batch = collector.one(of("Gatherer", messaging__batch__message_count=5))
    spans = [span for span in collector.spans if span is not batch]
    assert batch.links == 5 * [BEGIN]
    assert len(spans) == 5
    assert {(span.trace, span.parent) for span in spans} == {(TRACE, BEGIN)}
    assert all(span.links == [batch.id] for span in spans)
    assert context(result) in {(span.trace, span.id) for span in spans}


def test_log_records_tell_the_trace(collector: Collector, broker: BrokerThread, log: io.StringIO):
    with hosted(broker.port, Adder), connected(broker.port) as transport:
        transport.send(recipe_message("t.add", 1), recipe_message("t.add", "one"))
        span = collector.one(of("Adder", parvis__result="done"))
        rejected = collector.one(of("Adder", parvis__result="reject"))
    records = [json.loads(line) for line in log.getvalue().splitlines()]
    (record,) = [record for record in records if record["message"] == "adding one to 1"]
    assert (record["trace_id"], record["span_id"]) == (span.trace, span.id)
    (record,) = [record for record in records if record["message"].startswith("set aside")]
    assert (record["trace_id"], record["span_id"]) == (rejected.trace, rejected.id)
    assert all("trace_id" not in record for record in records if record["message"].startswith("ready"))


def test_go_starts_the_trace(collector: Collector, broker: BrokerThread):
    with connected(broker.port) as transport:
        requests = Listener(transport, "processing_recipe")
        done = subprocess.run(
            [sys.executable, "-m", "parvis", "go", "-n", "-r", "something"],
            env=os.environ | broker_environment(broker.port),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        (request,) = requests.wait_for(1)
    span = collector.one(of("parvis go"))
    assert (span.name, span.kind, span.parent) == ("send processing_recipe", PRODUCER, "")
    assert context(request) == (span.trace, span.id)


@pytest.fixture(params=["refuses", "is silent"])
def absent_collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A collector that does not do its work: nobody is there, or whoever is there does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        if request.param == "refuses":
            server.close()
        yield


@pytest.mark.usefixtures("absent_collector")
def test_collector_that_is_away_costs_go_nothing(broker: BrokerThread):
    with connected(broker.port) as transport:
        requests = Listener(transport, "processing_recipe")
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "parvis", "go", "-n", "-r", "something"],
            env=os.environ | broker_environment(broker.port),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert time.monotonic() - began < 6  # the library itself would try for 10 s
        (request,) = requests.wait_for(1)
        assert "traceparent" in request.headers


@pytest.mark.usefixtures("absent_collector")
def test_collector_that_is_away_costs_a_service_nothing(broker: BrokerThread):
    with connected(broker.port) as transport:
        results = Listener(transport, "results")
        with hosted(broker.port, Adder):
            for number in range(1, 4):
                transport.send(recipe_message("t.add", number, output=2))
            results.wait_for(3, timeout=5)
            leaving = time.monotonic()
    assert time.monotonic() - leaving < 6


def is_sending() -> bool:
    """Whether a service that has ended still tries to send its traces."""
    return any(thread.name.startswith(("traces", "OtelBatch")) for thread in threading.enumerate())


@pytest.fixture
def nobody_else_sends() -> None:
    """The services of other tests have given their collectors up."""
    wait_until(lambda: not is_sending(), 60, "them to give up")


@pytest.mark.usefixtures("nobody_else_sends")
def test_collector_that_is_away_is_told_of_once(
    broker: BrokerThread, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
):
    with Collector() as away:
        pass
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", away.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with connected(broker.port) as transport:
        results = Listener(transport, "results")
        with hosted(broker.port, Adder):
            for number in range(1, 4):
                transport.send(recipe_message("t.add", number, output=2))
                results.wait_for(number)
                wait_until(lambda: "collector" in log.getvalue(), 20, "the warning")
    records = [json.loads(line) for line in log.getvalue().splitlines()]
    (warning,) = [record for record in records if record["level"] == "WARNING"]
    assert warning["message"] == "the collector of traces takes none; they are dropped until it does"
    assert sum(record["message"].startswith("adding one") for record in records) == 3


def test_off_by_default():
    assert tracing_settings(Config()) is None
    assert not any("Tracing" in type(observer).__name__ for observer in default_observers(Config()))


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318/v1/traces"}, True),
        ({"OTEL_SERVICE_NAME": "somebody"}, False),
    ],
)
def test_standard_variables_switch_it(variables: dict[str, str], on: bool, monkeypatch: pytest.MonkeyPatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (tracing_settings(Config()) is not None) is on


def test_plugin_switches_it_on_and_variables_count_more(monkeypatch: pytest.MonkeyPatch):
    collector = OpenTelemetrySettings("otel.example", 4318)
    config = Config(opentelemetry=collector)
    settings = tracing_settings(config)
    assert settings is not None
    assert settings.collector == collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    settings = tracing_settings(config)
    assert settings is not None
    assert settings.collector is None
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert tracing_settings(config) is None


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "jaeger"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_what_is_not_there_is_told(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(name, value)
    assert tracing_settings(Config()) is None
    assert f"no traces: {name} is '{value}'" in caplog.text
