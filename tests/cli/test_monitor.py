"""`parvis monitor`, with an embedded broker and in a terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from fcntl import ioctl

import pytest
from click.testing import CliRunner

from parvis.cli import main
from parvis.recipe.envelope import dump_json
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from running import broker_environment, connected

IDLE = {"host": "uk.example.vm1.11", "status": 2, "service": "Dispatcher", "zocalo": "1.5.0"}
BUSY = {"host": "vm2.12", "status": 4, "service": "PIA", "parvis": "0.1.0", "mem-uss": 81.4, "tag": "blue"}


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Variables that lead to a broker on which two services say every 0.2 s what they do."""
    stop = threading.Event()
    with BrokerThread() as thread, connected(thread.port) as transport:

        def tell() -> None:
            while not stop.wait(0.2):
                for told in (IDLE, BUSY, ["no status"]):
                    transport.post(Send("transient.status", dump_json(told), kind="topic", persistent=False))

        teller = threading.Thread(target=tell)
        teller.start()
        yield broker_environment(thread.port)
        stop.set()
        teller.join()


def test_once(environment: dict[str, str]) -> None:
    result = CliRunner(env=environment).invoke(main, ["monitor", "--once", "--for", "1"])
    assert result.exit_code == 0
    head, dispatcher, pia, foot = result.stdout.splitlines()
    assert head.split() == ["STATE", "SERVICE", "HOST", "TAG", "BUSY", "MEM", "VERSION"]
    assert dispatcher.split() == ["idle", "Dispatcher", "vm1.11", "zocalo", "1.5.0"]
    assert pia.split() == ["processing", "PIA", "vm2.12", "blue", "81", "MB", "parvis", "0.1.0"]
    assert foot.startswith("2 instances of 2 services, ")


def test_where_there_is_no_terminal_it_prints_once_and_ends(environment: dict[str, str]) -> None:
    result = CliRunner(env=environment).invoke(main, ["monitor", "--for", "1"])
    assert result.exit_code == 0
    assert result.stdout.count("STATE") == 1
    assert "2 instances of 2 services" in result.stdout


def test_json(environment: dict[str, str]) -> None:
    result = CliRunner(env=environment).invoke(main, ["monitor", "--json", "--for", "1"])
    content = json.loads(result.stdout)
    assert [(card["service"], card["state"]) for card in content["services"]] == [
        ("Dispatcher", "idle"),
        ("PIA", "processing"),
    ]
    assert content["ignored"] > 0


@pytest.mark.parametrize(("height", "expected"), [(24, b"81 MB"), (6, b"2 more services")])
def test_live_until_ctrl_c(environment: dict[str, str], height: int, expected: bytes) -> None:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, 80, 0, 0))
    # Those would count more than the size of the terminal.
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "parvis", "monitor"],
        env=inherited | environment | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    shown = b""
    end = time.monotonic() + 20
    while expected not in shown and time.monotonic() < end:
        if select.select([ours], [], [], 0.1)[0]:
            shown += os.read(ours, 65_536)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    os.close(ours)
    os.close(theirs)
    assert expected in shown
