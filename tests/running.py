"""Running services in tests: hosts in threads, hosts in processes, and ways to talk to them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from parvis.config import Config
from parvis.recipe.envelope import RECIPE_HEADER, dump_json
from parvis.service.base import AnyService
from parvis.service.host import Host
from parvis.service.observer import Observer
from parvis.transport.base import Message, Send, Transport
from parvis.transport.stomp import StompTransport
from waiting import wait_until

NAMESPACE = "test"


def transport_to(port: int) -> StompTransport:
    """A transport to a broker on this machine, not yet connected."""
    return StompTransport([("127.0.0.1", port)], "", "", NAMESPACE)


class Listener:
    """Hears everything sent to some queues, and sends."""

    def __init__(self, transport: Transport, *queues: str) -> None:
        self._transport = transport
        self.messages: list[Message] = []
        for queue in queues:
            transport.subscribe(queue, self._take, prefetch=1000, absolute=queue.startswith("DLQ."))

    def _take(self, message: Message) -> None:
        self.messages.append(message)

    def wait_for(self, count: int, timeout: float = 20) -> list[Message]:
        """Return the messages once there are at least `count`."""
        wait_until(
            lambda: len(self.messages) >= count, timeout, f"{count} messages, {len(self.messages)} came"
        )
        return self.messages

    def payloads(self) -> list[Any]:
        """Payloads of the messages that are part of a recipe."""
        return [orjson.loads(message.body)["payload"] for message in self.messages]


@contextlib.contextmanager
def connected(port: int) -> Generator[StompTransport]:
    """A transport to a broker on this machine, connected."""
    transport = transport_to(port)
    transport.connect()
    try:
        yield transport
    finally:
        transport.disconnect()


@contextlib.contextmanager
def hosted(
    port: int, *services: type[AnyService], observers: Sequence[Observer] | None = None
) -> Generator[Host]:
    """Services running in a thread of this process."""
    host = Host(transport_to(port), [service(Config()) for service in services], observers=observers)
    with in_thread(host):
        yield host


@contextlib.contextmanager
def in_thread(host: Host) -> Generator[None]:
    """A host running in a thread of this process."""
    thread = threading.Thread(target=host.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        host.stop()
        thread.join(timeout=30)
        assert not thread.is_alive(), "the host did not stop"


def recipe_message(queue: str, payload: Any, output: Any = None, **node: Any) -> Send:
    """A recipe message for a node that listens to `queue` and whose output goes to queue `results`."""
    recipe = {
        "1": {"queue": queue, "output": 2 if output is None else output, **node},
        "2": {"queue": "results"},
        "start": [[1, []]],
    }
    body = {
        "recipe": recipe,
        "recipe-pointer": 1,
        "recipe-path": [],
        "environment": {"ID": "test-recipe"},
        "payload": payload,
    }
    return Send(queue, dump_json(body), {RECIPE_HEADER: "True", "note": "kept"})


def broker_environment(port: int) -> dict[str, str]:
    """Environment variables that lead a process to the broker on this machine, and to the test services."""
    return {
        "PARVIS_STOMP_HOST": "127.0.0.1",
        "PARVIS_STOMP_PORT": str(port),
        "PARVIS_STOMP_USERNAME": "admin",
        "PARVIS_STOMP_PASSWORD": "password",
        "PARVIS_STOMP_PREFIX": NAMESPACE,
        "PYTHONPATH": str(Path(__file__).parent),
    }


_RUN_SERVICE = """
import importlib, sys
from parvis.config import Config
from parvis.observe.logs import set_up_logging
from parvis.service.host import Host, stop_on_signals
config = Config.load()
set_up_logging(config)
service = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
host = Host(config.transport(), [service(config)])
stop_on_signals(host)
host.run()
"""


@contextlib.contextmanager
def process_of(
    service: type[AnyService], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A service running in a process of its own; killed at the end if it still runs."""
    command: Sequence[str] = [sys.executable, "-c", _RUN_SERVICE, service.__module__, service.__name__]
    process = subprocess.Popen(command, env=os.environ | broker_environment(port) | dict(environment or {}))
    try:
        yield process
    finally:
        process.kill()
        process.wait()
