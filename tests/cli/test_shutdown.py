"""`parvis shutdown`: services of ours and of `workflows` stop, and are seen to stop."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from parvis.cli import main
from parvis.cli.shutdown import class_name, whole_host
from parvis.observe.cards import CardBoard
from parvis.recipe.envelope import dump_json
from parvis.service.status import TOPIC
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from running import broker_environment, hosted, process_of
from sample_services import Gatherer, Multiplier
from waiting import wait_until


@pytest.fixture
def board(transport: StompTransport) -> CardBoard:
    """Who is there."""
    cards = CardBoard()
    transport.subscribe_broadcast(TOPIC, cards.take)
    return cards


def run(broker: BrokerThread, *arguments: str) -> Result:
    return CliRunner(env=broker_environment(broker.port)).invoke(main, ["shutdown", *arguments])


def hosts(board: CardBoard, service: str) -> list[str]:
    return [card.host for card in board.cards() if card.service_class == service and card.status != 6]


_FOREIGN = """
import sys
from workflows.frontend import Frontend
from workflows.transport.stomp_transport import StompTransport
from workflows_peer import Doubler
StompTransport.defaults |= {
    "--stomp-port": int(sys.argv[1]), "--stomp-host": "127.0.0.1", "--stomp-prfx": "test"
}
Frontend(
    transport=StompTransport, service=Doubler, transport_command_channel="command", environment={}
).run()
"""


@contextlib.contextmanager
def foreign_doubler(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A service that knows only `workflows`, run by its front end."""
    process = subprocess.Popen([sys.executable, "-c", _FOREIGN, str(port)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_one_instance_of_two(broker: BrokerThread, board: CardBoard) -> None:
    with process_of(Multiplier, broker.port) as first, process_of(Multiplier, broker.port) as second:
        wait_until(lambda: len(hosts(board, "Multiplier")) == 2, 20, "two cards")
        host = next(one for one in hosts(board, "Multiplier") if one.endswith(f".{first.pid}"))
        result = run(broker, host, "--wait", "9")  # sooner than silence would tell
        assert result.exit_code == 0
        assert result.output.splitlines() == [f"Shutting down {host}", f"{host} is gone"]
        assert first.wait(5) == 0
        assert second.poll() is None


@contextlib.contextmanager
def somebody_deaf(transport: StompTransport) -> Iterator[None]:
    """Cards of a service that heeds no command."""
    card = {"host": "vm.1", "service": "Deaf", "serviceclass": "Deaf", "status": 2}
    stopped = threading.Event()

    def tell() -> None:
        while not stopped.wait(0.2):
            transport.post(Send(TOPIC, dump_json(card), kind="topic", persistent=False))

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        yield
    finally:
        stopped.set()
        teller.join()


def test_all_instances_of_services_of_both_kinds_go_and_one_stays(
    broker: BrokerThread, transport: StompTransport, board: CardBoard
) -> None:
    with (
        somebody_deaf(transport),
        process_of(Multiplier, broker.port) as ours,
        foreign_doubler(broker.port) as theirs,
        process_of(Gatherer, broker.port) as other,
    ):
        wait_until(lambda: len({card.service for card in board.cards()}) == 4, 30, "four cards")
        names = ("-s", "Multiplier", "-s", "Doubler", "-s", "Deaf")
        result = run(broker, *names, "--wait", "9", "--json")
        told = json.loads(result.output)
        assert told["services"] == ["Multiplier", "Doubler", "Deaf"]
        assert len(told["gone"]) == 2
        assert (result.exit_code, told["staying"]) == (1, ["vm.1"])
        assert ours.wait(10) == 0
        theirs.wait(20)
        assert other.poll() is None


def test_without_waiting_it_says_what_it_told(broker: BrokerThread, transport: StompTransport) -> None:
    with hosted(broker.port, Multiplier) as host:
        result = run(broker, "-s", "none", "-s", "Somebody", "uk.example.vm1.7")
        assert result.output.splitlines() == [
            "Shutting down uk.example.vm1.7",
            "Stopping all instances of None",
            "Stopping all instances of Somebody",
        ]
        assert not host.is_stopping


def test_without_arguments_it_explains_itself() -> None:
    result = CliRunner().invoke(main, ["shutdown"])
    assert result.exit_code == 2
    assert "Need to specify one or more services to shut down." in result.output


@pytest.mark.parametrize("arguments", [[""], ["  "], ["a\nb.1"], ["-s", ""], ["host.1", "-s", "\x1b[31m"]])
def test_what_is_no_name_is_not_sent_around(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["shutdown", *arguments])
    assert result.exit_code == 2
    assert "names neither an instance nor a service" in result.stderr


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "ws133.example.ac.uk")
    assert whole_host("ws7.42") == "uk.ac.example.ws7.42"
    assert whole_host("uk.ac.example.ws7.42") == "uk.ac.example.ws7.42"
    monkeypatch.setattr(socket, "gethostname", lambda: "ws133")
    assert whole_host("ws7.42") == "ws7.42"
    assert class_name("None") is None
    assert class_name("perimageanalysis") == "PerImageAnalysis"
    assert class_name("DLSMailer") == "DLSMailer"
