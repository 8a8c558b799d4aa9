"""`parvis service --single-message`: one message, and an exit code that says what came of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from parvis.transport.base import Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, broker_environment, recipe_message


def run(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parvis", "service", *arguments],
        env=os.environ | broker_environment(port),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def line(file: Path, number: int) -> Send:
    return recipe_message("jsonlines", {"n": number}, parameters={"output_filename": str(file)})


def test_exactly_one_message_is_handled(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    file = tmp_path / "lines.jsonl"
    transport.send(*[line(file, number) for number in range(3)])
    for count in (1, 2):
        done = run(broker.port, "-s", "JSONLines", "--single-message")
        assert done.returncode == 0, done.stderr
        assert len(file.read_text().splitlines()) == count
    left = Listener(transport, "jsonlines")
    left.wait_for(1)
    assert left.payloads() == [{"n": 2}]


def test_a_message_that_is_rejected_is_a_failure(broker: BrokerThread, transport: StompTransport) -> None:
    letters = Listener(transport, "DLQ.test.jsonlines")
    transport.send(recipe_message("jsonlines", {"n": 1}))
    done = run(broker.port, "-s", "JSONLines", "--single-message")
    assert done.returncode == 1
    assert "not done (reject): parameters" in done.stderr
    letters.wait_for(1)


def test_no_message_is_a_failure(broker: BrokerThread) -> None:
    done = run(broker.port, "-s", "JSONLines", "--single-message", "--wait", "0.2")
    assert done.returncode == 1
    assert "No message was handled within 0.2 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_who_is_told_to_stop_before_a_message_comes_says_so(broker: BrokerThread) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "parvis", "service", "-s", "JSONLines", "--single-message", "--wait", "60"],
        env=os.environ | broker_environment(broker.port),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr
        assert any("ready:" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 1
    assert "No message was handled before it was told to stop" in said


@pytest.mark.parametrize(
    "arguments", [["--single-message", "--workers", "2"], ["--single-message", "-r"], ["--wait", "3"]]
)
def test_what_does_not_go_together_is_said(arguments: list[str]) -> None:
    done = run(1, "-s", "JSONLines", *arguments)
    assert done.returncode == 2
    assert "--single-message" in done.stderr
