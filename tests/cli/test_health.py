"""`parvis health`, with an embedded broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
from click.testing import CliRunner, Result

from parvis.cli import main
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from running import broker_environment
from waiting import wait_until

SITE = """
version: 1
health:
  plugin: storage
  parvis.health.file_systems: {"/": 1 kB, "/nowhere": 5%}
environments: {default: [health]}
"""


@pytest.fixture
def runner(broker: BrokerThread, tmp_path: Path) -> CliRunner:
    site = tmp_path / "site.yml"
    site.write_text(SITE)
    variables = {"ZOCALO_CONFIG": str(site), "PARVIS_STATE_DIRECTORY": str(tmp_path / "state")}
    variables["PARVIS_FALLBACK_LOCATION"] = str(tmp_path / "drop")
    return CliRunner(env=broker_environment(broker.port) | variables)


def run(runner: CliRunner, *words: str) -> Result:
    return runner.invoke(main, ["health", *words])


def test_the_worst_comes_first(runner: CliRunner, transport: StompTransport) -> None:
    transport.send(Send("forgotten", b"{}"))
    result = run(runner)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == [
        *("error", "file-systems", "/nowhere", "No", "such", "file", "or", "directory:", "'/nowhere'"),
    ]
    assert lines[1].strip().startswith("First seen at 20")
    assert lines[2].strip() == "→ See whether it is mounted and its server answers."
    assert lines[3].startswith("warning")
    assert "queues forgotten" in lines[3]
    assert [line.split()[1] for line in lines if line.startswith("ok")] == [
        *("broker", "broker-load", "queues", "file-systems", "drop-files"),
    ]
    assert lines[-1] == "1 error, 1 warning, 6 skipped, 5 ok"


def test_warnings_are_no_errors_and_quiet_shows_only_what_is_bad(
    runner: CliRunner, transport: StompTransport
) -> None:
    transport.send(Send("forgotten", b"{}"))
    result = run(runner, "-q", "--check", "queues", "--check", "broker")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3
    assert "nobody takes them" in result.stdout
    assert run(runner, "-q", "--check", "broker").stdout == ""


def test_it_remembers_since_when(runner: CliRunner, transport: StompTransport, tmp_path: Path) -> None:
    transport.send(Send("forgotten", b"{}"))
    begun = time.time()
    words = ("--check", "queues", "--json")
    run(runner, *words, "--dry-run")
    assert not (tmp_path / "state").exists()
    first = json.loads(run(runner, *words).stdout)
    assert first["level"] == "warning"
    assert begun <= first["results"][0]["since"] <= time.time()
    second = json.loads(run(runner, *words).stdout)
    assert second["results"][0]["since"] == first["results"][0]["since"]
    transport.subscribe("forgotten", lambda _: None)
    after = json.loads(run(runner, *words).stdout)
    assert after["level"] == "ok"
    (cleared,) = after["cleared"]
    assert (cleared["check"], cleared["subject"], cleared["level"]) == ("queues", "forgotten", "warning")
    assert "queues forgotten: warning cleared at 20" in run(runner, "--check", "queues").stdout


def test_junit(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "health.xml"
    result = run(
        runner, "-o", str(file), "--check", "file-systems", "--check", "broker", "--check", "services"
    )
    assert result.exit_code == 1
    suite = ElementTree.parse(file).getroot()  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "1")
    cases = {case.get("name"): case for case in suite}
    failure = cases["file-systems /nowhere"].find("failure")
    assert failure is not None
    assert failure.get("message") == "No such file or directory: '/nowhere'"
    assert cases["services"].find("skipped") is not None
    assert float(cases["broker"].get("time") or "") > 0


def test_list(runner: CliRunner) -> None:
    result = run(runner, "--list")
    assert result.exit_code == 0
    rows = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert rows["database"].strip() == "The metadata database answers, and has the tables that we need."
    assert {row["package"] for row in json.loads(run(runner, "--list", "--json").stdout)} == {"", "parvis"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--check", "brokr"], "Did you mean 'broker'?"),
        (["-v", "-q"], "-v and -q cannot go together"),
        (["--timeout", "0"], "--timeout"),
        (["-o", "/nowhere/health.xml"], "there is no directory /nowhere"),
    ],
)
def test_wrong_use(runner: CliRunner, words: list[str], message: str) -> None:
    result = run(runner, *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_state_directory_that_is_none_costs_the_times_alone(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    result = run(runner, "--check", "broker")
    assert result.exit_code == 0
    assert result.stdout.startswith("ok")
    assert "Since when something is not well is not known" in result.stderr


def test_the_command_ends_though_a_check_hangs(broker: BrokerThread, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    site = tmp_path / "site.yml"
    site.write_text(SITE.replace("/nowhere", str(tmp_path / "fifo")))
    variables = {"ZOCALO_CONFIG": str(site), "PARVIS_STATE_DIRECTORY": str(tmp_path)}
    command = [sys.executable, "-m", "parvis", "health", "--timeout", "1", "--check", "broker"]
    done = subprocess.run(
        [*command, "--check", "file-systems"],
        env=os.environ | broker_environment(broker.port) | variables,
        capture_output=True,
        text=True,
        timeout=8,  # less than a look at a file system may take
        check=False,
    )
    assert done.returncode == 1
    first, *_, last = done.stdout.splitlines()
    assert first.split(maxsplit=2) == ["error", "file-systems", "it did not end within 1 s"]
    assert last == "1 error, 1 ok"
    wait_until(lambda: not _processes_with(tmp_path / "fifo"), 30, "the look that hangs to end by itself")


def _processes_with(argument: Path) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if str(argument) in (one.info["cmdline"] or ())]
