"""Metrics: what Prometheus is told of a host."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from parvis.config import Config, ConfigError
from parvis.observe.metrics import Metrics, start_metrics
from parvis.service.flow import FlowControl
from parvis.service.flow_limits import Limits
from parvis.service.host import Host
from parvis.service.identity import FIRST_SEEN
from parvis.transport.base import Message, Transport
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from real.activemq.server import ActiveMQ
from real.daemon import free_ports
from real.rabbitmq.vhost import VirtualHost
from running import (
    Listener,
    broker_environment,
    connected,
    hosted,
    in_thread,
    recipe_message,
    transport_to,
)
from sample_services import Gatherer, Multiplier, Sleeper
from waiting import wait_until


class Scrape:
    """What Prometheus reads at an address, by name and labels."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        self.samples = [s for family in text_string_to_metric_families(text) for s in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name which have these labels."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    gathered = Metrics()
    gathered.serve(0)
    yield gathered
    gathered.stopped()


def scrape(metrics: Metrics) -> Scrape:
    assert metrics.port is not None
    return Scrape(metrics.port)


def test_every_end_of_a_message_is_counted(broker: BrokerThread, metrics: Metrics):
    with hosted(broker.port, Multiplier, observers=[metrics]), connected(broker.port) as transport:
        dead = Listener(transport, "DLQ.test.multiply")
        for number in (1, 2, 3, 13, 14):
            transport.send(recipe_message("multiply", {"number": number}))
        dead.wait_for(2)  # 13 at once, 14 after its retries
        wait_until(lambda: scrape(metrics).value("parvis_messages_total") == 8, 5, "all are counted")
    # The host has ended, and with it the endpoint; so look at what was gathered.
    value = metrics.registry.get_sample_value
    place = {"service": "Multiplier", "queue": "multiply"}
    results = {
        result: value("parvis_messages_total", {**place, "result": result})
        for result in ("done", "rejected", "retried", "failed")
    }
    assert results == {"done": 3, "rejected": 1, "retried": 4, "failed": None}
    assert value("parvis_retries_total", place) == 3
    assert value("parvis_dead_letters_total", place) == 2
    assert value("parvis_handling_seconds_count", place) == 8
    assert value("parvis_commit_messages_sum") == 8
    assert 1 <= (value("parvis_commit_messages_count") or 0) <= 8
    assert value("parvis_commit_seconds_count") == value("parvis_commit_messages_count")


def test_batches_are_counted_by_message_and_by_transaction(broker: BrokerThread, metrics: Metrics):
    with connected(broker.port) as transport:
        results = Listener(transport, "results")
        transport.send(*(recipe_message("gather", {"number": number}) for number in range(5)))
        with hosted(broker.port, Gatherer, observers=[metrics]):
            results.wait_for(1)
            wait_until(lambda: scrape(metrics).value("parvis_messages_total") == 5, 5, "all are counted")
            now = scrape(metrics)
    assert now.value("parvis_messages_total", service="Gatherer", queue="gather", result="done") == 5
    assert now.value("parvis_commit_messages_count") == 1
    assert now.value("parvis_commit_messages_sum") == 5


def test_latency_is_measured_since_the_recipe_was_asked_for(broker: BrokerThread, metrics: Metrics):
    ago = str(round(time.time() * 1000) - 90_000)
    message = recipe_message("multiply", {"number": 1})
    with hosted(broker.port, Multiplier, observers=[metrics]), connected(broker.port) as transport:
        transport.send(replace(message, headers={**message.headers, FIRST_SEEN: ago}))
        transport.send(replace(message, headers={**message.headers, FIRST_SEEN: "long ago"}))
        wait_until(lambda: scrape(metrics).value("parvis_messages_total") == 2, 5, "both are counted")
        now = scrape(metrics)
    assert now.value("parvis_latency_seconds_count", queue="multiply") == 1
    assert 90 <= now.value("parvis_latency_seconds_sum") < 100
    assert now.value("parvis_latency_seconds_bucket", le="60.0") == 0
    assert now.value("parvis_latency_seconds_bucket", le="120.0") == 1


def test_time_in_the_queue_is_that_since_the_broker_had_it(broker: BrokerThread, metrics: Metrics):
    check_time_in_queue(lambda: transport_to(broker.port), metrics)


@pytest.mark.real("activemq")
def test_time_in_the_queue_on_activemq(activemq: ActiveMQ, metrics: Metrics):
    host, login = [(activemq.host, activemq.port)], (activemq.username, activemq.password)
    check_time_in_queue(lambda: StompTransport(host, *login, "metrics"), metrics)


@pytest.mark.real("rabbitmq")
def test_time_in_the_queue_on_rabbitmq(vhost: VirtualHost, metrics: Metrics):
    vhost.make_queues("multiply", "results")
    check_time_in_queue(vhost.transport, metrics)


def check_time_in_queue(make: Callable[[], Transport], metrics: Metrics) -> None:
    sender = make()
    sender.connect()
    begun = time.monotonic()
    sender.send(recipe_message("multiply", {"number": 1}))
    sender.send(replace(recipe_message("multiply", {"number": 2}), delay=2))
    sender.disconnect()
    sent = time.monotonic()
    wait_until(lambda: time.monotonic() - sent > 0.3, 5, "a time in the queue")
    with in_thread(Host(make(), [Multiplier(Config())], observers=[metrics])):
        wait_until(lambda: scrape(metrics).value("parvis_messages_total") >= 1, 10, "the first is counted")
        at_most = time.monotonic() - begun
        wait_until(lambda: scrape(metrics).value("parvis_messages_total") == 2, 10, "both are counted")
        now = scrape(metrics)
    # The delay was asked for: it is no time in the queue. And RabbitMQ leaves out the parts of a second.
    assert now.value("parvis_queue_seconds_count", queue="multiply") == 1
    assert 0.3 <= now.value("parvis_queue_seconds_sum") <= at_most + 1


def test_lost_connection_is_counted(metrics: Metrics):
    (port,) = free_ports(1)
    with BrokerThread(port=port):
        thread = in_thread(Host(transport_to(port), [Multiplier(Config())], observers=[metrics]))
        thread.__enter__()
        wait_until(lambda: scrape(metrics).value("parvis_connected") == 1, 5, "a connection")
        assert scrape(metrics).value("parvis_reconnections_total") == 0
    wait_until(lambda: scrape(metrics).value("parvis_connected") == 0, 5, "the loss of the connection")
    with BrokerThread(port=port):
        wait_until(lambda: scrape(metrics).value("parvis_connected") == 1, 20, "a connection again")
        assert scrape(metrics).value("parvis_reconnections_total") == 1
        thread.__exit__(None, None, None)


def test_scrape_is_answered_while_a_service_computes(broker: BrokerThread, metrics: Metrics, tmp_path: Path):
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    with hosted(broker.port, Sleeper, observers=[metrics]), connected(broker.port) as transport:
        transport.send(recipe_message("sleep", {"started": str(started), "go-on": str(go_on)}))
        wait_until(started.exists, 5, "the service is at work")
        during = scrape(metrics)
        go_on.touch()
        wait_until(lambda: scrape(metrics).value("parvis_messages_total") == 1, 5, "it is counted")
    assert during.value("parvis_messages_total") == 0
    assert during.value("process_resident_memory_bytes") > 1e6
    assert during.value("parvis_info") == 1


def test_status_card_tells_the_port(broker: BrokerThread, metrics: Metrics):
    with connected(broker.port) as transport:
        cards: list[Message] = []
        transport.subscribe_broadcast("transient.status", cards.append)
        with hosted(broker.port, Multiplier, observers=[metrics]):
            wait_until(lambda: cards, 10, "a status card")
    assert orjson.loads(cards[0].body)["metrics"] == metrics.port


class Hurried(Sleeper):
    """Is handed several messages in advance."""

    prefetch: ClassVar[int] = 3


def test_messages_that_wait_here_are_counted(broker: BrokerThread, metrics: Metrics, tmp_path: Path):
    go_on = tmp_path / "go-on"
    with hosted(broker.port, Hurried, observers=[metrics]), connected(broker.port) as transport:
        for number in range(5):
            started = str(tmp_path / f"started-{number}")
            transport.send(recipe_message("sleep", {"started": started, "go-on": str(go_on)}))
        wait_until((tmp_path / "started-0").exists, 5, "the service is at work")
        wait_until(lambda: scrape(metrics).value("parvis_inbox_messages") == 2, 5, "the others to wait")
        go_on.touch()
        wait_until(lambda: scrape(metrics).value("parvis_messages_total") == 5, 5, "all are counted")
        assert scrape(metrics).value("parvis_inbox_messages") == 0


def test_what_error_nodes_are_told_of_is_no_dead_letter(broker: BrokerThread, metrics: Metrics):
    message = recipe_message("multiply", {"number": 13}, error=2)
    with hosted(broker.port, Multiplier, observers=[metrics]), connected(broker.port) as transport:
        told = Listener(transport, "results")
        transport.send(message)
        told.wait_for(1)
        wait_until(lambda: scrape(metrics).value("parvis_messages_total") == 1, 5, "it is counted")
        now = scrape(metrics)
    assert now.value("parvis_messages_total", result="rejected") == 1
    assert now.value("parvis_dead_letters_total") == now.value("parvis_retries_total") == 0


class Scatterer(Multiplier):
    """Sends many."""

    fan_outs: ClassVar[tuple[str, ...]] = ("result",)


def test_what_fan_outs_have_in_flight_is_told(broker: BrokerThread, metrics: Metrics):
    flow = FlowControl(Limits())
    with hosted(broker.port, Scatterer, observers=[flow, metrics]), connected(broker.port) as transport:
        transport.send(recipe_message("multiply", {"number": 4}))
        wait_until(
            lambda: scrape(metrics).value("parvis_flow", service="Multiplier", what="in-flight") == 1,
            5,
            "what the service has sent",
        )


def test_next_free_port_is_taken():
    first, second = Metrics(), Metrics()
    first.serve(0)
    assert first.port is not None
    second.serve(first.port)
    assert second.port is not None
    assert first.port < second.port < first.port + 100
    first.stopped()
    second.stopped()


def test_address_of_ip_version_6_is_told_as_in_a_browser(caplog: pytest.LogCaptureFixture):
    metrics = Metrics()
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IP version 6: {error}")
    with caplog.at_level("INFO", "parvis.metrics"):
        metrics.serve(0, "::1")
    metrics.stopped()
    assert caplog.messages == [f"metrics at http://[::1]:{metrics.port}/metrics"]


def test_port_and_address_are_configured():
    metrics = start_metrics(
        Config.load(overrides={"PARVIS_METRICS_PORT": "0", "PARVIS_METRICS_ADDRESS": "127.0.0.2"})
    )
    assert metrics.port is not None
    assert Scrape(metrics.port, "127.0.0.2").value("parvis_info") == 1
    with pytest.raises(OSError, match="refused"):
        Scrape(metrics.port)
    metrics.stopped()


@pytest.mark.parametrize("port", ["-1", "65536", "nine", "123456"])
def test_what_is_no_port_is_told(port: str):
    with pytest.raises(ConfigError, match=r"parvis\.metrics\.port .* must be a port from 0 to 65535"):
        _ = Config.load(overrides={"PARVIS_METRICS_PORT": port}).metrics_port


def test_address_that_is_not_ours_is_told():
    with pytest.raises(ConfigError, match=r"metrics cannot be served at 192\.0\.2\.1:9"):
        Metrics().serve(9, "192.0.2.1")


def test_supervised_instances_get_a_port_each(broker: BrokerThread):
    command = [sys.executable, "-m", "parvis", "service", "-s", "NotifyGDA", "--workers", "2"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        base = probe.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--metrics-port", str(base)],
        env=os.environ | broker_environment(broker.port),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    ports: set[int] = set()
    try:
        for line in process.stderr:
            found = re.search(r"metrics at http://127\.0\.0\.1:(\d+)/metrics", line)
            ports |= {int(found[1])} if found else set()
            if len(ports) == 2:
                break
        assert min(ports) >= base
        assert max(ports) < base + 100
        for port in ports:
            wait_until(lambda port=port: Scrape(port).value("parvis_connected") == 1, 10, "a connection")
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
