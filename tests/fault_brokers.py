"""The brokers that the fault suite breaks: each on a port and with data that outlive a restart."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from real.activemq import server as activemq
from real.daemon import Starter, end, free_ports
from real.rabbitmq import server as rabbitmq
from running import NAMESPACE
from waiting import wait_until


class FaultyBroker(Protocol):
    """A broker that can be broken. `start` after `stop` or `kill` finds the messages of before.

    Attributes:
        port: Where it listens.
    """

    port: int

    def start(self) -> None:
        """Start, and return when it takes connections."""

    def stop(self) -> None:
        """Stop in good order."""

    def kill(self) -> None:
        """Stop as a power cut would."""

    def environment(self, port: int) -> dict[str, str]:
        """Variables that lead a client to it by way of `port`."""
        ...


class EmbeddedBroker:
    """The embedded broker in a process of its own, with a journal, run by the command that people use.

    Args:
        directory: For its journal and its log.
        environment: Variables for the process beside ours.

    Attributes:
        process: The process, while it runs.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None
        self._directory = directory
        self._environment = environment
        self._starter = Starter()

    def start(self) -> None:
        command = [sys.executable, "-m", "parvis", "broker", "--port", str(self.port)]
        command += ["--journal", str(self._directory / "journal.db")]
        self.process = self._starter.start(command, self._directory / "broker.log", self._environment)
        wait_until(self._answers, 30, "the embedded broker")

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def environment(self, port: int) -> dict[str, str]:
        return _stomp(port, "", "")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self._directory / "broker.log").read_text()[-2000:]
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(b"CONNECT\naccept-version:1.2\nhost:localhost\n\n\0")
                return connection.recv(4096).startswith(b"CONNECTED")
        except OSError:
            return False

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is not None:
            end(process, how)


class ActiveMQ(activemq.ActiveMQ):
    """A real ActiveMQ, with disk syncs."""

    def environment(self, port: int) -> dict[str, str]:
        """As `FaultyBroker.environment`."""
        return _stomp(port, self.username, self.password)


class RabbitMQ(rabbitmq.RabbitMQ):
    """A real RabbitMQ."""

    def environment(self, port: int) -> dict[str, str]:
        """As `FaultyBroker.environment`."""
        return {
            "PARVIS_TRANSPORT": "PikaTransport",
            "PARVIS_RABBITMQ_HOST": self.host,
            "PARVIS_RABBITMQ_PORT": str(port),
            "PARVIS_RABBITMQ_USERNAME": self.username,
            "PARVIS_RABBITMQ_PASSWORD": self.password,
            "PARVIS_RABBITMQ_VHOST": self.vhost,
        }


def _stomp(port: int, username: str, password: str) -> dict[str, str]:
    return {
        "PARVIS_TRANSPORT": "StompTransport",
        "PARVIS_STOMP_HOST": "127.0.0.1",
        "PARVIS_STOMP_PORT": str(port),
        "PARVIS_STOMP_USERNAME": username,
        "PARVIS_STOMP_PASSWORD": password,
        "PARVIS_STOMP_PREFIX": NAMESPACE,
    }
