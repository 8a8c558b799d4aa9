"""The status monitor in a real terminal, with real services, and how it leaves the terminal."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM

import pytest

from parvis.recipe.envelope import dump_json
from parvis.service.status import TOPIC
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from real.activemq.server import ActiveMQ
from running import broker_environment
from tmux import Tmux, terminal
from waiting import wait_until
from zocalo_site import COMMANDS, stomp_site

MONITOR = [sys.executable, "-m", "parvis", "monitor"]
BROKEN = """
from parvis.cli import main
from parvis.observe.cards import CardBoard
CardBoard.cards = lambda self, now=None: 1 / 0
main(["monitor"])
"""
OURS = ("Dispatcher", "FileWatcher", "Join", "JSONLines", "NotifyGDA", "Multiplier", "Gatherer", "Sleeper")
THEIRS = ("Doubler", "Patient", "Fragile", "Collector")
HOSTILE = (
    "\x1b[2J\x1b[31m\x1b]0;owned\x07\x9b5A[red]evil[/] \u202e\u2066gnp.exe \u05d0\u0627 z\u0300\u0301\u0302"
)


def instance(number: int) -> dict[str, object]:
    service = ("PIA", "Dispatcher", "FileWatcher")[number % 3]
    return {
        "host": f"uk.example.vm{number % 9}.{number}",
        "service": service,
        "serviceclass": service,
        "status": 4 if number % 4 else 2,
        "parvis": "0.1.0",
    }


def hostile(number: int) -> dict[str, object]:
    keys = ("service", "serviceclass", "statustext", "tag", "parvis", "parvis-recipe", "container_node")
    return {"host": f"{HOSTILE}.{number}", **dict.fromkeys(keys, HOSTILE)}


@contextlib.contextmanager
def telling(transport: StompTransport, cards: Sequence[dict[str, object]]) -> Iterator[None]:
    """Have these cards broadcast again and again."""
    stop = threading.Event()

    def tell() -> None:
        while not stop.wait(0.5):
            for card in cards:
                transport.post(Send(TOPIC, dump_json(card), kind="topic", persistent=False))

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        yield
    finally:
        stop.set()
        teller.join()


def test_two_hundred_instances_at_80_by_24(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    cards = [instance(number) for number in range(200)]
    with telling(transport, cards), terminal(tmp_path, {}, (80, 24)) as shell:
        shell.run(MONITOR, broker_environment(broker.port))
        shown = shell.wait_for("200 instances of 3 services", "● 150 processing", "○ 50 idle", "▸ PIA")
        assert re.search(r"▸ PIA +67 ● 50 processing  ○ 17 idle", shown), shown
        assert max(map(len, shown.splitlines())) <= 80
        shell.click(5, 4)
        shell.type("Enter")
        shell.wait_for("▼ PIA", "└ vm0.0")
        shell.type("/")
        shell.type("vm7.7")
        shell.wait_for("3 of 200 instances", "filter: vm7.7", "vm7.79")
        shell.type("Escape")
        shell.resize(200, 60)
        shell.wait_for("VERSION", "parvis 0.1.0")
        shell.resize(40, 10)
        shell.wait_for("200 instances of 3 services")
        shell.resize(80, 24)
        shell.type("?")
        shell.wait_for("filter by words", "Close (Esc)")
        _close_box(shell)
        shell.type("q")
        shell.wait_for_end()


def test_hostile_names_do_nothing_to_a_terminal(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    large = {"host": "large.1", "service": "x" * 10_000_000}
    cards = [*map(hostile, range(3)), instance(1)]
    with telling(transport, cards), terminal(tmp_path, {}, (120, 40)) as shell:
        transport.post(Send(TOPIC, dump_json(large), kind="topic", persistent=False))
        title = shell.state("pane_title")
        shell.run(MONITOR, broker_environment(broker.port))
        shown = shell.wait_for("4 instances of 2 services", "[red]evil[/]", "Dispatcher")
        assert not set(shown) & set("\u202e\u2066\u05d0\u0627\u0300\u0301\x07")
        # Every frame is where it should be: nothing moved the cursor.
        assert shown.splitlines()[2].startswith(("┏", "╭"))
        shell.type("Enter")
        shell.wait_for("class", "Stop service (X)")
        _close_box(shell)
        shell.type("q")
        shell.wait_for_end()
        assert shell.state("pane_title") == title


def without_colour(shell: Tmux) -> bool:
    styles = re.findall(r"\x1b\[([\d;]*)m", shell.escapes())
    codes = {code for style in styles for code in style.split(";")}
    return not codes & {"38", "48", *map(str, [*range(30, 38), *range(40, 48), *range(90, 108)])}


def test_without_colour(broker: BrokerThread, transport: StompTransport, tmp_path: Path) -> None:
    environment = broker_environment(broker.port)
    with telling(transport, [instance(1), instance(2)]), terminal(tmp_path, {}) as shell:
        shell.run(MONITOR, environment | {"NO_COLOR": "1"})
        shell.wait_for("2 instances", "● processing", "┏━ Dispatcher")
        assert without_colour(shell)
        shell.type("x")
        shell.wait_for("Stop Dispatcher at uk.example.vm1.1?")
        assert without_colour(shell)
        _close_box(shell)
        shell.type("q")
        shell.wait_for_end()
        shell.run(MONITOR, environment)
        shell.wait_for("2 instances", "● processing")
        assert not without_colour(shell)
        shell.type("q")
        shell.wait_for_end()
        shell.run([*MONITOR, "--for", "1"], environment | {"TERM": "dumb"})
        shown = shell.wait_for_end()
        assert "No live view, the services once instead: a terminal of type 'dumb' can show none" in shown
        assert "processing  Dispatcher" in shown


def _close_box(shell: Tmux) -> None:
    """Press Esc, and wait: with the next key it would be another one."""
    shell.type("Escape")
    wait_until(
        lambda: "(Esc)" not in shell.screen() and "Cancel" not in shell.screen(), 10, "the box to close"
    )


def _settings(shown: str) -> str:
    """What `stty` says, as a checksum."""
    return re.findall(r"^\d+ \d+$", shown, re.MULTILINE)[-1]


def _check_left(shell: Tmux, before: str) -> None:
    """Check that a program that ended has put everything back."""
    for name, value in (("alternate_on", "0"), ("cursor_flag", "1"), ("mouse_any_flag", "0")):
        assert shell.state(name) == value, name
    assert _settings(shell.screen()) == before


def test_the_terminal_is_left_as_it_was(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    environment = broker_environment(broker.port)
    with telling(transport, [instance(1)]), terminal(tmp_path, {}) as shell:
        shell.run(["true"])
        before = _settings(shell.wait_for_end())
        for end in (lambda: shell.type("q"), lambda: shell.type("C-c"), lambda: shell.signal(SIGTERM)):
            shell.run(MONITOR, environment)
            shell.wait_for("1 instance of 1 service")
            assert shell.state("alternate_on") == "1"
            end()
            shell.wait_for_end()
            _check_left(shell, before)
        shell.run([sys.executable, "-c", BROKEN], environment)
        assert "Error: ZeroDivisionError" in shell.wait_for_end(1)
        _check_left(shell, before)


@pytest.mark.real("activemq")
def test_twelve_services_of_both_kinds_on_activemq(activemq: ActiveMQ, tmp_path: Path) -> None:
    site = stomp_site(activemq.port, tmp_path / "site", (activemq.username, activemq.password))
    site.open()
    with ExitStack() as stack:
        stack.callback(site.transport.disconnect)
        ours = {name: stack.enter_context(site.running("parvis", "service", "-s", name)) for name in OURS}
        for name in THEIRS:
            stack.enter_context(site.running("zocalo.service", "-s", name))
        shell = stack.enter_context(terminal(tmp_path, {}, (120, 40)))
        shell.run([str(COMMANDS / "parvis"), "monitor"], site.environment())
        shown = shell.wait_for("12 instances of 12 services", "○ 11 idle", timeout=60)
        for name in (*OURS, "The Doubler", *THEIRS[1:]):
            assert name in shown
        ours["Multiplier"].process.kill()
        shell.type("/")
        shell.type("doubler")
        shell.wait_for("1 of 12 instances")
        shell.type("Enter", "x")
        shell.wait_for("Stop The Doubler at")
        shell.type("y")
        shell.wait_for("Told to stop: The Doubler", "shutdown")
        shell.type("Escape")
        site.transport.send(Send("gather", b"nonsense"))
        shell.wait_for("? last seen ", "dead letter", timeout=30)
        shell.type("q")
        shell.wait_for_end()
