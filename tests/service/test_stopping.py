"""Stopping: in good order at the first signal, at once at the second, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from parvis.transport.base import Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, broker_environment, process_of, recipe_message
from sample_services import Multiplier, PatientGatherer, Sleeper
from waiting import wait_until

SIGNALS = [signal.SIGTERM, signal.SIGINT]


def sleeping(directory: Path) -> tuple[Path, Path, Send]:
    started, go_on = directory / "started", directory / "go-on"
    return (
        started,
        go_on,
        recipe_message("sleep", {"started": str(started), "go-on": str(go_on)}),
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_the_message_in_hand_is_finished_and_the_rest_handed_back(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path, number: signal.Signals
) -> None:
    results = Listener(transport, "results")
    started, go_on, message = sleeping(tmp_path)
    transport.send(message, message, message)
    with process_of(Sleeper, broker.port) as process:
        wait_until(started.exists, 20, "the message to be in hand")
        process.send_signal(number)
        go_on.touch()
        assert process.wait(timeout=20) == 0
    results.wait_for(1)
    left = Listener(transport, "sleep")
    left.wait_for(2)
    assert len(results.messages) == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_the_process_at_once_and_the_message_comes_again(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path, number: signal.Signals
) -> None:
    started, _, message = sleeping(tmp_path)
    transport.send(message)
    with process_of(Sleeper, broker.port) as process:
        wait_until(started.exists, 20, "the message to be in hand")
        process.send_signal(number)
        # Two signals of a kind in one moment are one.
        wait_until(lambda: not _is_in(process.pid, "ShdPnd", number), 10, "the first signal to arrive")
        process.send_signal(number)
        assert process.wait(timeout=5) == -number
    Listener(transport, "sleep").wait_for(1)


def _is_in(process: int, signals: str, number: signal.Signals) -> bool:
    """Whether a signal is among those that the kernel lists for a process under a name, such as `SigCgt`."""
    status = Path(f"/proc/{process}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith(signals)).split()[1]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_an_open_batch_is_handled_at_the_end(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    results, log = Listener(transport, "results"), tmp_path / "log"
    transport.send(*[recipe_message("gather", {"number": number}) for number in (1, 2)])
    with process_of(PatientGatherer, broker.port, {"PARVIS_TEST_NOTE": str(log)}) as process:
        wait_until(lambda: log.exists() and log.read_text() == "12", 20, "the batch to be gathered")
        process.terminate()
        assert process.wait(timeout=20) == 0
    results.wait_for(1)
    assert results.payloads() == [{"numbers": [1, 2]}]


def test_a_backlog_is_handled_once_though_the_service_is_stopped_again_and_again(
    broker: BrokerThread, transport: StompTransport
) -> None:
    """What was in the open group is committed before the process ends."""
    results = Listener(transport, "results")
    transport.send(*[recipe_message("multiply", {"number": number}) for number in range(1000, 1800)])
    for _ in range(4):
        before = len(results.messages)
        with process_of(Multiplier, broker.port) as process:
            # Results of the process before may come late, and be taken for those of this one.
            pid = process.pid
            wait_until(lambda pid=pid: _is_in(pid, "SigCgt", signal.SIGTERM), 20, "it to heed signals")
            wait_until(lambda before=before: len(results.messages) > min(before, 799), 20, "more results")
            process.terminate()
            assert process.wait(timeout=20) == 0
    with process_of(Multiplier, broker.port):
        results.wait_for(800, timeout=60)
    assert sorted(payload["number"] for payload in results.payloads()) == list(range(2000, 3600, 2))


@contextmanager
def supervised(port: int, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "parvis", *arguments],
            env=os.environ | broker_environment(port),
            stdout=file,
            stderr=file,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def children_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize(
    "arguments", [("up", "NotifyGDA=2"), ("service", "-s", "NotifyGDA", "--workers", "2")]
)
def test_a_supervisor_ends_in_good_order(
    broker: BrokerThread, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    log = tmp_path / "log"
    with supervised(broker.port, log, *arguments) as supervisor:
        wait_until(lambda: log.read_text().count("ready: NotifyGDA") == 2, 30, "two services")
        children = children_of(supervisor)
        supervisor.terminate()
        assert supervisor.wait(timeout=30) == 0
    assert len(children) == 2
    assert not any(child.is_running() for child in children)
    assert "Traceback" not in log.read_text()


def test_the_second_signal_ends_a_supervisor_and_all_its_processes_at_once(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    started, _, message = sleeping(tmp_path)
    log = tmp_path / "log"
    script = tmp_path / "supervise.py"
    script.write_text(
        "import sys\n"
        "from parvis.service.supervisor import Supervisor, stop_supervisor_on_signals\n"
        "from running import _RUN_SERVICE\n"
        "command = [sys.executable, '-c', _RUN_SERVICE, 'sample_services', 'Sleeper']\n"
        "supervisor = Supervisor([('sleeper', command)])\n"
        "stop_supervisor_on_signals(supervisor)\n"
        "supervisor.run()\n"
    )
    transport.send(message)
    environment = os.environ | broker_environment(broker.port)
    with log.open("wb") as file:
        supervisor = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=file)
    try:
        wait_until(started.exists, 30, "the message to be in hand")
        children = children_of(supervisor)
        supervisor.terminate()
        wait_until(lambda: not _is_in(supervisor.pid, "ShdPnd", signal.SIGTERM), 10, "the signal to arrive")
        supervisor.terminate()
        assert supervisor.wait(timeout=5) == -signal.SIGTERM
        wait_until(lambda: not any(child.is_running() for child in children), 5, "the end of the service")
    finally:
        supervisor.kill()
        supervisor.wait()
    assert len(children) == 1
