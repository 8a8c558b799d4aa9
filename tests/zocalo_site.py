"""A site with one configuration file, from which the commands of zocalo and ours are started as people do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from parvis.recipe.envelope import RECIPE_HEADER, dump_json
from parvis.service.status import Status
from parvis.transport.base import Message, Send, Transport
from parvis.transport.stomp import StompTransport
from running import Listener
from waiting import wait_until

COMMANDS = Path(sys.executable).parent
_ENTRY_POINTS = """
[parvis.services]
Gatherer = sample_services:Gatherer
Multiplier = sample_services:Multiplier
Sleeper = sample_services:Sleeper

[workflows.services]
Gatherer = parvis.compat.services:Gatherer
Multiplier = parvis.compat.services:Multiplier
Sleeper = parvis.compat.services:Sleeper
Collector = workflows_services:Collector
Doubler = workflows_services:Doubler
Fragile = workflows_services:Fragile
Patient = workflows_services:Patient

[zocalo.wrappers]
quick = workflows_services:QuickWrapper

[zocalo.configuration.plugins]
greeting = workflows_services:Greeting
"""


def stomp_site(port: int, directory: Path, login: tuple[str, str], transport: str = "StompTransport") -> Site:
    """A site with a STOMP broker on this machine."""
    namespace = f"t{uuid.uuid4().hex[:8]}"
    broker = {"plugin": "stomp", "host": "127.0.0.1", "port": port, "prefix": namespace}
    broker |= {"username": login[0], "password": login[1]}
    return Site(broker, StompTransport([("127.0.0.1", port)], *login, namespace), directory, transport)


class Process:
    """A command that runs, and what it has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self.process.pid

    @property
    def text(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def end(self, timeout: float = 30) -> int:
        """Wait for the end, and return the exit code."""
        return self.process.wait(timeout)


class Site:
    """A broker, a namespace, a directory, and the configuration file for both worlds.

    Attributes:
        transport: A connection of ours, for the test.
        cards: All status broadcasts so far.
    """

    def __init__(
        self, broker: dict[str, Any], connection: Transport, directory: Path, transport: str
    ) -> None:
        self.directory = directory
        self.transport = connection
        self.namespace = connection.namespace
        self.recipes = directory / "recipes"
        self.drop = directory / "drop"
        self.dead = directory / "dead"
        for part in (self.recipes, self.drop, self.dead):
            part.mkdir(parents=True)
        self.settings: dict[str, Any] = {
            "version": 1,
            "broker": broker,
            "nowhere": {
                "plugin": "stomp",
                "host": "127.0.0.1",
                "port": 1,
                "username": "",
                "password": "",
                "prefix": "",
            },
            "by-default": {"plugin": "transport", "default": transport},
            "mail": {"plugin": "smtp", "host": "127.0.0.1", "port": 1, "from": "zocalo@example.org"},
            "hello": {"plugin": "greeting", "word": "welcome"},
            "places": {
                "plugin": "storage",
                "zocalo.default_transport": transport,
                "zocalo.recipe_directory": str(self.recipes),
                "zocalo.go.fallback_location": str(self.drop),
                "zocalo.dlq.purge_location": str(self.dead),
                "zocalo.dispatcher.logbook_location": str(directory / "logbook"),
            },
            "environments": {
                "live": ["broker", "by-default", "mail", "hello", "places"],
                "cut-off": ["nowhere", "by-default", "places"],
                "default": "live",
            },
        }
        self.configuration = directory / "zocalo.yml"
        self.configure()
        packages = directory / "packages" / "site_services-1.0.dist-info"
        packages.mkdir(parents=True)
        (packages / "METADATA").write_text("Metadata-Version: 2.1\nName: site-services\nVersion: 1.0\n")
        (packages / "entry_points.txt").write_text(_ENTRY_POINTS)
        self._packages = packages.parent
        self.cards: list[dict[str, Any]] = []

    def configure(self, **changes: Any) -> None:
        """Write the configuration file, with some of its entries changed."""
        self.settings |= changes
        self.configuration.write_text(yaml.safe_dump(self.settings))

    def open(self) -> None:
        """Connect the test's own transport."""
        self.transport.connect()
        self.transport.subscribe_broadcast("transient.status", self._take_card)

    def _take_card(self, message: Message) -> None:
        self.cards.append(orjson.loads(message.body))

    def environment(self, **more: str) -> dict[str, str]:
        """Variables for commands at this site."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PARVIS_")}
        path = os.pathsep.join([str(self._packages), os.environ["PYTHONPATH"]])
        return {**inherited, "ZOCALO_CONFIG": str(self.configuration), "PYTHONPATH": path, **more}

    def run(self, *command: str, timeout: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [str(COMMANDS / command[0]), *command[1:]],
            env=self.environment(**more),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    @contextlib.contextmanager
    def running(self, *command: str, ready: str | None = None, **more: str) -> Iterator[Process]:
        """A command that runs in the background; killed at the end, with all that it has started.

        Args:
            command: Name and arguments.
            ready: Class of the service that it runs: return when that is idle.
        """
        seen = len(self.cards)
        log = self.directory / f"{command[0]}-{seen}-{os.urandom(3).hex()}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [str(COMMANDS / command[0]), *command[1:]],
                env=self.environment(**more),
                cwd=self.directory,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        running = Process(process, log)
        try:
            if ready is not None:
                self._await(running, ready, seen)
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()

    def _await(self, running: Process, service: str, seen: int) -> None:
        def is_idle() -> bool:
            assert running.process.poll() is None, running.text
            return any(
                card.get("serviceclass") == service and card["status"] == Status.IDLE
                for card in self.cards[seen:]
            )

        try:
            wait_until(is_idle, 20, f"{service} to be idle")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{running.text}") from None

    def start(self, recipe: Mapping[str, Any], payload: Any = None, **environment: Any) -> None:
        """Send a message to node 1 of a recipe."""
        node: Any = recipe["1"]
        body = {
            "recipe": recipe,
            "recipe-pointer": 1,
            "recipe-path": [],
            "environment": {"ID": "test-recipe", **environment},
            "payload": payload,
        }
        self.transport.send(Send(node["queue"], dump_json(body), {RECIPE_HEADER: "True"}))


def node(queue: str, **more: Any) -> dict[str, Any]:
    """A recipe of one node."""
    return {"1": {"queue": queue, "output": 2, **more}, "2": {"queue": "results"}, "start": [[1, []]]}


def letters(site: Site, queue: str) -> Listener:
    """The dead letters of a queue."""
    return Listener(site.transport, f"DLQ.{site.namespace}.{queue}")
