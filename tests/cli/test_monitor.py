"""`parvis monitor`, with an embedded broker and in a terminal of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from parvis.cli import main
from parvis.recipe.envelope import dump_json
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from running import broker_environment, connected

IDLE = {"host": "uk.example.vm1.11", "status": 2, "service": "Dispatcher", "zocalo": "1.5.0"}
NOBODY = {"host": "vm3.13", "status": -1}
BUSY = {"host": "vm2.12", "status": 4, "service": "PIA", "parvis": "0.1.0", "mem-uss": 81.4, "tag": "blue"}


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Variables that lead to a broker on which two services say every 0.2 s what they do."""
    stop = threading.Event()
    with BrokerThread() as thread, connected(thread.port) as transport:

        def tell() -> None:
            while not stop.wait(0.2):
                for told in (IDLE, BUSY, NOBODY, ["no status"]):
                    transport.post(Send("transient.status", dump_json(told), kind="topic", persistent=False))

        teller = threading.Thread(target=tell)
        teller.start()
        yield broker_environment(thread.port)
        stop.set()
        teller.join()


def test_once(environment: dict[str, str]) -> None:
    result = CliRunner(env=environment).invoke(main, ["monitor", "--once", "--for", "1"])
    assert result.exit_code == 0
    head, nobody, dispatcher, pia, foot = result.stdout.splitlines()
    assert head.split() == ["STATE", "SERVICE", "HOST", "TAG", "BUSY", "MEM", "VERSION"]
    assert nobody.split() == ["no", "service", "loaded", "-", "vm3.13"]
    assert dispatcher.split() == ["idle", "Dispatcher", "vm1.11", "zocalo", "1.5.0"]
    assert pia.split() == ["processing", "PIA", "vm2.12", "blue", "81", "MB", "parvis", "0.1.0"]
    assert foot.startswith("3 instances of 3 services, ")


def test_where_there_is_no_terminal_it_prints_once_and_ends(environment: dict[str, str]) -> None:
    result = CliRunner(env=environment).invoke(main, ["monitor", "--for", "1"])
    assert result.exit_code == 0
    assert result.stdout.count("STATE") == 1
    assert "3 instances of 3 services" in result.stdout


def test_json(environment: dict[str, str]) -> None:
    result = CliRunner(env=environment).invoke(main, ["monitor", "--json", "--for", "1"])
    content = json.loads(result.stdout)
    assert [(card["service"], card["state"]) for card in content["services"]] == [
        ("", "no service loaded"),
        ("Dispatcher", "idle"),
        ("PIA", "processing"),
    ]
    assert content["ignored"] > 0


@pytest.mark.parametrize(
    ("arguments", "services"),
    [
        (("-s", "pia"), ["PIA"]),
        (("-s", "None"), [""]),
        (("-s", "PIA", "-s", "none"), ["", "PIA"]),
        (("--host", "^uk"), ["Dispatcher"]),
        (("--host", "^uk", "-s", "PIA"), []),
    ],
)
def test_only_some(environment: dict[str, str], arguments: tuple[str, ...], services: list[str]) -> None:
    result = CliRunner(env=environment).invoke(main, ["monitor", "--json", "--for", "0.6", *arguments])
    assert [card["service"] for card in json.loads(result.stdout)["services"]] == services


def test_a_host_that_is_no_regular_expression() -> None:
    result = CliRunner().invoke(main, ["monitor", "--host", "("])
    assert result.exit_code == 2
    assert "--host is no regular expression" in result.stderr


def test_raw(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "parvis", "monitor", "--raw", "-s", "PIA"]
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert [json.loads(line) for line in lines] == [BUSY, BUSY]


def test_raw_ends_when_nobody_reads_it_any_more(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "parvis", "monitor", "--raw"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=os.environ | environment, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == 1
        assert process.stderr.read() == b""


_WITHOUT_TEXTUAL = """
import sys
sys.modules["textual"] = None
from parvis.cli import main
main(["monitor", "--for", "1"])
"""


def test_in_a_terminal_without_textual_it_prints_once_and_says_why(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _WITHOUT_TEXTUAL],
        env=os.environ | environment | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal is told
        while data := os.read(ours, 65_536):
            shown += data
    assert process.wait(10) == 0
    os.close(ours)
    assert b"textual is not installed: pip install 'parvis[monitor]'" in shown
    assert b"3 instances of 3 services" in shown
