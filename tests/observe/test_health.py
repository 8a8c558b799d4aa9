"""Checks of a site's health, each on the real thing, well and unwell."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parvis.config import (
    Config,
    PikaSettings,
    RabbitMQAPISettings,
    SlurmSettings,
    StompSettings,
)
from parvis.observe.collector import Collector
from parvis.observe.health import Check, CheckResult, Finding, UnknownCheck, find_checks, run_checks, worst
from parvis.observe.health_files import LookFailed, look
from parvis.observe.health_history import History, HistoryError
from parvis.observe.records_place import open_writer
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


def config(broker: BrokerThread | None = None, **storage: Any) -> Config:
    """The configuration of a site, with keys of `parvis.health`."""
    port = broker.port if broker is not None else 1
    keys = {f"parvis.health.{name}": value for name, value in storage.items()}
    return Config(stomp=StompSettings("127.0.0.1", port, "", "", "test"), storage=keys)


def check(name: str, site: Config, timeout: float = 20) -> list[Finding]:
    """What a check finds."""
    return [result.finding for result in run_checks(find_checks([name]), site, timeout)]


def levels(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}


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

    def test_one_that_is_not_there(self) -> None:
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


def set_age(file: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(file, (moment, moment))


class TestFiles:
    def test_room(self, tmp_path: Path) -> None:
        wanted = {str(tmp_path): "1 kB", f"{tmp_path}/": "100%", "/nowhere": "5 %"}
        found = check("file-systems", config(file_systems=wanted))
        assert levels(found) == {str(tmp_path): "ok", f"{tmp_path}/": "error", "/nowhere": "error"}
        said = {finding.subject: finding.message for finding in found}
        assert said[f"{tmp_path}/"].endswith(", 100 % should be")
        assert said["/nowhere"] == "No such file or directory: '/nowhere'"

    @pytest.mark.parametrize("amount", ["50", "much", "-1 GB", "120%", "5 XB", True])
    def test_amounts_that_are_none(self, amount: Any) -> None:
        (finding,) = check("file-systems", config(file_systems={"/tmp": amount}))
        assert finding.level == "error"
        assert "must be like 50 GB or 5%" in finding.message

    def test_a_look_that_hangs_does_not_hold_up_the_others(self, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        script = "import sys\nopen(sys.argv[1]).read()\nprint(1)"
        (tmp_path / "file").touch()
        begun = time.monotonic()
        found = look(script, [str(fifo), str(tmp_path / "file")], patience=2)
        assert time.monotonic() - begun < 10
        assert found == {str(fifo): "no answer within 2 s: it hangs", str(tmp_path / "file"): 1}
        assert isinstance(found[str(fifo)], LookFailed)

    def test_stores(self, tmp_path: Path) -> None:
        found = check("stores", config(stores=[str(tmp_path), "/proc"]))
        assert levels(found) == {"/proc": "error", str(tmp_path): "ok"}
        assert list(tmp_path.iterdir()) == []

    def test_requests_that_wait(self, tmp_path: Path) -> None:
        site = config()
        site = replace(site, storage={"zocalo.go.fallback_location": str(tmp_path / "drop")})
        assert levels(check("drop-files", site)) == {str(tmp_path / "drop"): "ok"}
        (tmp_path / "drop" / "broken").mkdir(parents=True)
        file = tmp_path / "drop" / "request"
        file.write_text("{}")
        (tmp_path / "drop" / ".being-written.part").touch()
        assert [finding.message for finding in check("drop-files", site)] == [
            "1 request waiting, the oldest for 0 s"
        ]
        set_age(file, 700)
        assert check("drop-files", site)[0].level == "warning"
        set_age(file, 7000)
        (tmp_path / "drop" / "broken" / "bad").touch()
        assert [finding.level for finding in check("drop-files", site)] == ["error", "warning"]

    def test_records(self, tmp_path: Path) -> None:
        site = replace(config(), storage={"parvis.state_directory": str(tmp_path)})
        assert levels(check("records", site)) == {"": "skipped"}
        with Collector(lambda: open_writer(site)) as collector:
            collector.announce("127.0.0.1:12201")
            (finding,) = check("records", site)
            assert (finding.level, finding.message) == (
                "ok",
                "a collector takes log records at 127.0.0.1:12201",
            )
            directory = collector.directory
        assert levels(check("records", site)) == {str(directory): "warning"}
        next(directory.glob("*.sqlite")).write_bytes(b"nonsense" * 1000)
        assert levels(check("records", site)) == {str(directory): "error"}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a program of a scheduler, which stands for the one of a site."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))

    def make(name: str, text: str) -> None:
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)

    return make


class TestScheduler:
    def test_none(self) -> None:
        assert levels(check("scheduler", config())) == {"": "skipped"}

    @pytest.mark.parametrize(
        ("script", "level", "message"),
        [
            ("echo 'cs04r 10 idle'; echo 'gpu 2 mixed'", "ok", "2 partitions, 12 nodes or slots"),
            ("echo 'cs04r 10 idle'; echo 'cs04r 2 down*'", "warning", "1 partition, 2 of 12 do not work"),
            ("echo 'cs04r 10 drained'", "error", "1 partition, and nothing of 10 works"),
            ("echo 'slurm_load_partitions: no contact' >&2; exit 1", "error", "sinfo failed: slurm_load"),
            ("echo nonsense", "error", "sinfo shows no partition"),
        ],
    )
    def test_slurm(self, programs: Callable[[str, str], None], script: str, level: str, message: str) -> None:
        programs("sinfo", script)
        (finding,) = check("scheduler", config(scheduler="slurm"))
        assert (finding.subject, finding.level) == ("slurm", level)
        assert finding.message.startswith(message)

    def test_grid_engine(self, programs: Callable[[str, str], None]) -> None:
        programs(
            "qstat",
            "echo 'CLUSTER QUEUE CQLOAD USED RES AVAIL TOTAL aoACDS cdsuE'; echo ---------;"
            "echo 'high.q 0.42 10 0 80 100 0 10'",
        )
        (finding,) = check("scheduler", config(scheduler=["gridengine"]))
        assert (finding.level, finding.message) == ("warning", "1 queue, 10 of 100 do not work")

    @pytest.mark.usefixtures("programs")
    def test_programs_that_are_not_there(self) -> None:
        found = check("scheduler", config(scheduler=["slurm", "gridengine", "pbs"]))
        assert levels(found) == {"slurm": "error", "gridengine": "error", "pbs": "error"}
        assert found[0].message == "there is no program sinfo on the path"

    def test_rest(self, slurm: _Slurm, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("jwt\n")
        settings = SlurmSettings(slurm.url, "v0.0.40", "gda2", str(token))
        (finding,) = check("scheduler", replace(config(), slurm=settings))
        assert (finding.level, finding.message) == ("ok", "1 of 1 controllers are up (ctl1)")
        slurm.pings.append({"hostname": "ctl2", "pinged": "DOWN"})
        (finding,) = check("scheduler", replace(config(), slurm=settings))
        assert (finding.level, finding.message) == ("warning", "1 of 2 controllers are up (ctl1, ctl2)")
        (finding,) = check("scheduler", replace(config(), slurm=replace(settings, user_token="stale")))
        assert finding.level == "error"
        assert "answers 401: the user or the token is no good" in finding.message


class _Slurm:
    """What Slurm's REST interface says to a ping."""

    def __init__(self) -> None:
        self.pings: list[dict[str, Any]] = [{"hostname": "ctl1", "pinged": "UP"}]
        self.url = ""


@pytest.fixture
def slurm() -> Iterator[_Slurm]:
    """A server that answers as slurmrestd does, to those who have the token `jwt`."""
    state = _Slurm()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = (
                self.headers["X-SLURM-USER-TOKEN"] == "jwt" and self.headers["X-SLURM-USER-NAME"] == "gda2"
            )
            right = self.path == "/slurm/v0.0.40/ping"
            self.send_response((200 if right else 404) if known else 401)
            self.end_headers()
            self.wfile.write(json.dumps({"pings": state.pings}).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def bad(name: str, subject: str = "", message: str = "away", level: Any = "error") -> CheckResult:
    return CheckResult(name, Finding(level, message, subject), 0.1)


def good(name: str, subject: str = "") -> CheckResult:
    return CheckResult(name, Finding("ok", "fine", subject), 0.1)


class TestHistory:
    @pytest.fixture
    def history(self, tmp_path: Path) -> History:
        return History(tmp_path / "state" / "health.sqlite", "a site")

    def test_it_knows_since_when(self, history: History) -> None:
        assert history.take([bad("broker")], now=100).results[0].since == 100
        assert history.take([bad("broker", level="warning")], now=200).results[0].since == 100
        after = history.take([good("broker")], now=300)
        assert after.results[0].since is None
        (cleared,) = after.cleared
        assert (cleared.check, cleared.level, cleared.since, cleared.at) == ("broker", "warning", 100, 300)
        (still,) = history.take([good("broker")], now=400).cleared
        assert still.at == 300
        again = history.take([bad("broker")], now=500)
        assert (again.results[0].since, again.cleared) == (500, [])

    def test_what_a_check_speaks_of_no_more_is_well(self, history: History) -> None:
        history.take([bad("queues", "work"), bad("queues", "other")], now=1)
        after = history.take([good("queues"), bad("queues", "other")], now=2)
        assert [(one.subject, one.at) for one in after.cleared] == [("work", 2)]

    def test_nothing_is_known_of_what_was_not_looked_at(self, history: History) -> None:
        history.take([bad("queues", "work")], now=1)
        for now, result in enumerate(
            [bad("queues"), CheckResult("queues", Finding("skipped", "no figures"), 0), good("broker")], 2
        ):
            assert not [one for one in history.take([result], now=now).cleared if one.subject == "work"]
        assert history.take([bad("queues", "work")], now=9).results[0].since == 1

    def test_a_dry_run_writes_nothing(self, history: History, tmp_path: Path) -> None:
        history.take([bad("broker")], now=1, write=False)
        assert not (tmp_path / "state").exists()
        history.take([bad("broker")], now=2)
        before = (tmp_path / "state" / "health.sqlite").read_bytes()
        dry = history.take([bad("broker"), bad("queues")], now=3, write=False)
        assert [one.since for one in dry.results] == [2, 3]
        assert history.take([good("broker")], now=4, write=False).cleared[0].at == 4
        assert (tmp_path / "state" / "health.sqlite").read_bytes() == before

    def test_sites_are_kept_apart_and_old_ones_forgotten(self, history: History, tmp_path: Path) -> None:
        other = History(tmp_path / "state" / "health.sqlite", "another site")
        history.take([bad("broker")], now=1)
        assert other.take([good("broker")], now=2).cleared == []
        history.take([good("broker")], now=3)
        assert history.take([good("broker")], now=3 + 31 * 86_400).cleared == []

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "health.sqlite").write_bytes(b"nonsense" * 1000)
        with pytest.raises(HistoryError, match=r"health\.sqlite"):
            History(tmp_path / "health.sqlite", "a site").take([good("broker")])


def test_wrong_lists_are_told() -> None:
    (finding,) = check("services", config(services=[1]))
    assert finding.message == "parvis.health.services must be a list of texts"
