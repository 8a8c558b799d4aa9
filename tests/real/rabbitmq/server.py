"""A real RabbitMQ for tests and benchmarks: loopback only, its own directory, ports and epmd.

`python tests/real/rabbitmq/server.py` starts one, prints its ports and stops it on Ctrl-C.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from real import packages
from real.daemon import Starter, end, free_ports, make_certificates, wait_for_start

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
USERNAME = "parvis"
PASSWORD = "parvis-test"


def install() -> None:
    """Install RabbitMQ if it is not there.

    Raises:
        Unavailable: It cannot be installed.
    """
    packages.install(_is_there, "rabbitmq-server", "openssl")


def _is_there() -> bool:
    return (PROGRAMS / "rabbitmq-server").exists() and shutil.which("openssl") is not None


class RabbitMQ:
    """One broker. `start` after `stop` or `kill` finds the messages of before.

    Args:
        directory: Where everything of it is.

    Attributes:
        port: of AMQP 0-9-1.
        tls_port: of AMQP over TLS.
        management_port: of the HTTP interface.
        ca_file: certificate that signed the broker's own, which is for `localhost` and 127.0.0.1.
    """

    host = "127.0.0.1"
    username = USERNAME
    password = PASSWORD
    vhost = "/"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ports = free_ports(5)
        self.port, self.tls_port, self.management_port, self._distribution, self._epmd_port = ports
        self.ca_file = directory / "ca.pem"
        self.log_file = directory / "broker.log"
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starter = Starter()
        self._configure()

    def start(self) -> None:
        """Start, and return when somebody can log in.

        Raises:
            RuntimeError: It does not come up.
        """
        if self._epmd is None:  # else RabbitMQ starts one that nobody stops
            epmd = ["epmd", "-port", str(self._epmd_port), "-address", self.host]
            self._epmd = self._starter.start(epmd, self.log_file)
        command = [str(PROGRAMS / "rabbitmq-server")]
        process = self._process = self._starter.start(command, self.log_file, self._environment())
        wait_for_start("RabbitMQ", process, self._answers, self.log_file)

    def stop(self) -> None:
        """Stop in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop as a power cut would."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing running."""
        self.kill()
        if self._epmd is not None:
            end(self._epmd, signal.SIGKILL)
            self._epmd = None

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`, which takes a second or two; return what it prints."""
        command = [str(PROGRAMS / "rabbitmqctl"), "-q", *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
        return done.stdout

    def api(self, method: str, path: str, content: Any = None) -> Any:
        """Ask the HTTP interface, such as `GET queues/%2F/work`; return what it answers, or None."""
        request = urllib.request.Request(
            f"http://{self.host}:{self.management_port}/api/{path}",
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": f"Basic {_BASIC}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            text = answer.read()
        return json.loads(text) if text else None

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process, how)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), 5) as connection:
                connection.sendall(b"AMQP\0\0\x09\x01")
                greeted = bool(connection.recv(4096))
            return greeted and bool(self.api("GET", "overview"))
        except OSError:
            return False

    def _environment(self) -> dict[str, str]:
        own = {
            "HOME": self.directory,
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_EPMD_PORT": self._epmd_port,
            "RABBITMQ_NODENAME": f"parvis-{self.port}@localhost",
            "RABBITMQ_BASE": self.directory,
            "RABBITMQ_MNESIA_BASE": self.directory / "mnesia",
            "RABBITMQ_LOG_BASE": self.directory / "log",
            "RABBITMQ_CONFIG_FILE": self.directory / "rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.directory / "enabled_plugins",
            "RABBITMQ_PID_FILE": self.directory / "beam.pid",
            "RABBITMQ_DIST_PORT": self._distribution,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
                " -rabbit quorum_tick_interval 500"  # else figures of quorum queues are seconds old
            ),
            "RUNNING_UNDER_SYSTEMD": "true",  # the server takes the place of its script, so signals reach it
        }
        return {**os.environ, **{name: str(value) for name, value in own.items()}}

    def _configure(self) -> None:
        for part in ("mnesia", "log"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        make_certificates(self.directory)
        (self.directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = {self.host}:{self.port}\n"
            f"listeners.ssl.default = {self.host}:{self.tls_port}\n"
            f"ssl_options.cacertfile = {self.ca_file}\n"
            f"ssl_options.certfile = {self.directory / 'server.pem'}\n"
            f"ssl_options.keyfile = {self.directory / 'server.key'}\n"
            f"management.tcp.ip = {self.host}\n"
            f"management.tcp.port = {self.management_port}\n"
            f"default_user = {USERNAME}\n"
            f"default_pass = {PASSWORD}\n"
            "default_user_tags.administrator = true\n"
            "loopback_users = none\n"
            "disk_free_limit.absolute = 50MB\n"
            "vm_memory_high_watermark.absolute = 512MB\n"
            "collect_statistics_interval = 1000\n"
            "log.console = true\n"
            "log.console.level = info\n"
        )


_BASIC = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


@contextlib.contextmanager
def running() -> Iterator[RabbitMQ]:
    """A RabbitMQ in a temporary directory, for as long as the context lasts.

    Raises:
        Unavailable: It cannot be installed.
    """
    install()
    with tempfile.TemporaryDirectory(prefix="parvis-rabbitmq-", ignore_cleanup_errors=True) as directory:
        broker = RabbitMQ(Path(directory))
        try:
            broker.start()
            yield broker
        finally:
            broker.close()


def main() -> None:
    with running() as broker:
        print(
            f"AMQP {broker.port}, TLS {broker.tls_port}, http://{broker.host}:{broker.management_port}, "
            f"{USERNAME}/{PASSWORD}; log {broker.log_file}",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
