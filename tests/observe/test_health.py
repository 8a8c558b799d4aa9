"""Checks of a site's health, each on the real thing, well and unwell."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from health_checks import check, config, levels
from parvis.config import (
    Config,
    PikaSettings,
    RabbitMQAPISettings,
    StompSettings,
)
from parvis.observe.health import Check, Finding, UnknownCheck, find_checks, run_checks, worst
from parvis.service.status import host_id
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread, Settings
from parvis.transport.stomp import StompTransport
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.schema import CORE_TABLES, create_schema
from real.activemq.server import ActiveMQ
from real.mariadb import MariaDb
from real.rabbitmq.vhost import VirtualHost
from running import Listener, hosted
from sample_services import Multiplier
from waiting import wait_until


def made_up(name: str, function: Callable[[Config], Iterable[Finding]]) -> Check:
    return Check(name, lambda: function)


class TestRunning:
    def test_one_that_hangs_holds_up_nobody(self, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)

        def hangs(_: Config) -> Iterable[Finding]:
            yield Finding("ok", fifo.read_text())

        def quick(_: Config) -> Iterable[Finding]:
            yield Finding("ok", "quick")

        begun = time.monotonic()
        results = run_checks([made_up("hangs", hangs), made_up("quick", quick)], config(), timeout=0.5)
        assert time.monotonic() - begun < 5
        assert [(one.check, one.finding.level) for one in results] == [("hangs", "error"), ("quick", "ok")]
        assert results[0].finding.message == "it did not end within 0.5 s"
        # Let the thread that was left behind go.
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))

    @pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), SystemExit(3), KeyboardInterrupt()])
    def test_one_that_raises_is_an_error_of_its_own(self, error: BaseException) -> None:
        def raises(_: Config) -> Iterable[Finding]:
            raise error

        def other(_: Config) -> Iterable[Finding]:
            yield Finding("warning", "hm")

        results = run_checks([made_up("other", other), made_up("raises", raises)], config())
        assert [(one.check, one.finding.level) for one in results] == [
            ("raises", "error"),
            ("other", "warning"),
        ]
        assert type(error).__name__ in results[0].finding.message
        assert worst(results) == "error"

    def test_what_is_no_finding_is_an_error(self) -> None:
        function: Any = lambda _: ["fine"]  # noqa: E731 - what somebody may contribute
        assert "gave a str" in run_checks([made_up("odd", function)], config())[0].finding.message

    def test_texts_hold_no_secret_and_harm_no_terminal(self) -> None:
        site = replace(config(), stomp=StompSettings(password="s3cr3t"))

        def tells(_: Config) -> Iterable[Finding]:
            yield Finding(
                "error",
                "log-in with s3cr3t\x1b[2J",
                "x\ny",
                "try s3cr3t",
                ("a\x07", "at mysql://u:p4ss@db/i"),
            )

        finding = run_checks([made_up("tells", tells)], site)[0].finding
        assert finding == Finding(
            "error", "log-in with ***?[2J", "x?y", "try ***", ("a?", "at mysql://u:***@db/i")
        )

    def test_a_package_contributes_checks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "site_health.py").write_text(
            "from parvis.observe.health import Finding\n"
            "def detector(config):\n"
            '    """The detector answers."""\n'
            '    yield Finding("ok", "it answers")\n'
        )
        entries = "[parvis.health_checks]\ndetector = site_health:detector\nlost = nowhere:nothing\n"
        information = tmp_path / "site-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: site\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(entries)
        monkeypatch.syspath_prepend(tmp_path)
        ours, theirs = find_checks(["broker", "detector"])
        assert (ours.package, theirs.package, theirs.about) == ("", "site", "The detector answers.")
        assert check("detector", config()) == [Finding("ok", "it answers")]
        (lost,) = check("lost", config())
        assert lost.level == "error"
        assert "No module named 'nowhere'" in lost.message
        assert "cannot be loaded" in find_checks(["lost"])[0].about

    def test_the_database_is_among_them_and_unknown_names_are_not(self) -> None:
        assert {"broker", "database", "file-systems"} <= {one.name for one in find_checks()}
        with pytest.raises(UnknownCheck, match=r"no check 'brokr'\. Did you mean 'broker'"):
            find_checks(["brokr"])


class TestBroker:
    def test_a_message_goes_there_and_back(self, broker: BrokerThread) -> None:
        (finding,) = check("broker", config(broker))
        assert finding.level == "ok"
        assert "there and back" in finding.message

    def test_one_that_lets_nobody_in(self) -> None:
        with BrokerThread(settings=Settings(login="me", passcode="mine")) as guarded:
            site = config(guarded)
            site = replace(site, stomp=replace(site.stomp, username="me", password="s3cr3t"))
            (finding,) = check("broker", site)
        assert finding.level == "error"
        assert "password" in finding.advice
        assert "s3cr3t" not in repr(finding)

    def test_one_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("parvis.observe.health_broker._PATIENCE", 0.5)  # which is for brokers that start
        (finding,) = check("broker", config())
        assert finding.level == "error"
        assert finding.advice == "Start the broker at 127.0.0.1:1, or mend its address."

    def test_one_that_hangs(self) -> None:
        command = [sys.executable, "-m", "parvis.transport.embedded", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                port = int(process.stdout.readline().split(":")[1].split(",")[0])
                process.send_signal(signal.SIGSTOP)
                site = config()
                site = replace(site, stomp=replace(site.stomp, port=port))
                results = run_checks(find_checks(["broker", "broker-load", "queues"]), site, timeout=1)
            finally:
                process.kill()
        assert [one.finding.level for one in results] == ["error"] * 3
        assert {one.finding.message for one in results} == {"it did not end within 1 s"}

    def test_its_load_is_within_limits(self, broker: BrokerThread) -> None:
        (finding,) = check("broker-load", config(broker))
        assert finding.level == "ok"
        assert finding.message.startswith("Embedded broker")
        beyond = config(broker, limits={"connections": [1, 1000], "queues": [0, 0]})
        found = check("broker-load", beyond)
        assert levels(found) == {"connections": "warning", "queues": "error", "": "ok"}
        assert found[0].message == "queues 0, the limit is 0"

    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            ({"conections": [1, 2]}, "no figure 'conections', only connections"),
            ({"connections": 3}, "must be two numbers"),
            ([1], "must be a mapping"),
        ],
    )
    def test_wrong_limits(self, broker: BrokerThread, limits: Any, message: str) -> None:
        (finding,) = check("broker-load", config(broker, limits=limits))
        assert finding.level == "error"
        assert message in finding.message

    def test_queues_that_nobody_looks_after(self, broker: BrokerThread, transport: StompTransport) -> None:
        transport.send(*(Send("work", b"{}") for _ in range(3)), Send("elsewhere.x", b"{}", absolute=True))
        transport.send(Send("held", b"{}"), Send("DLQ.test.work", b"{}", absolute=True))
        Listener(transport, "idle")
        transport.subscribe("held", lambda _: None)
        found = check("queues", config(broker, queues={"held": [1, 50], "idle": [5, 10]}))
        assert levels(found) == {"work": "warning", "held": "warning", "DLQ.test.work": "warning", "": "ok"}
        said = {finding.subject: finding.message for finding in found}
        assert said["work"].startswith("3 messages")
        assert said["work"].endswith("nobody takes them")
        assert said["DLQ.test.work"].startswith("1 dead letter")
        assert said["held"] == "1 message, the limit is 1"

    def test_all_is_well_where_services_take_what_comes(self, broker: BrokerThread) -> None:
        with hosted(broker.port, Multiplier):
            subscribed = ("ok", "1 queue with 0 messages")
            found: list[Finding] = []

            def is_seen() -> bool:
                found[:] = check("queues", config(broker))
                return [(one.level, one.message) for one in found] == [subscribed]

            wait_until(is_seen, 10, "the queue of the service to be there")


class TestServices:
    def test_those_that_are_expected_are_there(self, broker: BrokerThread) -> None:
        with hosted(broker.port, Multiplier):
            found = check("services", config(broker, services=["multiplier"]))
        assert levels(found) == {"multiplier": "ok"}
        assert found[0].message == f"seen at {host_id().rpartition('.')[0].split('.')[-1]}.{os.getpid()}"

    def test_one_that_is_missing(self, broker: BrokerThread) -> None:
        with hosted(broker.port, Multiplier):
            found = check("services", config(broker, services=["Multiplier", "Dispatcher"]))
        assert levels(found) == {"Dispatcher": "error", "Multiplier": "ok"}
        assert found[0].advice == "Start it: parvis service -s Dispatcher"

    def test_none_is_expected(self) -> None:
        assert levels(check("services", config())) == {"": "skipped"}


class TestDatabase:
    def test_one_with_the_tables(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/ispyb.db"
        create_schema(Database(url), tables=CORE_TABLES)
        (finding,) = check("database", replace(config(), ispyb_url=url))
        assert finding.level == "ok"
        assert "answered after" in finding.message

    def test_one_without_some(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/ispyb.db"
        create_schema(Database(url), tables=CORE_TABLES - {"GridInfo"})
        (finding,) = check("database", replace(config(), ispyb_url=url))
        assert finding.level == "error"
        assert "1 of 25 tables are missing: GridInfo" in finding.message

    def test_one_that_hangs(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            url = f"mysql+pymysql://u:t0psecret@127.0.0.1:{port}/ispyb"
            (finding,) = check("database", replace(config(), ispyb_url=url), timeout=1)
        assert finding.level == "error"
        assert finding.message == "it did not end within 1 s"

    def test_none_is_configured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ISPYB_CREDENTIALS", raising=False)
        assert levels(check("database", config())) == {"": "skipped"}

    @pytest.mark.real("mariadb")
    def test_mariadb(self, mariadb: MariaDb, mariadb_url: str) -> None:
        create_schema(Database(mariadb_url), tables=CORE_TABLES)
        (good,) = check("database", replace(config(), ispyb_url=mariadb_url))
        assert good.level == "ok"
        wrong = mariadb_url.replace(mariadb.password, "t0psecret")
        (bad,) = check("database", replace(config(), ispyb_url=wrong))
        assert bad.level == "error"
        assert "t0psecret" not in repr(bad)


@pytest.mark.real("activemq")
def test_activemq(activemq: ActiveMQ) -> None:
    stomp = StompSettings("127.0.0.1", activemq.port, activemq.username, activemq.password, "health")
    results = run_checks(find_checks(["broker", "broker-load", "queues"]), Config(stomp=stomp))
    assert {one.check: one.finding.level for one in results} == {
        "broker": "ok",
        "broker-load": "ok",
        "queues": "ok",
    }
    load = next(one.finding.message for one in results if one.check == "broker-load")
    assert load.startswith("ActiveMQ")
    assert "memory" in load


@pytest.mark.real("rabbitmq")
def test_rabbitmq(vhost: VirtualHost) -> None:
    server = vhost.server
    pika = PikaSettings(server.host, server.port, server.username, server.password, vhost.name)
    api = RabbitMQAPISettings(
        f"http://{server.host}:{server.management_port}", server.username, server.password
    )
    site = Config(pika=pika, rabbitmqapi=api, transport_default="PikaTransport")
    vhost.api("PUT", "queues", "forgotten", {"durable": True})
    vhost.publish("forgotten", b"{}", {})
    results = run_checks(find_checks(["broker", "broker-load"]), site)
    assert {one.check: one.finding.level for one in results} == {"broker": "ok", "broker-load": "ok"}
    wait_until(
        lambda: levels(check("queues", site)).get("forgotten") == "warning",
        20,
        "RabbitMQ to count the message",
    )


def test_wrong_lists_are_told() -> None:
    (finding,) = check("services", config(services=[1]))
    assert finding.message == "parvis.health.services must be a list of texts"
