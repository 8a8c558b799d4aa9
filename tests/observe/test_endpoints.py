"""Liveness and readiness: what whoever looks after a service is told."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from parvis.config import Config, ConfigError
from parvis.observe.endpoints import Endpoints
from parvis.observe.liveness_settings import liveness_settings
from parvis.transport.embedded.thread import BrokerThread
from running import (
    Listener,
    broker_environment,
    connected,
    hosted,
    process_of,
    recipe_message,
)
from sample_services import Multiplier, Sleeper, SlowStarter
from waiting import wait_until


def ask(port: int | None, path: str) -> tuple[int, str]:
    """The status and the text of an answer; 0 if there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()
    except OSError:
        return 0, ""


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    """Ten seconds are what a service may take."""
    served = Endpoints(10)
    served.serve(0, "127.0.0.1")
    yield served
    served.stopped()


class BoundedSleeper(Sleeper):
    """Takes its time, and may."""

    name: ClassVar[str] = "BoundedSleeper"
    time_limit: ClassVar[float | None] = 20


def sleeping(tmp_path: Path) -> dict[str, str]:
    return {"started": str(tmp_path / "started"), "go-on": str(tmp_path / "go-on")}


def test_a_service_is_alive_and_ready(broker: BrokerThread, endpoints: Endpoints) -> None:
    assert ask(endpoints.port, "/healthz") == (200, "starting")
    assert ask(endpoints.port, "/readyz") == (503, "starting")
    with hosted(broker.port, Multiplier, observers=[endpoints]):
        wait_until(lambda: ask(endpoints.port, "/readyz") == (200, "taking messages"), 10, "it is ready")
        for path in ("/healthz", "/livez", "/", "/healthz?verbose"):
            assert ask(endpoints.port, path) == (200, "running")
        assert ask(endpoints.port, "/metrics") == (404, "There are /healthz and /readyz.")
        assert endpoints.card() == {"liveness": endpoints.port}
    assert ask(endpoints.port, "/healthz") == (0, "")


def test_probes_that_ask_for_the_head_alone(endpoints: Endpoints) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", endpoints.port or 0, timeout=5)
    connection.request("HEAD", "/readyz")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (503, b"")
    assert answer.headers["Server"] == "parvis"
    connection.close()


def test_a_client_that_says_nothing_holds_nobody_up(endpoints: Endpoints) -> None:
    with socket.create_connection(("127.0.0.1", endpoints.port or 0)):
        assert ask(endpoints.port, "/healthz") == (200, "starting")


def test_a_handler_without_limit_is_stuck_after_the_timeout(broker: BrokerThread, tmp_path: Path) -> None:
    endpoints = Endpoints(0.5)
    endpoints.serve(0, "127.0.0.1")
    with hosted(broker.port, Sleeper, observers=[endpoints]), connected(broker.port) as transport:
        results = Listener(transport, "results")
        transport.send(recipe_message("sleep", sleeping(tmp_path)))
        wait_until((tmp_path / "started").exists, 10, "the handling begins")
        wait_until(lambda: ask(endpoints.port, "/healthz")[0] == 503, 20, "it counts as stuck")
        text = ask(endpoints.port, "/healthz")[1]
        assert re.fullmatch(r"stuck: Sleeper is handling for \d+ s \(limit 0\.5 s\)", text)
        (tmp_path / "go-on").touch()
        results.wait_for(1)
        wait_until(lambda: ask(endpoints.port, "/healthz") == (200, "running"), 20, "it is well again")


@pytest.mark.parametrize("where", ["service", "node"])
def test_a_handler_is_alive_within_its_own_limit(broker: BrokerThread, tmp_path: Path, where: str) -> None:
    endpoints = Endpoints(0.2)
    endpoints.serve(0, "127.0.0.1")
    service, node = (BoundedSleeper, {}) if where == "service" else (Sleeper, {"timeout": 20})
    with hosted(broker.port, service, observers=[endpoints]), connected(broker.port) as transport:
        transport.send(recipe_message("sleep", sleeping(tmp_path), **node))
        wait_until((tmp_path / "started").exists, 10, "the handling begins")
        begun = time.monotonic()
        said: list[tuple[int, str]] = []
        wait_until(
            lambda: said.append(ask(endpoints.port, "/healthz")) or time.monotonic() > begun + 1,
            20,
            "a while",
        )
        assert {status for status, _ in said} == {200}
        assert said[-1][1] == "BoundedSleeper is handling for 1 s (limit 30.2 s)".replace(
            "BoundedSleeper", service.name
        )
        (tmp_path / "go-on").touch()


def test_without_a_broker_a_service_is_alive_and_not_ready(broker: BrokerThread) -> None:
    endpoints = Endpoints(0.2)
    endpoints.serve(0, "127.0.0.1")
    with hosted(broker.port, Multiplier, observers=[endpoints]):
        wait_until(lambda: ask(endpoints.port, "/readyz")[0] == 200, 10, "it is ready")
        broker.stop()
        away = (503, "no connection to the broker")
        wait_until(lambda: ask(endpoints.port, "/readyz") == away, 10, "it notices")
        assert ask(endpoints.port, "/healthz")[0] == 200


def test_while_it_starts_it_is_alive_and_not_ready(broker: BrokerThread, tmp_path: Path) -> None:
    file = tmp_path / "ready"
    port = free_port()
    environment = {"SLOW_STARTER": str(file), "PARVIS_LIVENESS_PORT": str(port)}
    with process_of(SlowStarter, broker.port, environment):
        wait_until(lambda: ask(port, "/healthz") == (200, "starting"), 20, "it starts")
        assert ask(port, "/readyz") == (503, "starting")
        file.touch()
        wait_until(lambda: ask(port, "/readyz")[0] == 200, 10, "it is ready")


def test_sigterm_makes_it_unready_while_it_finishes_its_message(broker: BrokerThread, tmp_path: Path) -> None:
    port = free_port()
    with (
        connected(broker.port) as transport,
        process_of(Sleeper, broker.port, {"PARVIS_LIVENESS_PORT": str(port)}) as process,
    ):
        results = Listener(transport, "results")
        transport.send(recipe_message("sleep", sleeping(tmp_path)))
        wait_until((tmp_path / "started").exists, 20, "the handling begins")
        assert ask(port, "/readyz")[0] == 200
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(port, "/readyz") == (503, "stopping"), 20, "it takes no more")
        assert ask(port, "/healthz")[0] == 200
        (tmp_path / "go-on").touch()
        results.wait_for(1)
        assert process.wait(20) == 0


def test_a_stopped_process_does_not_answer(broker: BrokerThread) -> None:
    port = free_port()
    with process_of(Multiplier, broker.port, {"PARVIS_LIVENESS_PORT": str(port)}) as process:
        wait_until(lambda: ask(port, "/healthz")[0] == 200, 20, "it is alive")
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=0.5)


def test_several_on_one_machine_take_the_next_port_and_say_which(
    broker: BrokerThread, endpoints: Endpoints
) -> None:
    second = Endpoints(10)
    second.serve(endpoints.port or 0, "127.0.0.1")
    try:
        assert endpoints.port is not None
        assert second.port is not None
        assert endpoints.port < second.port < endpoints.port + 100
        assert ask(second.port, "/healthz")[0] == 200
    finally:
        second.stopped()


def test_the_flags_of_the_command(broker: BrokerThread) -> None:
    port = free_port()
    command = [sys.executable, "-m", "parvis", "service", "-s", "Join", "--liveness"]
    command += ["--liveness-port", str(port), "--liveness-timeout", "5"]
    with subprocess.Popen(command, env=os.environ | broker_environment(broker.port)) as process:
        try:
            wait_until(lambda: ask(port, "/readyz") == (200, "taking messages"), 30, "it is ready")
        finally:
            process.terminate()
        assert process.wait(20) == 0


def test_a_service_of_workflows_answers_when_its_loop_comes_round(
    broker: BrokerThread, tmp_path: Path
) -> None:
    pytest.importorskip("workflows")
    port = free_port()
    command = [sys.executable, "-m", "parvis", "service", "-s", "workflows_services:Dawdler"]
    command += ["--liveness-port", str(port), "--liveness-timeout", "1"]
    with (
        connected(broker.port) as transport,
        subprocess.Popen(command, env=os.environ | broker_environment(broker.port)) as process,
    ):
        try:
            wait_until(lambda: ask(port, "/readyz") == (200, "taking messages"), 30, "it is ready")
            assert ask(port, "/healthz") == (200, "running")
            transport.send(recipe_message("site.dawdle", sleeping(tmp_path)))
            wait_until((tmp_path / "started").exists, 10, "the handling begins")
            wait_until(lambda: ask(port, "/healthz")[0] == 503, 10, "it counts as stuck")
            (tmp_path / "go-on").touch()
            wait_until(lambda: ask(port, "/healthz")[0] == 200, 10, "it is well again")
        finally:
            process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ({"parvis.liveness.port": "99999"}, "parvis.liveness.port .* must be a port"),
        ({"parvis.liveness.port": 1, "parvis.liveness.timeout": "soon"}, "must be seconds above 0"),
        ({"parvis.liveness.port": 1, "parvis.liveness.timeout": 0}, "must be seconds above 0"),
    ],
)
def test_wrong_settings(storage: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        liveness_settings(Config(storage=storage))


def test_nothing_is_served_unless_asked_for() -> None:
    assert liveness_settings(Config()) is None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
