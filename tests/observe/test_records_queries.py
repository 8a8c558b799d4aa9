"""Log records of another machine, asked for by the broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from parvis.cli import main
from parvis.observe import hop_table
from parvis.observe.collector import Collector
from parvis.observe.hops import Hop, report
from parvis.observe.log_record import LogQuery, LogRecord
from parvis.observe.records import RecordsError, RecordsWriter
from parvis.observe.records_queries import QUEUE, RecipesElsewhere, RecordsElsewhere
from parvis.transport.base import Message, Send, Transport
from parvis.transport.embedded import BrokerThread
from real.rabbitmq.vhost import VirtualHost
from running import broker_environment, transport_to
from waiting import wait_until

BEGUN = 1_763_600_000.0


@pytest.fixture
def collector(tmp_path: Path, broker: BrokerThread) -> Iterator[Collector]:
    """A collector with some records, on "another machine"."""
    begun = time.time() - 50
    with Collector(lambda: RecordsWriter(tmp_path / "there"), transport_to(broker.port)) as running:
        keep(
            running,
            *[LogRecord(begun + n / 100, 6, "far", f"number {n} " + "x" * 1000) for n in range(3_000)],
        )
        yield running


def keep(collector: Collector, *records: LogRecord) -> None:
    count = collector.written + len(records)
    assert collector.intake.put(records)
    wait_until(lambda: collector.written >= count, 20, "the records to be written")


def test_they_come_in_parts_and_in_order(collector: Collector, transport: Transport) -> None:
    elsewhere = RecordsElsewhere(transport)
    found = elsewhere.search(LogQuery(limit=2_500, level=6, sources=("far",), text="number"))
    assert [int(record.message.split()[1]) for record in found] == list(range(2_999, 499, -1))
    assert elsewhere.last_row() == 3_000
    assert elsewhere.search(LogQuery(after=2_999))[0].row == 3_000
    assert elsewhere.search(LogQuery(text="nowhere")) == []


def test_logs_are_found_where_there_are_none(
    collector: Collector, broker: BrokerThread, tmp_path: Path
) -> None:
    environment = broker_environment(broker.port) | {"XDG_STATE_HOME": str(tmp_path / "here")}
    done = CliRunner(env=environment).invoke(main, ["logs", "--json", "-n", "3"])
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["row"] for line in done.stdout.splitlines()] == [2_998, 2_999, 3_000]
    command = [
        sys.executable,
        "-u",
        "-m",
        "parvis",
        "logs",
        "-f",
        "--json",
        "--from",
        "broker",
        "--filter",
        "new",
    ]
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        keep(collector, LogRecord(time.time(), 6, "far", "new 1"))
        assert json.loads(following.stdout.readline())["message"] == "new 1"
        keep(collector, LogRecord(time.time() - 20, 6, "far", "new 2, and late"))
        assert json.loads(following.stdout.readline())["message"] == "new 2, and late"
        following.terminate()


def test_that_nobody_answers_is_said(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parvis.observe.records_queries._PATIENCE", 0.5)
    with pytest.raises(RecordsError, match=r"no collector answers .* `parvis collect`"):
        RecordsElsewhere(transport).search(LogQuery())


def test_no_broker_and_no_records_is_said(tmp_path: Path) -> None:
    with BrokerThread() as gone:
        environment = broker_environment(gone.port) | {"XDG_STATE_HOME": str(tmp_path)}
    done = CliRunner(env=environment).invoke(main, ["logs"])
    assert done.exit_code == 1
    assert "there are no records in" in done.stderr
    assert "nobody can be asked for them" in done.stderr


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"[", "JSON"),
        (b'{"limit": "many"}', "limit"),
        (b'{"limit": 10001}', "at most 10,000"),
        (b'{"limit": 0}', "at least 1"),
        (b'{"text": "=>"}', "no letter or digit"),
        (b'{"after": 1e300}', "after"),
        (b'{"order": "sideways"}', "order"),
        (b'{"text": "' + b"x" * 70_000 + b'"}', "too long"),
    ],
)
def test_a_bad_question_gets_a_reason(
    collector: Collector, transport: Transport, body: bytes, complaint: str
) -> None:
    answers: list[Message] = []
    _, name = transport.subscribe_temporary("records", answers.append)
    transport.send(Send(QUEUE, body, {"reply-to": name, "question": "7"}))
    wait_until(lambda: answers, 20, "an answer")
    answer = json.loads(answers[0].body)
    assert answer["question"] == "7"
    assert complaint in answer["error"]


def test_nobody_can_have_answers_sent_to_a_queue_of_others(
    collector: Collector, transport: Transport
) -> None:
    stray: list[Message] = []
    transport.subscribe("processing_recipe", stray.append)
    for name in ("processing_recipe", "", "transient.\n", "transient." + "x" * 500):
        transport.send(Send(QUEUE, b"{}", {"reply-to": name.replace("\n", "/")}))
    transport.send(Send(QUEUE, b"{}", {"question": "7"}))
    assert RecordsElsewhere(transport).last_row() == 3_000
    assert stray == []


@pytest.mark.real("rabbitmq")
def test_they_come_by_rabbitmq_as_well(tmp_path: Path, vhost: VirtualHost) -> None:
    with Collector(lambda: RecordsWriter(tmp_path), vhost.transport()) as collector:
        keep(collector, LogRecord(time.time(), 6, "far", "by RabbitMQ"))
        transport = vhost.transport()
        transport.connect()
        wait_until(
            lambda: (
                vhost.api("GET", "queues") and any(q["name"] == QUEUE for q in vhost.api("GET", "queues"))
            ),
            20,
            "the queue",
        )
        assert [record.message for record in RecordsElsewhere(transport).search(LogQuery())] == [
            "by RabbitMQ"
        ]
        transport.disconnect()


def hops_of(recipe_id: str, numbers: range, queue: str = "q") -> Send:
    return report(
        Hop(
            recipe_id,
            1,
            queue,
            f"i{number}",
            "done",
            service="S",
            host="h.1",
            sent_at=BEGUN,
            begun=BEGUN,
            seconds=0.1,
        )
        for number in numbers
    )


def test_a_recipe_is_traced_where_there_are_no_records(
    collector: Collector, broker: BrokerThread, transport: Transport, tmp_path: Path
) -> None:
    written = collector.written
    transport.send(hops_of("aaaa-1", range(2_500)), hops_of("aaaa-2", range(3)))
    wait_until(lambda: collector.written >= written + 2, 20, "the hops")
    environment = broker_environment(broker.port) | {"XDG_STATE_HOME": str(tmp_path / "here")}
    done = CliRunner(env=environment).invoke(main, ["trace", "--json", "aaaa-1"])
    assert done.exit_code == 0, done.output
    assert [node["hops"] for node in json.loads(done.stdout)["nodes"] if node["node"] == 1] == [2_500]
    unknown = CliRunner(env=environment).invoke(main, ["trace", "bbbb"])
    assert (unknown.exit_code, unknown.stderr.strip()) == (1, "Recipe bbbb not found")
    several = CliRunner(env=environment).invoke(main, ["trace", "--from", "broker", "aaaa"])
    assert several.exit_code == 1
    assert "beginning of several recipe IDs: aaaa-1, aaaa-2" in several.stderr


def test_a_copy_is_brought_up_to_date(collector: Collector, transport: Transport) -> None:
    with RecipesElsewhere(transport, ["aaaa"]) as records:
        for last in (3, 5):
            written = collector.written
            transport.send(hops_of("aaaa-1", range(last)), hops_of("other", range(last), "r"))
            wait_until(lambda many=written: collector.written >= many + 2, 20, "the hops")
            with records.reading() as database:
                assert len(hop_table.timeline(database, "aaaa-1")) == last
                assert hop_table.timeline(database, "other") == []
                assert set(hop_table.queues(database)) == {"q", "r"}
        assert len(records.search(LogQuery(text="number", limit=5))) == 5
