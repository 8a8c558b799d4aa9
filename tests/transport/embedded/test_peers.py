"""Clients written by others, unmodified: stomp.py in all versions, `workflows` and a service for it."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parvis.transport.embedded import BrokerThread, Settings
from waiting import wait_until

stomp = pytest.importorskip("stomp", reason="stomp.py is not installed")
TESTS = Path(__file__).parents[2]


class Listener(stomp.ConnectionListener):
    """Puts what comes into queues."""

    def __init__(self) -> None:
        self.messages: queue.Queue[Any] = queue.Queue()
        self.errors: queue.Queue[Any] = queue.Queue()
        self.receipts: queue.Queue[str] = queue.Queue()
        self.gone = threading.Event()

    def on_message(self, frame: Any) -> None:
        self.messages.put(frame)

    def on_error(self, frame: Any) -> None:
        self.errors.put(frame)

    def on_receipt(self, frame: Any) -> None:
        self.receipts.put(frame.headers["receipt-id"])

    def on_disconnected(self) -> None:
        self.gone.set()

    def body(self) -> str:
        return self.messages.get(timeout=10).body


Client = tuple[Any, Listener]


def connected(broker: BrokerThread, kind: type[Any], **options: Any) -> Client:
    connection = kind([(broker.host, broker.port)], **options)
    listener = Listener()
    connection.set_listener("test", listener)
    connection.connect("user", "password", wait=True)
    return connection, listener


@pytest.fixture(params=[stomp.Connection10, stomp.Connection11, stomp.Connection12])
def client(request: pytest.FixtureRequest, broker: BrokerThread) -> Iterator[Client]:
    connection, listener = connected(broker, request.param)
    yield connection, listener
    connection.disconnect()


def acknowledge(connection: Any, frame: Any, how: str = "ack", **more: Any) -> None:
    """As each version of stomp.py wants it."""
    said = frame.headers
    if isinstance(connection, stomp.Connection12):
        getattr(connection, how)(said["ack"], **more)
    elif isinstance(connection, stomp.Connection11):
        getattr(connection, how)(said["message-id"], said["subscription"], **more)
    else:
        getattr(connection, how)(said["message-id"], **more)


def test_stomp_py_sends_subscribes_and_acknowledges(broker: BrokerThread, client: Client) -> None:
    connection, listener = client
    connection.subscribe("/queue/a", id="1", ack="client-individual")
    for number in range(20):
        connection.send("/queue/a", f"Größe {number}", headers={"n": str(number)}, receipt=f"r{number}")
    for number in range(20):
        frame = listener.messages.get(timeout=10)
        assert (frame.body, frame.headers["n"]) == (f"Größe {number}", str(number))
        acknowledge(connection, frame, receipt=f"a{number}")
    receipts = {listener.receipts.get(timeout=10) for _ in range(40)}
    assert receipts == {f"{kind}{number}" for kind in "ra" for number in range(20)}
    assert [(entry.size, entry.dequeued) for entry in broker.statistics()] == [(0, 20)]


def test_stomp_py_uses_transactions(broker: BrokerThread, client: Client) -> None:
    connection, listener = client
    connection.subscribe("/queue/in", id="1", ack="client-individual")
    connection.subscribe("/queue/out", id="2", ack="auto")
    connection.send("/queue/in", "x")
    frame = listener.messages.get(timeout=10)
    for end in ("abort", "commit"):
        transaction = connection.begin()
        acknowledge(connection, frame, transaction=transaction)
        connection.send("/queue/out", end, transaction=transaction)
        getattr(connection, end)(transaction)
    assert listener.body() == "commit"
    wait_until(lambda: all(entry.size == 0 for entry in broker.statistics()), 5, "empty queues")
    assert listener.messages.empty()


def test_stomp_py_is_told_of_errors(client: Client) -> None:
    connection, listener = client
    connection.send("nowhere", "x")
    assert "does not begin with /queue/" in listener.errors.get(timeout=10).headers["message"]
    assert listener.gone.wait(10)


def test_stomp_py_refuses_to_the_dead_letters(broker: BrokerThread) -> None:
    connection, listener = connected(broker, stomp.Connection12)
    connection.subscribe("/queue/a", id="1", ack="client-individual")
    connection.subscribe("/queue/DLQ.a", id="2", ack="auto")
    connection.send("/queue/a", "x")
    acknowledge(connection, listener.messages.get(timeout=10), "nack")
    assert listener.messages.get(timeout=10).headers["original-destination"] == "/queue/a"
    connection.disconnect()


def test_stomp_py_keeps_its_heart_beats(broker: BrokerThread) -> None:
    connection, listener = connected(broker, stomp.Connection12, heartbeats=(200, 200))
    assert not listener.gone.wait(1.5)
    connection.send("/queue/a", "x", receipt="1")
    assert listener.receipts.get(timeout=10) == "1"
    connection.disconnect()


def test_stomp_py_with_a_wrong_password_is_refused() -> None:
    with (
        BrokerThread(settings=Settings(login="user", passcode="other")) as broker,
        pytest.raises(stomp.exception.ConnectFailedException),
    ):
        connected(broker, stomp.Connection12)


@pytest.fixture
def transport(broker: BrokerThread, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`workflows`' own StompTransport, connected."""
    module = pytest.importorskip("workflows.transport.stomp_transport", reason="workflows is not installed")
    monkeypatch.setitem(module.StompTransport.defaults, "--stomp-host", broker.host)
    monkeypatch.setitem(module.StompTransport.defaults, "--stomp-port", broker.port)
    transport = module.StompTransport()
    transport.connect()
    yield transport
    transport.disconnect()


class Inbox:
    """Keeps what a `workflows` subscription brings."""

    def __init__(self) -> None:
        self._got: queue.Queue[tuple[dict[str, Any], Any]] = queue.Queue()

    def __call__(self, header: dict[str, Any], message: Any) -> None:
        self._got.put((header, message))

    def get(self) -> tuple[dict[str, Any], Any]:
        return self._got.get(timeout=10)


def test_workflows_sends_and_receives(transport: Any) -> None:
    inbox, replies, news = Inbox(), Inbox(), Inbox()
    transport.subscribe("a", inbox, acknowledgement=True)
    transport.subscribe_broadcast("news", news)
    temporary = transport.subscribe_temporary("hint", replies)
    transport.send("a", {"n": [1, 2.5, None]}, headers={"workflows-recipe": True}, expiration=100)
    header, message = inbox.get()
    assert message == {"n": [1, 2.5, None]}
    assert header["workflows-recipe"] == "True"
    transport.ack(header)
    transport.send("a", "delayed", delay=1)
    transport.send("a", "at once")
    assert [inbox.get()[1] for _ in range(2)] == ["at once", "delayed"]
    transport.broadcast("news", {"x": 1})
    assert news.get()[1] == {"x": 1}
    transport.send(temporary.queue_name, "reply")
    assert replies.get()[1] == "reply"


def test_workflows_transactions_and_refusals(transport: Any, broker: BrokerThread) -> None:
    inbox, dead = Inbox(), Inbox()
    transport.subscribe("a", inbox, acknowledgement=True)
    transport.subscribe("DLQ.a", dead)
    transport.send("a", 1)
    header, _ = inbox.get()
    transaction = transport.transaction_begin(subscription_id=header["subscription"])
    transport.ack(header, transaction=transaction)
    transport.send("b", 2, transaction=transaction)
    transport.transaction_abort(transaction)
    transport.nack(header)
    assert dead.get()[1] == 1
    assert {entry.name: entry.enqueued for entry in broker.statistics()} == {"/queue/a": 1, "/queue/DLQ.a": 1}


def test_a_workflows_service_in_its_own_front_end(transport: Any, broker: BrokerThread) -> None:
    results, status, dead = Inbox(), Inbox(), Inbox()
    transport.subscribe("t.result", results)
    transport.subscribe("DLQ.t.double", dead)
    transport.subscribe_broadcast("transient.status", status)
    command = [sys.executable, str(TESTS / "workflows_peer.py"), str(broker.port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        try:
            recipe = {
                "1": {"queue": "t.double", "output": 2},
                "2": {"queue": "t.double", "output": 3},
                "3": {"queue": "t.result"},
                "start": [[1, []]],
            }
            for number in (*range(50), "poison"):
                message = {"payload": number, "recipe": recipe, "recipe-pointer": 1, "recipe-path": []}
                transport.send("t.double", message, headers={"workflows-recipe": True})
            got = [results.get()[1] for _ in range(50)]
            assert [message["payload"] for message in got] == [4 * number for number in range(50)]
            assert got[0]["recipe-path"] == [1, 2]
            assert dead.get()[1]["payload"] == "poison"
            assert status.get()[1]["serviceclass"] in {None, "Doubler"}
            transport.broadcast("command", {"command": "shutdown", "service": "Doubler"})
            assert service.wait(20) == 0
        finally:
            service.kill()
