"""`parvis logs`: what it asks for and how it shows what it finds, in records and in Graylog."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from http_server import HttpServer, Quiet
from parvis.cli import main
from parvis.cli.log_lines import lines_of
from parvis.observe.log_record import LogRecord
from parvis.observe.records import RecordsWriter
from parvis.transport.embedded import BrokerThread
from running import broker_environment
from waiting import wait_until

RECIPE = "8e2e8e3c-5f0a-4f4e-9d5c-0123456789ab"
NOW = time.time()


def add(directory: Path, *records: LogRecord) -> None:
    with RecordsWriter(directory) as writer, writer.writing() as database:
        writer.add_logs(database, records)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A directory with some records."""
    directory = tmp_path / "records"
    place = {
        "file": "/opt/pia.py",
        "line": 30,
        "function": "analyse",
        "pid": 11,
        "process_name": "MainProcess",
    }
    more = {"thread_name": "Thread-1", "workflows_statustext": "processing", "workflows_zocalo": "1.5.0"}
    add(
        directory,
        LogRecord(NOW - 7_000, 6, "parvis.host", "two hours ago"),
        LogRecord(NOW - 30, 6, "parvis.host", "ready"),
        LogRecord(
            NOW - 20,
            3,
            "parvis.service.PerImageAnalysis",
            "xtal_0042.cbf is no image",
            "xtal_0042.cbf is no image\nTraceback: it is not",
            "i03-cluster",
            "PerImageAnalysis",
            RECIPE,
            {**place, **more},
        ),
        *[
            LogRecord(NOW - 10 + n, 4, "dlstbx", f"slow {n}", fields={"file": "a.py", "line": 5})
            for n in range(5)
        ],
        LogRecord(NOW - 5, 7, "parvis.host", "detail"),
    )
    return directory


def logs(directory: Path | None, *arguments: str, **environment: str) -> Result:
    place = {"PARVIS_RECORDS_DIRECTORY": str(directory)} if directory else {}
    return CliRunner(env=place | environment).invoke(main, ["logs", *arguments])


def shown(directory: Path, *arguments: str) -> list[str]:
    """The messages that are shown."""
    done = logs(directory, "--json", *arguments)
    assert done.exit_code == 0, done.output
    return [json.loads(line)["message"] for line in done.stdout.splitlines()]


def test_by_default_the_last_ten_minutes_are_shown_without_debugging(records: Path) -> None:
    done = logs(records)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} parvis\.host", lines[0])
    assert lines[1] == "  ready"
    assert lines[1::2] == [
        "  ready",
        "  xtal_0042.cbf is no image",
        *[f"  slow {n}" for n in range(5)],
    ]


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--time", "3h", "--filter", "hours ago"], ["two hours ago"]),
        (["--since", "3h", "-s", "host"], ["two hours ago", "ready"]),
        (["--since", "2001-01-01", "--level", "error"], ["xtal_0042.cbf is no image"]),
        (["-r", RECIPE[:8]], ["xtal_0042.cbf is no image"]),
        (
            ["--service", "perimageanalysis", "--facility", "dlstbx", "-n", "3"],
            ["slow 2", "slow 3", "slow 4"],
        ),
        (["--level", "debug", "--filter", "detail"], ["detail"]),
        (["--filter", "xtal_004*"], ["xtal_0042.cbf is no image"]),
        (["--filter", "nothing of the kind"], []),
    ],
)
def test_only_what_is_asked_for_is_shown(records: Path, arguments: list[str], messages: list[str]) -> None:
    assert shown(records, *arguments) == messages


def test_each_v_shows_more(records: Path) -> None:
    def lines(*arguments: str) -> list[str]:
        return logs(records, "-r", RECIPE, *arguments).stdout.splitlines()

    assert lines("-v")[0].endswith(" parvis.service.PerImageAnalysis i03-cluster PerImageAnalysis")
    head, *body = lines("-vv")
    assert head.endswith(" PerImageAnalysis /opt/pia.py:30 (analyse)")
    assert body == ["  xtal_0042.cbf is no image", "  Traceback: it is not"]
    assert lines("-vvv")[1] == f"  MainProcess:Thread-1, processing, zocalo 1.5.0, recipe {RECIPE}"
    dump = lines("-vvvv")
    assert f"              recipe_ID: {RECIPE}" in dump
    assert "       workflows_zocalo: 1.5.0" in dump
    assert "                message: xtal_0042.cbf is no image" in dump
    assert all(line == "" or line[23] == ":" or line.startswith(" " * 25) for line in dump)


def test_similar_ones_are_shown_once(records: Path) -> None:
    done = logs(records, "-a", "--level", "warning")
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    note = "  (representative of a group of 5 similar messages)"
    assert lines == ["  xtal_0042.cbf is no image", "  slow 4", note]
    found = [json.loads(line) for line in logs(records, "-a", "--json").stdout.splitlines()]
    assert [one["similar"] for one in found] == [1, 1, 5]


def test_that_there_is_more_is_said(records: Path) -> None:
    done = logs(records, "-n", "2")
    assert "the newest 2; there may be more" in done.stderr


def test_that_there_is_nothing_is_said(records: Path) -> None:
    done = logs(records, "--filter", "nosuchword", "--level", "error")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "answers to that, of level error or more urgent" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-a", "-f"], "choose one"),
        (["--time", "soon"], "no length of time"),
        (["--since", "yesterday"], "no moment"),
        (["--since", "99999-99-99"], "no moment"),
        (["--level", "loud"], "'loud' is not one of"),
        (["--filter", "=>"], "no letter or digit"),
        (["-n", "0"], "0 is not in the range"),
        (["--from", "graylog"], "no Graylog server is configured: set parvis.graylog.url"),
    ],
)
def test_a_wrong_call_is_explained(records: Path, arguments: list[str], complaint: str) -> None:
    done = logs(records, *arguments)
    assert done.exit_code == 2
    assert complaint in done.stderr


def test_that_there_are_no_records_is_said_with_what_to_do(tmp_path: Path) -> None:
    done = logs(tmp_path)
    assert done.exit_code == 1
    assert "`parvis collect` or `parvis up` takes them" in done.stderr


@pytest.mark.parametrize("detail", range(5))
def test_hostile_text_harms_no_terminal(detail: int) -> None:
    evil = "\x1b[2J\x1b]0;x\x07\r\x9b31m\u202etxt\u2066 [bold]x[/bold] {x} %s\n2026-01-01 fake"
    record = LogRecord(
        NOW,
        3,
        evil,
        evil + "x" * 10_000_000,
        evil,
        evil,
        evil,
        evil,
        {"file": evil, "line": evil, evil: evil, "n" * 999: 1},
    )
    text = lines_of(record, detail, colour=True)
    assert not re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert set(re.findall(r"\x1b.{4}", text)) <= {"\x1b[31m", "\x1b[0m\n"} | {
        f"\x1b[0m{sign}" for sign in "\n "
    }
    assert "[bold]x[/bold] {x} %s" in text
    assert not re.search(r"^2026-01-01 fake", text, re.MULTILINE)
    assert len(text) < (30_000 if detail < 4 else 11_000_000)


@contextlib.contextmanager
def following(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`parvis logs --follow`, and its lines as they come."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "parvis", "logs", "--follow", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        lines.extend(iter(process.stdout.readline, ""))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield process, lines
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        reader.join()


def test_what_comes_is_followed_even_if_it_comes_late(records: Path) -> None:
    with following("--json", "--level", "warning", PARVIS_RECORDS_DIRECTORY=str(records)) as (_, lines):
        wait_until(lambda: len(lines) == 6, 20, "what is there")
        add(records, LogRecord(NOW - 500, 3, "x", "late"), LogRecord(NOW, 6, "x", "no warning"))
        add(records, LogRecord(time.time(), 3, "x", "now"))
        wait_until(lambda: len(lines) == 8, 20, "what came")
        assert [json.loads(line)["message"] for line in lines[6:]] == ["late", "now"]


def test_what_services_of_parvis_up_log_is_there_at_once(tmp_path: Path, broker: BrokerThread) -> None:
    environment = broker_environment(broker.port) | {"XDG_STATE_HOME": str(tmp_path)}

    @contextlib.contextmanager
    def up(*names: str) -> Iterator[None]:
        command = [sys.executable, "-m", "parvis", "up", *names]
        process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(40) == 0

    def has_logged(what: str) -> bool:
        done = CliRunner(env=environment).invoke(main, ["logs", "--filter", what, "-s", "parvis.host"])
        return done.exit_code == 0 and what in done.stdout

    with up("JSONLines"):
        wait_until(lambda: has_logged("ready: JSONLines"), 30, "the first service")
        with up("NotifyGDA"):  # in another terminal: the first collects for both
            wait_until(lambda: has_logged("ready: NotifyGDA"), 30, "the second service")
    assert has_logged("ready: JSONLines")


class GraylogServer(HttpServer):
    """Answers searches in the documented forms, and notes how it was asked."""

    def __init__(self) -> None:
        self.is_old = False
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.answer: Any = None
        outer = self

        class Handler(Quiet, BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if outer.is_old or self.path != "/graylog/api/views/search/sync":
                    self._say(404, {"type": "ApiError", "message": "HTTP 404 Not Found"})
                    return
                assert self.headers["x-requested-by"], "a server refuses what might come from a browser"
                (query,) = content["queries"]
                (wanted,) = query["search_types"]
                outer.note(
                    self.headers["authorization"],
                    query["query"]["query_string"],
                    wanted["limit"],
                    query["timerange"],
                )
                found = {"type": "messages", "total_results": 1, "messages": outer.wrapped()}
                result = {"errors": [], "search_types": {wanted["id"]: found}}
                self._say(201, {"execution": {"done": True}, "results": {query["id"]: result}})

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                assert parts.path == "/graylog/api/search/universal/absolute"
                asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
                assert asked["sort"] in ("timestamp:desc", "timestamp:asc")
                outer.note(self.headers["authorization"], asked["query"], int(asked["limit"]), asked)
                self._say(200, {"query": asked["query"], "messages": outer.wrapped(), "total_results": 1})

            def _say(self, status: int, content: Any) -> None:
                status = outer.status if outer.status != 200 else status
                body = json.dumps(content).encode() if outer.answer is None else outer.answer
                self.send_response(status)
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Handler)
        self.url += "/graylog/"

    def note(self, login: str, query: str, limit: int, times: dict[str, Any]) -> None:
        user = base64.b64decode(login.removeprefix("Basic ")).decode()
        self.asked.append(
            {"user": user, "query": query, "limit": limit, "from": times["from"], "to": times["to"]}
        )

    def wrapped(self) -> list[dict[str, Any]]:
        return [
            {"message": message, "index": "graylog_0", "highlight_ranges": {}} for message in self.messages
        ]


@pytest.fixture
def graylog() -> Iterator[GraylogServer]:
    with GraylogServer() as server:
        server.messages = [graylog_message("1", "from graylog")]
        yield server


def graylog_message(identity: str, text: str) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S.123Z", time.gmtime())
    more = {"facility": "dlstbx", "workflows_service": "X", "recipe_ID": RECIPE, "file": "a.py", "line": 3}
    return {"_id": identity, "timestamp": moment, "source": "cs05r", "level": 3, "message": text, **more}


def in_graylog(server: GraylogServer, *arguments: str) -> Result:
    return logs(None, *arguments, PARVIS_GRAYLOG_URL=server.url, PARVIS_GRAYLOG_TOKEN="s3cret-token")


@pytest.mark.parametrize("is_old", [False, True])
def test_graylog_is_searched_where_one_is_configured(graylog: GraylogServer, is_old: bool) -> None:
    graylog.is_old = is_old
    asked = ["-r", RECIPE, "-s", "a", "-s", 'b"c', "--level", "warning", "--filter", "x y", "-n", "7", "-v"]
    done = in_graylog(graylog, *asked)
    assert done.exit_code == 0, done.output
    head, message = done.stdout.splitlines()
    assert head.endswith(".123 dlstbx cs05r X")
    assert message == "  from graylog"
    (request,) = graylog.asked
    assert request["user"] == "s3cret-token:token"
    assert request["limit"] == 7
    sources = '("a" OR "b\\"c")'
    assert request["query"] == (
        f"(facility:{sources} OR workflows_service:{sources})"
        f' AND recipe_ID:"{RECIPE}" AND level:<=4 AND message:"x y"'
    )
    begin, end = (time.strptime(request[key], "%Y-%m-%dT%H:%M:%S.%fZ") for key in ("from", "to"))
    assert time.mktime(end) - time.mktime(begin) == pytest.approx(600, abs=2)


def test_parts_of_words_and_recipes_are_asked_of_graylog(graylog: GraylogServer) -> None:
    assert in_graylog(graylog, "--level", "debug").exit_code == 0
    assert in_graylog(graylog, "-r", "8e2e8e3c", "--filter", "xtal*").exit_code == 0
    assert [asked["query"] for asked in graylog.asked] == [
        "*",
        "recipe_ID:8e2e8e3c* AND level:<=6 AND message:xtal*",
    ]


@pytest.mark.parametrize(
    ("status", "answer", "complaint"),
    [
        (401, None, "does not let us in (401): see parvis.graylog.token"),
        (302, None, "answers 302"),
        (500, None, "answers 500"),
        (200, b"<html>", "not JSON"),
        (200, b"[]", "without messages"),
        (
            200,
            b'{"results": {"q": {"errors": [{"description": "bad query"}]}}}',
            "refuses the search: bad query",
        ),
    ],
)
def test_what_graylog_cannot_do_is_said_without_the_secret(
    graylog: GraylogServer, status: int, answer: bytes | None, complaint: str
) -> None:
    graylog.status, graylog.answer = status, answer
    done = in_graylog(graylog)
    assert done.exit_code == 1
    assert complaint in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(
    ("url", "token", "complaint"),
    [
        ("ftp://x", "t", "must be an address"),
        ("http://x:99999999", "t", "must be an address"),
        ("http://user:pw@x", "t", "must be an address"),
        ("http://x", "", "needs parvis.graylog.token"),
    ],
)
def test_wrong_settings_of_graylog_are_said(url: str, token: str, complaint: str) -> None:
    done = logs(None, PARVIS_GRAYLOG_URL=url, PARVIS_GRAYLOG_TOKEN=token)
    assert done.exit_code == 2
    assert complaint in done.stderr


def test_following_outlives_trouble_of_the_server(graylog: GraylogServer) -> None:
    where = {"PARVIS_GRAYLOG_URL": graylog.url, "PARVIS_GRAYLOG_TOKEN": "s3cret-token"}
    with following(**where) as (_, lines):
        wait_until(lambda: len(lines) == 2, 20, "what is there")
        graylog.status = 503
        wait_until(lambda: any("answers 503" in line for line in lines), 20, "the complaint")
        graylog.messages.append(graylog_message("2", "second"))
        graylog.status = 200
        wait_until(lambda: "  second\n" in lines, 20, "the new record")
        count = len(graylog.asked)
        wait_until(lambda: len(graylog.asked) > count + 1, 20, "two more looks")
        assert lines.count("  from graylog\n") == lines.count("  second\n") == 1
        assert sum("answers 503" in line for line in lines) == 1
    assert "s3cret" not in "".join(lines)
