"""A full disk: senders are told, nothing confirmed is lost, and the broker goes on when there is room again.

A limit on the size of files is a full disk that does not hurt others.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parvis.transport.embedded import BrokerThread, Settings
from parvis.transport.embedded.journal import RESERVE
from raw_stomp import RawClient
from waiting import wait_until

FOR_EVER = {"persistent": "true"}
BODY = bytes(20_000)


@contextmanager
def process(journal: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A broker in a process of its own, and its port."""
    command = [sys.executable, "-m", "parvis.transport.embedded", "--port", "0", "--journal", str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broker:
        try:
            assert broker.stdout is not None
            yield broker, int(broker.stdout.readline().split(":")[1].split(",")[0])
        finally:
            broker.kill()


def limit(broker: subprocess.Popen[str], size: int) -> None:
    """Let no file of this process grow beyond a size."""
    resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def fill(port: int) -> tuple[int, str]:
    """Send until the broker refuses: how many were confirmed, and what it says."""
    confirmed = 0
    with RawClient(port) as client:
        while True:
            try:
                client.send("/queue/a", BODY, n=str(confirmed), **FOR_EVER)
            except AssertionError as error:
                return confirmed, str(error)
            confirmed += 1


def sends(port: int, n: int) -> bool:
    """Whether a message is confirmed."""
    with RawClient(port) as client, contextlib.suppress(AssertionError):
        client.send("/queue/a", BODY, n=str(n), **FOR_EVER)
        return True
    return False


def test_senders_are_refused_consumers_go_on_and_then_there_is_room_again(tmp_path: Path) -> None:
    journal = tmp_path / "messages.db"
    with process(journal) as (broker, port):
        limit(broker, RESERVE + 4_000_000)
        confirmed, said = fill(port)
        assert confirmed > 50
        assert "journal is full: make room on it, or consume messages" in said
        with RawClient(port) as client:
            client.send("/queue/fleeting", "memory has room")
            client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "20"})
            for n in range(confirmed):
                message = client.message()
                assert message.headers["n"] == str(n)
                client.ack(message)
        wait_until(lambda: sends(port, confirmed), 10, "room where the acknowledged messages were")
        assert sends(port, confirmed + 1)
    with BrokerThread(settings=Settings(journal=journal)) as again, RawClient(again.port) as client:
        client.subscribe("/queue/a", "client")
        got = [client.message().headers["n"] for _ in range(again.statistics()[0].size)]
    assert set(got) == {str(confirmed), str(confirmed + 1)}


def test_a_disk_that_is_full_all_at_once_holds_everything_until_there_is_room(tmp_path: Path) -> None:
    """Without the reserve nothing can be written, acknowledgements neither: nothing is confirmed, or lost."""
    journal = tmp_path / "messages.db"
    with process(journal) as (broker, port), RawClient(port) as consumer, RawClient(port) as sender:
        for n in range(5):
            sender.send("/queue/a", BODY, n=str(n), **FOR_EVER)
        consumer.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "2"})
        held = [consumer.message() for _ in range(2)]
        limit(broker, 1000)
        sender.say("SEND", {"destination": "/queue/a", "n": "5", "receipt": "never", **FOR_EVER}, BODY)
        assert "what you sent is not confirmed" in sender.error()
        consumer.say("ACK", {"id": held[0].headers["ack"], "receipt": "late"})
        with pytest.raises(TimeoutError):
            consumer.receive(0.2)
        limit(broker, resource.RLIM_INFINITY)
        frames = [consumer.receive() for _ in range(2)]
        assert {frame.headers.get("receipt-id", frame.headers.get("n")) for frame in frames} == {"late", "2"}
        assert sends(port, 6)
        broker.kill()
        assert broker.stderr is not None
        said = broker.stderr.read()
    assert "the disk is full: make room on it" in said
    assert "There is room for the journal again" in said
    assert "Traceback" not in said
    with BrokerThread(settings=Settings(journal=journal)) as again, RawClient(again.port) as client:
        client.subscribe("/queue/a", "client")
        assert [client.message().headers["n"] for _ in range(6)] == ["1", "2", "3", "4", "5", "6"]


def test_a_broker_that_is_ended_while_the_disk_is_full_says_so(tmp_path: Path) -> None:
    with process(tmp_path / "messages.db") as (broker, port), RawClient(port) as sender:
        sender.send("/queue/a", BODY, **FOR_EVER)
        limit(broker, 1000)
        sender.say("SEND", {"destination": "/queue/a", **FOR_EVER}, BODY)
        assert "what you sent is not confirmed" in sender.error()
        broker.terminate()
        _, said = broker.communicate(timeout=20)
    assert broker.returncode == 1
    assert "what it has not confirmed is lost" in said
    assert "Traceback" not in said
