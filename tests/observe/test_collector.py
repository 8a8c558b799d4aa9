"""`parvis collect` as a process: what it has acknowledged is there, whatever happens to it or the broker."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from parvis.observe.collector import Collector
from parvis.observe.hops import Hop, report
from parvis.observe.records import FILE, LogQuery, LogRecord, Records, RecordsError, RecordsWriter
from parvis.transport.embedded import BrokerThread
from real.rabbitmq.vhost import VirtualHost
from running import broker_environment, connected
from waiting import wait_until

_SIZE_LIMIT = 600_000  # bytes that the file may have on a disk that is "full"


class Collecting:
    """A running `parvis collect`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, directory: Path) -> None:
        self.process = process
        self.log = log
        self.directory = directory
        wait_until(
            lambda: "Keeping records in" in self.said or process.poll() is not None, 30, "the collector"
        )
        assert process.poll() is None, self.said
        self.ports = {kind: int(port) for kind, port in re.findall(r"by (\w+) at \S*?:(\d+)", self.said)}

    @property
    def said(self) -> str:
        return self.log.read_text()

    def post(self, *texts: str) -> int:
        body = "\n".join(json.dumps({"short_message": text, "level": 6}) for text in texts)
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["HTTP"], timeout=60)
        try:
            connection.request("POST", "/gelf", body)
            return connection.getresponse().status
        finally:
            connection.close()

    def found(self, **query: object) -> set[str]:
        with contextlib.suppress(RecordsError), Records(self.directory) as records:
            return {one.message for one in records.search(LogQuery(limit=100_000, **query))}  # type: ignore[arg-type]
        return set()

    def hops(self) -> int:
        with (
            contextlib.suppress(RecordsError),
            Records(self.directory) as records,
            records.reading() as database,
        ):
            return database.execute("SELECT count(*) FROM hop").fetchone()[0]
        return 0


@contextlib.contextmanager
def collecting(
    place: Path, environment: Mapping[str, str] | None = None, *arguments: str, size: int | None = None
) -> Iterator[Collecting]:
    log = place / f"collector-{time.monotonic_ns()}.log"
    ports = ["--udp", "0", "--tcp", "0", "--http", "0"]
    command = [
        sys.executable,
        "-m",
        "parvis",
        "collect",
        *ports,
        "--records",
        str(place / "records"),
        *arguments,
    ]

    def limit() -> None:
        if size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=os.environ | dict(environment or {}),
            stdout=file,
            stderr=file,
            preexec_fn=limit,  # noqa: PLW1509 - only to make its disk small, before anything runs
        )
    try:
        yield Collecting(process, log, place / "records")
    finally:
        process.kill()
        process.wait()


def hop(number: int) -> Hop:
    return Hop(
        recipe_id="r-1",
        node=1,
        queue="q",
        identity=f"i{number}",
        result="done",
        service="S",
        host="h.1",
        sent_at=time.time(),
        begun=time.time(),
        seconds=0.1,
    )


def test_killed_it_has_kept_all_that_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    with collecting(tmp_path, None, "--no-hops") as collector:

        def send(sender: int) -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                for number in range(10_000):
                    texts = [f"sender{sender} number{number} {part}" for part in range(5)]
                    if collector.post(*texts) == 202:
                        acknowledged.extend(texts)

        senders = [threading.Thread(target=send, args=(number,)) for number in range(3)]
        for sender in senders:
            sender.start()
        wait_until(lambda: len(acknowledged) > 50, 30, "some to be acknowledged")
        collector.process.send_signal(signal.SIGKILL)
        for sender in senders:
            sender.join()
        assert set(acknowledged) <= collector.found()
    with collecting(tmp_path, None, "--no-hops") as again:
        assert again.post("after") == 202
        assert {*acknowledged, "after"} <= again.found()


def test_told_to_end_it_writes_what_has_come(tmp_path: Path) -> None:
    with collecting(tmp_path, None, "--no-hops") as collector:
        collector.process.send_signal(signal.SIGSTOP)  # so that nothing is read before it is told to end
        with socket.create_connection(("127.0.0.1", collector.ports["TCP"])) as connection:
            connection.sendall(b"".join(b'{"short_message": "n %d"}\0' % number for number in range(3_000)))
        collector.process.terminate()
        collector.process.send_signal(signal.SIGCONT)
        assert collector.process.wait(30) == 0
        assert len(collector.found()) == 3_000
        assert "3000 records and reports written." in collector.said


def test_hops_are_acknowledged_when_they_are_kept(tmp_path: Path, broker: BrokerThread) -> None:
    environment = broker_environment(broker.port)

    def in_flight() -> int:
        found = [one for one in broker.statistics() if one.name.endswith("parvis.hops")]
        return sum(one.in_flight for one in found)

    with connected(broker.port) as transport:
        with collecting(tmp_path, environment, size=_SIZE_LIMIT) as collector:
            fill_disk(collector)
            transport.send(*[report([hop(number)]) for number in range(40)])
            wait_until(lambda: in_flight() == 40, 30, "the hops to be delivered")
            collector.process.terminate()  # it tries to write them once more
            collector.process.wait()
            assert "could not be written" in collector.said
        with collecting(tmp_path, environment) as collector:
            wait_until(lambda: collector.hops() == 40, 30, "all hops")
            wait_until(lambda: in_flight() == 0, 30, "the hops to be acknowledged")
            collector.process.terminate()
            collector.process.wait()
        left: list[object] = []
        transport.subscribe("parvis.hops", left.append)
        transport.send(report([hop(99)]))
        wait_until(lambda: left, 10, "the last hop")
        assert len(left) == 1, "hops that were kept are still in the queue"


def fill_disk(collector: Collecting) -> list[str]:
    """Send records until the disk is full; return those that came."""
    sent: list[str] = []

    def are_settled() -> bool:
        return collector.found() == set(sent) or "disk is full" in collector.said

    with socket.create_connection(("127.0.0.1", collector.ports["TCP"])) as connection:
        while "the disk is full: make room on it" not in collector.said:
            for _ in range(10):
                sent.append(f"text {len(sent)} {os.urandom(20_000).hex()}")
                connection.sendall(json.dumps({"short_message": sent[-1]}).encode() + b"\0")
            wait_until(are_settled, 20, "the records")
            assert len(sent) < 1_000, "the disk was not full"
    return sent


def test_a_report_that_is_none_does_not_stop_the_others(tmp_path: Path, broker: BrokerThread) -> None:
    from parvis.transport.base import Send

    with (
        connected(broker.port) as transport,
        collecting(tmp_path, broker_environment(broker.port)) as collector,
    ):
        for body in (b"", b"\xff", b"[" * 5_000, b'{"hops": 7}', b"null"):
            transport.send(Send("parvis.hops", body))
        # Together they took longer than can be counted.
        endless = [replace(hop(number), recipe_id="r-2", begun=0.0, seconds=9e10) for number in range(200)]
        transport.send(report(endless), report([hop(1)]))
        wait_until(lambda: collector.hops() == 1, 30, "the hop")


def test_log_records_are_taken_while_the_broker_is_away(tmp_path: Path) -> None:
    with BrokerThread() as early:
        port = early.port
    with collecting(tmp_path, broker_environment(port)) as collector:
        wait_until(lambda: "log records are taken, hops not yet" in collector.said, 30, "the complaint")
        assert collector.post("broker away") == 202
        with BrokerThread(port=port), connected(port) as transport:
            transport.send(report([hop(0)]))
            wait_until(lambda: collector.hops() == 1, 40, "the hop")
        assert collector.post("broker gone") == 202
        with BrokerThread(port=port), connected(port) as transport:
            transport.send(report([hop(1)]))
            wait_until(lambda: collector.hops() == 2, 40, "the hop after a restart")
        assert collector.found() == {"broker away", "broker gone"}
        collector.process.terminate()
        assert collector.process.wait(30) == 0


def test_a_full_disk_is_told_and_outlived(tmp_path: Path) -> None:
    with collecting(tmp_path, None, "--no-hops", size=_SIZE_LIMIT) as collector:
        kept = fill_disk(collector)
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(collector.process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        wait_until(lambda: collector.found() == set(kept), 60, "all that came while the disk was full")
        wait_until(lambda: "records are written again" in collector.said, 10, "the good news")


def damage(path: Path) -> None:
    """Write over all of the records."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / FILE).write_bytes(b"damaged " * 5_000)
    with collecting(tmp_path, None, "--no-hops") as collector:
        assert collector.post("new") == 202
        assert collector.found() == {"new"}
        assert f"{FILE} was damaged; it is now {FILE}.damaged" in collector.said
    assert (tmp_path / "records" / f"{FILE}.damaged").read_bytes().startswith(b"damaged ")


def test_a_file_that_is_damaged_meanwhile_is_set_aside(tmp_path: Path) -> None:
    with collecting(tmp_path, None, "--no-hops") as collector:
        assert collector.post("before") == 202
        damage(tmp_path / "records" / FILE)
        assert collector.post("after") == 202
        assert collector.process.poll() is None
        assert collector.found() == {"after"}


def test_records_that_cannot_be_begun_anew_at_once_are_begun_later(tmp_path: Path) -> None:
    refusals = iter([False, True, True])

    def open_records() -> RecordsWriter:
        if next(refusals, False):
            raise RecordsError("not now")
        return RecordsWriter(tmp_path)

    def record(text: str) -> LogRecord:
        return LogRecord(time.time(), 6, "test", text)

    with Collector(open_records) as collector:
        collector.intake.put([record("before")])
        wait_until(lambda: collector.written == 1, 10, "the record")
        damage(tmp_path / FILE)
        collector.intake.put([record("after")])
        wait_until(lambda: collector.written == 2, 20, "the record after")
    with Records(tmp_path) as records:
        assert [one.message for one in records.search(LogQuery())] == ["after"]


@pytest.mark.parametrize("arguments", [["--udp", "70000"], ["--host", "no.such.host.invalid"]])
def test_what_cannot_be_listened_at_is_said(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "parvis", "collect", "--no-hops", "--records", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (2 if "--udp" in arguments else 1)
    assert "Traceback" not in done.stderr
    assert arguments[1] in done.stderr


@pytest.mark.real("rabbitmq")
def test_hops_come_from_rabbitmq_as_well(tmp_path: Path, vhost: VirtualHost) -> None:
    with collecting(tmp_path, vhost.environment()) as collector:
        wait_until(lambda: "taking reports of hops" in collector.said, 30, "the subscription")
        transport = vhost.transport()
        transport.connect()
        transport.send(report([hop(1)]), report([hop(2)]))
        transport.disconnect()
        wait_until(lambda: collector.hops() == 2, 30, "the hops")
        collector.process.terminate()
        assert collector.process.wait(30) == 0
