"""The journal: what was confirmed survives the end of the broker, however it ends."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from parvis.transport.embedded import BrokerThread, JournalError, Settings
from parvis.transport.embedded.journal import Batch, Journal
from raw_stomp import RawClient
from waiting import wait_until

FOR_EVER = {"persistent": "true"}


@contextmanager
def running(journal: Path) -> Iterator[BrokerThread]:
    with BrokerThread(settings=Settings(journal=journal)) as broker:
        yield broker


@contextmanager
def process(journal: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A broker in a process of its own, killed at the end, and its port."""
    command = [sys.executable, "-m", "parvis.transport.embedded", "--port", "0", "--journal", str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broker:
        try:
            assert broker.stdout is not None
            line = broker.stdout.readline()
            assert line.startswith("Listening at 127.0.0.1:"), line + broker.communicate()[1]
            yield broker, int(line.split(":")[1].split(",")[0])
        finally:
            broker.kill()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


def test_persistent_messages_survive_a_restart(journal: Path) -> None:
    with running(journal) as broker, RawClient(broker.port) as client:
        client.send("/queue/a", b"\0bytes", n="1", priority="7", **FOR_EVER)
        client.send("/queue/a", "fleeting")
        client.send("/topic/a", "to nobody", **FOR_EVER)
        client.send("/queue/a", "2", expires="1", **FOR_EVER)
        client.send("/queue/b", "acknowledged", **FOR_EVER)
        client.subscribe("/queue/b", "client")
        client.ack(client.message())
    with running(journal) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/>", "client")
        messages = [client.message() for _ in range(2)]
        assert client.nothing()
    said = next(message.headers for message in messages if message.body == b"\0bytes")
    assert (said["n"], said["priority"], said["persistent"]) == ("1", "7", "true")
    dead = next(message.headers for message in messages if message.body == b"2")
    assert dead["destination"] == "/queue/DLQ.a"
    assert len({message.headers["message-id"] for message in messages}) == 2


def test_order_and_delivery_count_survive(journal: Path) -> None:
    with running(journal) as broker, RawClient(broker.port) as client:
        for number in range(3):
            client.send("/queue/a", str(number), **FOR_EVER)
        client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "1"})
        client.message()
    with running(journal) as broker, RawClient(broker.port) as client:
        client.send("/queue/a", "3", **FOR_EVER)
        client.subscribe("/queue/a", "client")
        messages = [client.message() for _ in range(4)]
    assert [message.body for message in messages] == [b"0", b"1", b"2", b"3"]
    assert [message.headers.get("JMSXDeliveryCount") for message in messages] == ["2", None, None, None]


def test_a_delayed_message_survives_kill_9_and_comes_in_time(journal: Path) -> None:
    with process(journal) as (broker, port), RawClient(port) as client:
        client.send("/queue/a", "later", AMQ_SCHEDULED_DELAY="1000", **FOR_EVER)
        client.send("/queue/a", "much later", AMQ_SCHEDULED_DELAY="100000", **FOR_EVER)
        broker.kill()
    with running(journal) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/a", "client")
        assert client.bodies(1) == ["later"]
        assert client.nothing()


def test_what_consumers_held_at_kill_9_comes_marked_and_nothing_else(journal: Path) -> None:
    with process(journal) as (broker, port), RawClient(port) as client:
        for number in range(6):
            client.send("/queue/a", str(number), **FOR_EVER)
        client.subscribe("/queue/a", "client-individual", more={"activemq.prefetchSize": "3"})
        held = [client.message() for _ in range(3)]
        client.ack(held[1])
        assert client.message().body == b"3"
        broker.kill()
    with running(journal) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/a", "client")
        messages = [client.message() for _ in range(5)]
    marked = [(message.body, message.headers.get("redelivered")) for message in messages]
    assert marked == [(b"0", "true"), (b"2", "true"), (b"3", "true"), (b"4", None), (b"5", None)]


def test_a_message_that_takes_the_machine_down_is_marked_each_time(journal: Path) -> None:
    counts: list[str | None] = []
    with process(journal) as (broker, port), RawClient(port) as client:
        client.send("/queue/a", "poison", **FOR_EVER)
        client.send("/queue/a", "harmless", **FOR_EVER)
        broker.kill()
    for _ in range(3):
        with process(journal) as (broker, port), RawClient(port) as client:
            client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "1"})
            message = client.message()
            assert message.body == b"poison"
            counts.append(message.headers.get("JMSXDeliveryCount"))
            broker.kill()
    assert counts == [None, "2", "3"]


def test_dead_letters_survive(journal: Path) -> None:
    with process(journal) as (broker, port), RawClient(port) as client:
        client.send("/queue/a", "poison", **FOR_EVER)
        client.subscribe("/queue/a", "client")
        message = client.message()
        client.nack(message)
        broker.kill()
    with running(journal) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/>", "client")
        letter = client.message()
        assert letter.headers["message-id"] == message.headers["message-id"]
        assert letter.headers["original-destination"] == "/queue/a"
        assert client.nothing()


def test_a_transaction_is_whole_or_absent_after_kill_9(journal: Path) -> None:
    """A worker moves messages from a to b and c, each in a transaction, while the broker is killed."""
    number = 400
    with process(journal) as (broker, port), RawClient(port) as client:
        for n in range(number):
            client.say("SEND", {"destination": "/queue/a", "n": str(n), **FOR_EVER})
        client.confirm("BEGIN", {"transaction": "last"})
        client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "20"})

        def work() -> None:
            try:
                while True:
                    message = client.message()
                    t = {"transaction": message.headers["n"]}
                    client.say("BEGIN", t)
                    client.say("ACK", {"id": message.headers["ack"], **t})
                    for queue in ("b", "c"):
                        destination = {"destination": f"/queue/{queue}", "n": message.headers["n"]}
                        client.say("SEND", destination | FOR_EVER | t)
                    client.say("COMMIT", t)
            except OSError:
                return

        worker = threading.Thread(target=work)
        with RawClient(port) as witness:
            witness.subscribe("/queue/b", "client", more={"activemq.prefetchSize": "1"})
            worker.start()
            confirmed = witness.message().headers["n"]  # the work has begun
        broker.send_signal(signal.SIGKILL)
        worker.join()
    with running(journal) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/>", "client")
        where: dict[str, list[str]] = {}
        for _ in range(sum(entry.size for entry in broker.statistics())):
            said = client.message().headers
            where.setdefault(said["n"], []).append(said["destination"].removeprefix("/queue/"))
    assert set(where) == {str(n) for n in range(number)}
    assert all(sorted(places) in (["a"], ["b", "c"]) for places in where.values())
    assert sorted(where[confirmed]) == ["b", "c"]
    assert ["a"] in where.values(), "all was done before the broker was killed: nothing was tested"


def test_nothing_confirmed_is_lost_by_kill_9(journal: Path) -> None:
    confirmed: list[str] = []
    with process(journal) as (broker, port), RawClient(port) as client:

        def produce() -> None:
            try:
                for n in range(100_000):
                    client.send("/queue/a", str(n), **FOR_EVER)
                    confirmed.append(str(n))
            except OSError:
                return

        producer = threading.Thread(target=produce)
        producer.start()
        wait_until(lambda: len(confirmed) > 50, 20, "50 confirmed messages")
        broker.send_signal(signal.SIGKILL)
        producer.join()
    with running(journal) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/a", "client", more={"prefetch-count": "0"})
        kept = client.bodies(broker.statistics()[0].size)
    assert kept[: len(confirmed)] == confirmed
    assert len(kept) <= len(confirmed) + 1


def test_an_acknowledgement_confirmed_is_not_undone_by_kill_9(journal: Path) -> None:
    with process(journal) as (broker, port), RawClient(port) as client:
        client.send("/queue/a", "1", **FOR_EVER)
        client.subscribe("/queue/a", "client")
        client.ack(client.message())
        broker.kill()
    with running(journal) as broker:
        assert broker.statistics() == []


def test_while_the_disk_is_slow_nothing_leaves_that_is_not_written(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, disk_is_quick = Journal.write, threading.Event()

    def write_slowly(self: Journal, batch: Batch) -> None:
        assert disk_is_quick.wait(20)
        write(self, batch)

    monkeypatch.setattr(Journal, "write", write_slowly)
    with running(journal) as broker, RawClient(broker.port) as producer, RawClient(broker.port) as consumer:
        producer.say("SEND", {"destination": "/queue/a", "receipt": "1", **FOR_EVER}, "not yet")
        wait_until(lambda: [entry.size for entry in broker.statistics()] == [1], 5, "the message")
        consumer.say("SUBSCRIBE", {"destination": "/queue/a", "id": "1", "ack": "client"})
        wait_until(lambda: broker.statistics()[0].dispatched == 1, 5, "its dispatch")
        for client in (producer, consumer):
            with pytest.raises(TimeoutError):
                client.receive(0.1)
        disk_is_quick.set()
        assert producer.expect("RECEIPT").headers["receipt-id"] == "1"
        assert consumer.message().body == b"not yet"


def test_sigterm_ends_it_in_order(journal: Path) -> None:
    with process(journal) as (broker, port), RawClient(port) as client:
        client.send("/queue/a", "1", **FOR_EVER)
        broker.terminate()
        assert broker.wait(10) == 0
    assert not journal.with_name(journal.name + "-wal").exists()


def test_the_file_is_its_owners_alone(journal: Path) -> None:
    with running(journal) as broker, RawClient(broker.port) as client:
        client.send("/queue/a", "secret", **FOR_EVER)
        assert {path.stat().st_mode & 0o777 for path in journal.parent.iterdir()} == {0o600}


def test_two_brokers_cannot_share_a_journal(journal: Path) -> None:
    with running(journal), pytest.raises(JournalError, match="another broker is using it"):
        BrokerThread(settings=Settings(journal=journal)).start()


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to look at " * 50)
    with pytest.raises(JournalError, match="damaged or something else"):
        BrokerThread(settings=Settings(journal=text)).start()
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE precious (x)")
    with pytest.raises(JournalError, match="no journal of this broker"):
        BrokerThread(settings=Settings(journal=other)).start()
    with closing(sqlite3.connect(other)) as connection:
        connection.execute(f"PRAGMA user_version = {0x50415201}")
    with pytest.raises(JournalError, match="another version of this broker"):
        BrokerThread(settings=Settings(journal=other)).start()
    with pytest.raises(JournalError, match="Cannot open the journal"):
        BrokerThread(settings=Settings(journal=tmp_path / "none" / "x.db")).start()


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "parvis.transport.embedded", "--port", "0", "--journal", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert done.stderr.startswith("Cannot open the journal")
    assert "Traceback" not in done.stderr
