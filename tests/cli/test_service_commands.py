"""`parvis service`, `parvis up` and `parvis broker`, as somebody at a terminal uses them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from parvis.transport.embedded.thread import BrokerThread
from running import Listener, broker_environment, connected, recipe_message
from waiting import wait_until


def parvis(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parvis", *arguments],
        env=os.environ | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def started(log: Path, *arguments: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "parvis", *arguments],
            env=os.environ | dict(environment),
            stdout=file,
            stderr=file,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=40)


def test_services_are_listed_with_queue_and_purpose() -> None:
    listed = parvis("service", "--json")
    services = {row["service"]: row for row in json.loads(listed.stdout)}
    assert services["PerImageAnalysis"]["queue"] == "per_image_analysis"
    assert "spots" in services["PerImageAnalysis"]["about"]
    assert "filewatcher" in parvis("service").stdout


@pytest.mark.parametrize(
    ("name", "complaint"), [("nonsense", "no service 'nonsense'"), ("", "several services")]
)
def test_a_name_that_is_no_service_is_an_error_that_lists_them(name: str, complaint: str) -> None:
    done = parvis("service", "-s", name)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "PerImageAnalysis" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_letters_are_enough_and_ctrl_c_is_a_good_end(broker: BrokerThread, tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = broker_environment(broker.port)
    with started(log, "service", "-s", "notif", environment=environment) as process:
        wait_until(lambda: "ready: NotifyGDA" in log.read_text(), 30, "the service")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert "Traceback" not in log.read_text()


def test_a_service_listens_where_it_is_told_to(broker: BrokerThread, tmp_path: Path) -> None:
    log = tmp_path / "log"
    file = tmp_path / "lines.jsonl"
    environment = broker_environment(broker.port)
    with (
        started(log, "service", "-s", "JSONLines", "-q", "other", environment=environment),
        connected(broker.port) as transport,
    ):
        message = recipe_message("jsonlines", {"n": 1}, parameters={"output_filename": str(file)})
        transport.send(type(message)("other", message.body, message.headers))
        wait_until(file.exists, 30, "the line")


def test_a_service_without_a_broker_says_so(tmp_path: Path) -> None:
    with BrokerThread(port=0) as gone:
        port = gone.port
    done = parvis("service", "-s", "NotifyGDA", environment=broker_environment(port))
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_waits_for_a_broker_can_be_stopped(tmp_path: Path) -> None:
    with BrokerThread(port=0) as gone:
        port = gone.port
    log = tmp_path / "log"
    with started(log, "service", "-s", "NotifyGDA", environment=broker_environment(port)) as process:
        wait_until(lambda: "no broker yet" in log.read_text(), 20, "the first attempt")
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_a_service_that_needs_a_database_says_so(broker: BrokerThread) -> None:
    done = parvis("service", "-s", "ISPyBPIA", environment=broker_environment(broker.port))
    assert done.returncode == 1
    assert "PARVIS_ISPYB_URL" in done.stderr


def test_up_runs_what_a_file_lists(broker: BrokerThread, tmp_path: Path) -> None:
    log = tmp_path / "log"
    listed = tmp_path / "services.yml"
    listed.write_text("services: {NotifyGDA: 2}")
    environment = broker_environment(broker.port)
    with (
        connected(broker.port) as transport,
        started(log, "up", "jsonlines", "--file", str(listed), environment=environment) as process,
    ):
        wait_until(lambda: log.read_text().count("ready: NotifyGDA") == 2, 30, "two of NotifyGDA")
        wait_until(lambda: "ready: JSONLines" in log.read_text(), 30, "JSONLines")
        file = tmp_path / "lines.jsonl"
        transport.send(recipe_message("jsonlines", {"n": 1}, parameters={"output_filename": str(file)}))
        wait_until(file.exists, 30, "the line")
        process.terminate()
        assert process.wait(timeout=40) == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("services: {NotifyGDA: many}", "number of instances"),
        ("services: {NotifyGDA: 0}", "number of instances"),
        ("services: {Nonsense: 1}", "no service 'Nonsense'"),
        ("[1, 2]", "mapping"),
        ("services: {", "not YAML"),
        ("", "mapping"),
    ],
)
def test_up_refuses_a_bad_file(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "services.yml"
    file.write_text(text)
    done = parvis("up", "--file", str(file))
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_keeps_messages_in_its_journal(tmp_path: Path) -> None:
    log, journal = tmp_path / "log", tmp_path / "journal.db"
    port = 0
    for restart in (False, True):
        with started(
            log, "broker", "--port", str(port), "--journal", str(journal), environment={}
        ) as process:
            wait_until(lambda: "Listening at" in log.read_text(), 20, "the broker")
            port = int(log.read_text().partition("Listening at 127.0.0.1:")[2].partition(".")[0])
            assert "one machine" in log.read_text()
            with connected(port) as transport:
                if restart:
                    Listener(transport, "kept").wait_for(1)
                else:
                    transport.send(recipe_message("kept", {"n": 1}))
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--host", "0.0.0.0"], 1, "--allow-remote"),  # noqa: S104 - it is refused
        (["--host", "no.such.host.invalid"], 1, "no.such.host.invalid"),
        (["--port", "70000"], 2, "--port"),
        (["--journal", "/proc/nowhere/journal.db"], 1, "journal"),
        (["--passcode", "secret"], 2, "--login"),
        (["--login", "parvis"], 2, "PARVIS_BROKER_PASSCODE"),
        (["--login", "parvis", "--passcode", ""], 2, "PARVIS_BROKER_PASSCODE"),
    ],
)
def test_a_broker_that_cannot_start_says_why(arguments: list[str], code: int, complaint: str) -> None:
    done = parvis("broker", "--port", "0", *arguments)
    assert done.returncode == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
