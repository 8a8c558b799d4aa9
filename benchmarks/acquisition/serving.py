"""Services that take a detector's stream, each in a process of its own, and what their work costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import psutil
import yaml

from parvis.transport.base import Message, Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport

NAMESPACE: Final = "bench"
_PATIENCE: Final = 180.0
_MOST: Final = 1_000_000  # messages that are never acknowledged: to do that would cost the broker something


class Services:
    """Services that run.

    Args:
        directory: For their configuration and logs.
        storage: Of their configuration.
        port: Of the broker.
    """

    def __init__(self, directory: Path, storage: Mapping[str, Any], port: int) -> None:
        self._directory = directory
        self._processes: dict[str, list[psutil.Popen]] = {}
        document = {
            "version": 1,
            "site": {"plugin": "storage", **storage},
            "environments": {"default": ["site"]},
        }
        file = directory / "site.yml"
        file.write_text(yaml.safe_dump(document))
        self._environment = {
            **os.environ,
            "ZOCALO_CONFIG": str(file),
            "PARVIS_STOMP_HOST": "127.0.0.1",
            "PARVIS_STOMP_PORT": str(port),
            "PARVIS_STOMP_PREFIX": NAMESPACE,
        }

    def start(self, name: str) -> None:
        """Start one."""
        number = len(self._processes.setdefault(name, []))
        with open(self._directory / f"{name}-{number}.log", "wb") as log:  # noqa: PTH123 - for its descriptor
            command = [sys.executable, "-m", "parvis", "service", "-s", name]
            process = psutil.Popen(command, env=self._environment, stdout=log, stderr=subprocess.STDOUT)
        self._processes[name].append(process)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far by the name of the service."""
        return {
            name: sum(cpu_of(process) for process in processes) for name, processes in self._processes.items()
        }

    def log(self, name: str) -> str:
        """What services of a name said so far."""
        return "".join(file.read_text() for file in sorted(self._directory.glob(f"{name}-*.log")))

    def stop(self) -> None:
        """Stop all of them."""
        processes = [one for several in self._processes.values() for one in several]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process so far, in its own code and in the kernel."""
    times = process.cpu_times()
    return times.user + times.system


@contextmanager
def services(
    directory: Path, storage: Mapping[str, Any], names: Mapping[str, int]
) -> Iterator[tuple[Services, StompTransport]]:
    """A broker in this process and services, and a connection to the broker."""
    directory.mkdir()
    with BrokerThread(port=0) as broker:
        running = Services(directory, storage, broker.port)
        transport = StompTransport([("127.0.0.1", broker.port)], "", "", NAMESPACE)
        transport.connect()
        try:
            for name, count in names.items():
                for _ in range(count):
                    running.start(name)
            yield running, transport
        finally:
            running.stop()
            transport.disconnect()


class Heard:
    """What comes of images: results with the time at which they came, and the ends of series."""

    def __init__(self, transport: StompTransport) -> None:
        self.results: list[tuple[float, Message]] = []
        self.ends: list[Any] = []
        self.missing: list[Message] = []
        transport.subscribe(
            "results", lambda message: self.results.append((time.time(), message)), prefetch=_MOST
        )
        transport.subscribe("missing", self.missing.append, prefetch=_MOST)
        transport.subscribe("ended", lambda message: self.ends.append(payload_of(message)), prefetch=10)


def payload_of(message: Message) -> Any:
    """The payload of a message of a recipe."""
    return orjson.loads(message.body)["payload"]


def recipe(first: Mapping[str, Any], name: str) -> Send:
    """What starts a watch whose images are analysed."""
    nodes = {
        "1": {**first, "output": {"every": 2, "finally": 4}},
        "2": {"queue": "per_image_analysis", "parameters": {}, "output": {"result": 3, "missing": 5}},
        "3": {"queue": "results"},
        "4": {"queue": "ended"},
        "5": {"queue": "missing"},
        "start": [[1, {}]],
    }
    body = {
        "recipe": nodes,
        "recipe-pointer": 1,
        "recipe-path": [],
        "environment": {"ID": name},
        "payload": [],
    }
    return Send(str(first["queue"]), orjson.dumps(body), {"workflows-recipe": "True"})


def wait_until(condition: Callable[[], object], what: str, patience: float = _PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.02)
