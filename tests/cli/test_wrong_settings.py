"""Settings with which no service can start: one clear line, exit code 2, soon."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from real.activemq.server import ActiveMQ
from real.daemon import free_ports

CONFIGURATION = """
version: 1
stomp: {{plugin: stomp, host: {host}, port: {port}, username: u, password: sesame-9, prefix: zocalo}}
environments:
  default: {{plugins: [stomp]}}
"""


def start(**variables: str) -> str:
    """Start a service with these settings; return the one line that it says about them, beside its log."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PARVIS_", "ZOCALO_"))}
    done = subprocess.run(
        [sys.executable, "-m", "parvis", "service", "-s", "JSONLines"],
        env=clean | variables,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    assert done.returncode == 2
    assert "Traceback" not in lines[0]
    return lines[0]


def test_a_wrong_host_is_said_at_once():
    line = start(PARVIS_STOMP_HOST="nowhere.invalid")
    assert line == "Error: there is no host nowhere.invalid"


def test_a_wrong_port():
    (port,) = free_ports(1)
    line = start(PARVIS_STOMP_HOST="127.0.0.1", PARVIS_STOMP_PORT=str(port))
    assert f"127.0.0.1:{port} cannot be reached" in line
    assert "refused" in line


def test_a_port_where_somebody_listens_who_is_no_broker():
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = start(PARVIS_STOMP_HOST="127.0.0.1", PARVIS_STOMP_PORT=str(server.getsockname()[1]))
    assert "no connection within" in line


def test_a_wrong_password(activemq: ActiveMQ):
    line = start(
        PARVIS_STOMP_HOST="127.0.0.1",
        PARVIS_STOMP_PORT=str(activemq.port),
        PARVIS_STOMP_USERNAME="parvis",
        PARVIS_STOMP_PASSWORD="sesame-9",
    )
    assert "refused the log-in" in line
    assert "sesame-9" not in line


def with_tls(directory: Path, port: int) -> str:
    """Write a configuration that asks for TLS at this port of this machine."""
    file = directory / "tls.yml"
    file.write_text(
        CONFIGURATION.format(host="127.0.0.1", port=port).replace("prefix:", "tls: true, prefix:")
    )
    return str(file)


def test_tls_where_the_broker_has_none(activemq: ActiveMQ, tmp_path: Path):
    line = start(ZOCALO_CONFIG=with_tls(tmp_path, activemq.port))
    assert f"silence at 127.0.0.1:{activemq.port} (does it speak TLS?)" in line


def test_no_tls_where_the_broker_wants_it(activemq: ActiveMQ):
    line = start(PARVIS_STOMP_HOST="127.0.0.1", PARVIS_STOMP_PORT=str(activemq.tls_port))
    assert "TLS" in line


def test_a_certificate_that_nobody_vouches_for(activemq: ActiveMQ, tmp_path: Path):
    line = start(ZOCALO_CONFIG=with_tls(tmp_path, activemq.tls_port))
    assert "the certificate of 127.0.0.1" in line


def test_no_configuration():
    assert "no configuration: set ZOCALO_CONFIG" in start()


def test_a_configuration_that_is_not_there(tmp_path: Path):
    line = start(ZOCALO_CONFIG=str(tmp_path / "missing.yml"))
    assert line == f"Error: configuration: there is no file {tmp_path / 'missing.yml'}"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("host:", "hots:"), "did you mean 'host'?"),
        (("plugin: stomp", "plugin: stmop"), "did you mean 'stomp'?"),
        (("[stomp]", "[stopm]"), "did you mean 'stomp'?"),
        (("environments:", "enviroments:"), "did you mean 'environments'?"),
        (("version: 1", "version: 7"), "version"),
        (("port: 61613", "port: many"), "port"),
        (("prefix: zocalo}", "prefix: zocalo"), "line"),
    ],
)
def test_a_configuration_with_a_typo(tmp_path: Path, wrong: tuple[str, str], said: str):
    text = CONFIGURATION.format(host="127.0.0.1", port=61613)
    assert wrong[0] in text
    file = tmp_path / "site.yml"
    file.write_text(text.replace(*wrong))
    line = start(ZOCALO_CONFIG=str(file))
    assert said in line
    assert str(file) in line
    assert "sesame-9" not in line
