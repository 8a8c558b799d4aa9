"""`parvis go` as a program: what it prints, sends and stores, with brokers of every kind of health."""

import json
import os
import queue
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from parvis.cli import main
from parvis.config import Config, StompSettings
from parvis.transport.base import Message
from parvis.transport.embedded.settings import Settings
from parvis.transport.embedded.thread import BrokerThread
from real.daemon import free_ports

RECIPE = '{"1": {"queue": "a", "output": 2}, "2": {"queue": "b"}, "start": [[1, []]]}'


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("PARVIS_", "ZOCALO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARVIS_FALLBACK_LOCATION", str(tmp_path / "drop"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ok.json").write_text(RECIPE)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerThread]:
    with BrokerThread() as broker:
        monkeypatch.setenv("PARVIS_STOMP_HOST", broker.host)
        monkeypatch.setenv("PARVIS_STOMP_PORT", str(broker.port))
        yield broker


def go(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["go", *arguments])


def received(broker: BrokerThread) -> Message:
    """The one message that is in the queue of the dispatcher."""
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    transport = Config(stomp=StompSettings(broker.host, broker.port)).transport()
    transport.connect(timeout=10)
    transport.subscribe("processing_recipe", inbox.put)
    message = inbox.get(timeout=10)
    transport.disconnect()
    return message


def sent(broker: BrokerThread) -> Any:
    return json.loads(received(broker).body)


def drop_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "drop").iterdir()) if (tmp_path / "drop").exists() else []


def test_message_and_headers(broker: BrokerThread):
    result = go("-r", "a", "-r", "b", "-s", "x=1", "-s", "y=a=b", "-a", "7", "993677")
    assert result.exit_code == 0
    message = received(broker)
    assert json.loads(message.body) == {
        "recipes": ["a", "b"],
        "parameters": {"x": "1", "y": "a=b", "ispyb_dcid": 993677, "ispyb_autoprocscalingid": 7},
    }
    assert message.headers["zocalo.go.host"] == socket.gethostname()
    assert message.headers["zocalo.go.user"]
    assert message.headers["persistent"] == "true"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "12"], {"recipes": [], "parameters": {"ispyb_process": 12}}),
        (["-n", "-r", "a"], {"recipes": ["a"], "parameters": {}}),
        (
            ["-r", "mimas", "-s", "event=end", "-s", "ispyb_wait_for_runstatus=1", "12"],
            {
                "recipes": ["mimas"],
                "parameters": {"event": "end", "ispyb_wait_for_runstatus": "1", "ispyb_dcid": 12},
            },
        ),
        (["-s", "ispyb_dcid=3", "-r", "a", "12"], {"recipes": ["a"], "parameters": {"ispyb_dcid": 12}}),
        (["-r", "a", "-r", "b", "--not", "a", "12"], {"recipes": ["b"], "parameters": {"ispyb_dcid": 12}}),
        (["-d", "12"], {"recipes": ["mimas"], "parameters": {"event": "end", "ispyb_dcid": 12}}),
        (
            ["-f", "ok.json", "-n"],
            {
                "recipes": [],
                "parameters": {},
                "custom_recipe": {
                    "1": {"queue": "a", "output": [2]},
                    "2": {"queue": "b"},
                    "start": [[1, []]],
                },
            },
        ),
    ],
)  # fmt: skip
def test_options_become_the_message(broker: BrokerThread, arguments: list[str], message: dict[str, Any]):
    assert go(*arguments).exit_code == 0
    assert sent(broker) == message


SAME_OUTPUT = [
    "-r a 993677",
    "-r a -r b 993677",
    "-p 12",
    "-p -r a 12",
    "-p -n",
    "-n -r a",
    "-n -r a 12",
    "-r a -s x=1 -s y=a=b -v 12",
    "-r a -n -v",
    "-r a --dry-run 12",
    "-p --dry-run 12",
    "-f ok.json 12",
    "-f ok.json -r a -n",
    "-f ok.json -p 12",
    "-a 5 -r a 12",
]
SAME_ERROR = ["-r a", "", "12 13", "-r a 12 13", "-r a -s foo 12", "-p", "12"]


@pytest.fixture(scope="module")
def zocalo_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zocalo", reason="zocalo is not installed")
    file = tmp_path_factory.mktemp("site") / "site.yml"
    file.write_text(
        "version: 1\nt: {plugin: transport, default: OfflineTransport}\nenvironments: {default: [t]}\n"
    )
    return file


@pytest.mark.parametrize("line", SAME_OUTPUT + SAME_ERROR)
def test_lines_and_exit_code_are_those_of_zocalo_go(broker: BrokerThread, zocalo_site: Path, line: str):
    theirs = subprocess.run(
        [Path(sys.executable).parent / "zocalo.go", *line.split()],
        env=os.environ | {"ZOCALO_CONFIG": str(zocalo_site)},
        capture_output=True,
        text=True,
        check=False,
    )
    ours = go(*line.split())
    assert (ours.exit_code, ours.stdout) == (theirs.returncode, theirs.stdout)
    if line in SAME_ERROR:
        assert ours.stderr == theirs.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-r", "a", "x"], "Invalid data collection ID given."),
        (["-r", "a", "0"], "Invalid data collection ID given."),
        (["-r", "a", "--", "-5"], "Invalid data collection ID given."),
        (["-r", "a", "9" * 5000], "Invalid data collection ID given."),
        (["-r", "a", "-a", "x", "12"], "Invalid auto processing scaling ID given."),
        (["-r", "a", "-s", "=1", "12"], "Invalid variable specification '=1'"),
        (["-f", "none.json", "12"], "Cannot read the recipe none.json: No such file or directory"),
        (["-f", "bad.json", "12"], 'Invalid recipe bad.json: node 1 "a": "output": leads to node 3'),
        (["-f", "text.json", "12"], "Invalid recipe text.json: "),
    ],
)
def test_bad_input_is_refused_and_nothing_sent(
    broker: BrokerThread, tmp_path: Path, arguments: list[str], says: str
):
    (tmp_path / "bad.json").write_text('{"1": {"queue": "a", "output": 3}, "start": [[1, []]]}')
    (tmp_path / "text.json").write_text("{")
    result = go(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(says)
    assert "Traceback" not in result.output
    assert broker.statistics() == []
    assert drop_files(tmp_path) == []


def test_a_trigger_is_sent_though_nobody_reads_what_is_said_of_it(broker: BrokerThread):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "parvis", "go", "-r", "a", "12"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=20, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, b"")
    assert sent(broker) == {"recipes": ["a"], "parameters": {"ispyb_dcid": 12}}


def test_drop_writes_a_file_straight_away(broker: BrokerThread, tmp_path: Path):
    result = go("-r", "a", "--drop", "12")
    (file,) = drop_files(tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2:] == [f"Message successfully stored in {file}", "", "Submitted."]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    content = json.loads(file.read_text())
    assert content["message"] == {"recipes": ["a"], "parameters": {"ispyb_dcid": 12}}
    assert sorted(content["headers"]) == ["parvis-id", "zocalo.go.host", "zocalo.go.user"]
    assert broker.statistics() == []


def test_drop_in_a_dry_run_writes_nothing(tmp_path: Path):
    result = go("-r", "a", "--drop", "--dry-run", "12")
    assert "Not storing message in" in result.stdout
    assert drop_files(tmp_path) == []


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `parvis go` as a process of its own; one that hangs fails the test."""
    return subprocess.run(
        [sys.executable, "-m", "parvis", "go", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def stored(result: subprocess.CompletedProcess[str], tmp_path: Path, code: int = 0) -> Any:
    """Check that a message was stored instead of sent; return what is in the file."""
    assert result.returncode == code, result.stderr
    (file,) = drop_files(tmp_path)
    lines = result.stdout.splitlines()
    assert lines[:2] == ["Running recipes ['a']", "for data collection 12"]
    assert lines[-4:] == [
        "Attempting to store message in fallback location",
        f"Message successfully stored in {file}",
        "",
        "Submitted.",
    ]
    assert "The broker did not take the message: " in result.stderr
    assert "Traceback" not in result.stderr
    return json.loads(file.read_text())


@pytest.fixture
def free_port() -> int:
    return free_ports(1)[0]


def test_refused_connection_stores(tmp_path: Path, free_port: int):
    result = run("-r", "a", "12", PARVIS_STOMP_PORT=str(free_port))
    content = stored(result, tmp_path)
    assert content["message"] == {"recipes": ["a"], "parameters": {"ispyb_dcid": 12}}
    assert "refused" in result.stderr


def test_frozen_broker_stores(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = run("-r", "a", "12", PARVIS_STOMP_PORT=str(server.getsockname()[1]))
        stored(result, tmp_path)


@pytest.mark.parametrize("wait", [[], ["--wait"]])
def test_broker_that_freezes_after_the_log_in_stores(tmp_path: Path, wait: list[str]):
    """It says CONNECTED and nothing more, so nothing is ever confirmed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            connection, _ = server.accept()
            held.append(connection)
            connection.recv(65536)
            connection.sendall(b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        result = run("-r", "a", "12", *wait, PARVIS_STOMP_PORT=str(server.getsockname()[1]))
        stored(result, tmp_path, code=len(wait))
        thread.join(10)
        held[0].close()


def test_wrong_password_stores(tmp_path: Path):
    with BrokerThread(settings=Settings(login="gda", passcode="right")) as broker:
        environment = {"PARVIS_STOMP_PORT": str(broker.port), "PARVIS_STOMP_USERNAME": "gda"}
        result = run("-r", "a", "12", PARVIS_STOMP_PASSWORD="wr0ng!", **environment)
        stored(result, tmp_path)
        assert "wr0ng!" not in result.stderr + result.stdout
        assert run("-r", "a", "12", PARVIS_STOMP_PASSWORD="right", **environment).stderr == ""
        assert broker.statistics()[0].size == 1


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_host_that_does_not_answer_stores(tmp_path: Path, host: str):
    stored(run("-r", "a", "12", PARVIS_STOMP_HOST=host), tmp_path)


def test_senseless_settings_store_too(tmp_path: Path):
    result = run("-r", "a", "12", PARVIS_STOMP_PREFIX="no good")
    stored(result, tmp_path)


def test_second_broker_takes_over(broker: BrokerThread, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        hosts = f"127.0.0.1:{frozen.getsockname()[1]},{broker.host}:{broker.port}"
        result = run("-r", "a", "12", PARVIS_STOMP_HOST=hosts)
    assert result.stdout.splitlines()[2:] == ["", "Submitted."]
    assert drop_files(tmp_path) == []
    assert sent(broker) == {"recipes": ["a"], "parameters": {"ispyb_dcid": 12}}


def test_message_that_can_neither_be_sent_nor_stored_is_printed(tmp_path: Path, free_port: int):
    (tmp_path / "drop").write_text("a file, where a directory is needed")
    result = run("-r", "a", "12", PARVIS_STOMP_PORT=str(free_port))
    assert result.returncode == 1
    assert "Submitted." not in result.stdout
    assert "NOTHING WAS SUBMITTED" in result.stderr
    assert json.loads(result.stderr.splitlines()[-1])["message"]["parameters"] == {"ispyb_dcid": 12}


def test_default_fallback_location_is_in_the_home_directory(tmp_path: Path, free_port: int):
    environment = {"PARVIS_FALLBACK_LOCATION": "", "XDG_STATE_HOME": str(tmp_path / "state")}
    result = run("-r", "a", "12", PARVIS_STOMP_PORT=str(free_port), **environment)
    (file,) = (tmp_path / "state" / "parvis" / "dropfiles").iterdir()
    assert f"Message successfully stored in {file}" in result.stdout


def test_zocalo_pickup_sends_what_was_stored(tmp_path: Path, free_port: int):
    """The drop file of ours is one that the pickup of zocalo understands."""
    pytest.importorskip("zocalo", reason="zocalo is not installed")
    run("-r", "a", "12", PARVIS_STOMP_PORT=str(free_port))
    with BrokerThread() as broker:
        site = tmp_path / "site.yml"
        site.write_text(
            f"version: 1\ns: {{plugin: stomp, host: {broker.host}, port: {broker.port}, username: a, "
            "password: b, prefix: zocalo}\nt: {plugin: transport, default: StompTransport}\n"
            f"d: {{plugin: storage, zocalo.go.fallback_location: {tmp_path / 'drop'}}}\n"
            "environments: {default: [s, t, d]}\n"
        )
        subprocess.run(
            [Path(sys.executable).parent / "zocalo.pickup", "-w", "0", "-d", "0"],
            env=os.environ | {"ZOCALO_CONFIG": str(site)},
            check=True,
            capture_output=True,
            timeout=60,
        )
        message = received(broker)
    assert json.loads(message.body) == {"recipes": ["a"], "parameters": {"ispyb_dcid": 12}}
    assert message.headers["zocalo.go.host"] == socket.gethostname()
    assert drop_files(tmp_path) == []


def test_json_says_what_was_sent(broker: BrokerThread):
    result = go("--json", "-r", "a", "12")
    (event,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert event["event"] == "submitted"
    assert event["message"] == {"recipes": ["a"], "parameters": {"ispyb_dcid": 12}}


def test_json_says_where_it_was_stored(tmp_path: Path):
    result = go("--json", "--drop", "-r", "a", "12")
    (event,) = [json.loads(line) for line in result.stdout.splitlines()]
    (file,) = drop_files(tmp_path)
    assert (event["event"], event["file"]) == ("stored", str(file))


def test_port_that_is_none_is_a_wrong_option():
    for port in ("abc", "0", "65536"):
        result = go("-r", "a", "12", "--stomp-port", port)
        assert result.exit_code == 2
        assert "--stomp-port" in result.stderr
        assert "PARVIS_STOMP_PORT" not in result.stderr


@pytest.mark.parametrize("words", [("12", "--wait", "3"), ("--wait", "3", "12")])
def test_number_after_a_bare_wait_that_is_one_too_many(words: tuple[str, ...]):
    result = go("-r", "a", *words)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Only a single data collection ID can be specified.",
        "--wait takes its seconds after an equals sign: --wait=3",
    ]


def test_two_data_collections_are_one_too_many():
    result = go("-r", "a", "12", "13", "--wait")
    assert result.stderr == "Only a single data collection ID can be specified.\n"
