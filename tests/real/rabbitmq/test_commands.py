"""The commands of Parvis with RabbitMQ, chosen by variables alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from inbox import Inbox
from parvis.cli import main
from parvis.transport.amqp import AmqpTransport
from real.rabbitmq.vhost import VirtualHost
from waiting import wait_until

pytestmark = pytest.mark.real("rabbitmq")


@pytest.fixture(autouse=True)
def _site(unconfigured: None, vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARVIS_FALLBACK_LOCATION", str(tmp_path / "drop"))
    for name, value in vhost.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def transport(vhost: VirtualHost) -> Iterator[AmqpTransport]:
    """A connected transport."""
    transport = vhost.transport()
    transport.connect(10)
    yield transport
    transport.disconnect()


@pytest.fixture
def dispatcher(vhost: VirtualHost, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`parvis service -s Dispatcher`, which makes its queue itself."""
    command = [sys.executable, "-m", "parvis", "service", "-s", "Dispatcher"]
    log = tmp_path / "dispatcher.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: b"ready" in log.read_bytes(), 30, "the dispatcher")
        assert f"connecting to the broker at 127.0.0.1:{vhost.server.port}" in log.read_text()
        yield process
    finally:
        process.terminate()
        assert process.wait(20) == 0, log.read_text()


def recipe(directory: Path) -> Path:
    file = directory / "recipe.json"
    node = {"queue": "results", "parameters": {"word": "{word}"}}
    file.write_text(json.dumps({"1": node, "start": [[1, {"asked": True}]]}))
    return file


@pytest.mark.usefixtures("dispatcher")
def test_recipe_is_started(vhost: VirtualHost, transport: AmqpTransport, tmp_path: Path) -> None:
    inbox = Inbox()
    transport.subscribe("results", inbox)
    result = CliRunner().invoke(main, ["go", "-f", str(recipe(tmp_path)), "-n", "-s", "word=spam"])
    assert result.exit_code == 0, result.output
    message = inbox.get(20)
    assert message.headers["workflows-recipe"] == "True"
    assert message.headers["parvis-id"] == message.message_id
    content = json.loads(message.body)
    assert content["payload"] == {"asked": True}
    assert content["recipe"]["1"]["parameters"] == {"word": "spam"}


@pytest.mark.usefixtures("dispatcher")
def test_who_waits_hears_what_went_wrong() -> None:
    result = CliRunner().invoke(main, ["go", "-r", "no-such-recipe", "12", "--wait=30"])
    assert result.exit_code == 1, result.output
    assert "no-such-recipe" in result.stderr


def test_queue_that_is_missing_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["go", "-r", "anything", "12"])
    assert "there is no queue processing_recipe; `parvis rabbitmq configure` makes it" in result.stderr
    assert len(list((tmp_path / "drop").iterdir())) == 1


def test_wrong_password_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARVIS_RABBITMQ_PASSWORD", "wr0ng")
    result = CliRunner().invoke(main, ["service", "-s", "Dispatcher"])
    assert result.exit_code == 2
    assert "refused the log-in of 'parvis'" in result.stderr
    assert "wr0ng" not in result.output
