"""Brokers with a configuration file each, for the commands that deal with dead letters and drop files."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from parvis.cli import main
from parvis.config import Config
from parvis.service.base import AnyService
from parvis.service.host import Host
from parvis.transport.base import Transport
from parvis.transport.embedded import BrokerThread
from running import in_thread


@dataclass
class World:
    """A broker and a site.

    Attributes:
        kind: `embedded`, `activemq` or `rabbitmq`.
        directory: A place for files.
        config: What the configuration file says.
        transport: Connected.
    """

    kind: str
    directory: Path
    config: Config
    transport: Transport

    @property
    def drop(self) -> Path:
        """Where requests are stored."""
        return self.directory / "drop"

    def whole(self, queue: str) -> str:
        """The whole name of a queue."""
        return f"{self.transport.namespace}.{queue}" if self.transport.namespace else queue

    def dead(self, queue: str) -> str:
        """The whole name of the queue of the dead letters of a queue."""
        return f"{'dlq' if self.kind == 'rabbitmq' else 'DLQ'}.{self.whole(queue)}"

    def parvis(self, *words: str, **options: Any) -> Result:
        """Run a command."""
        return CliRunner().invoke(main, list(words), **options)

    @contextlib.contextmanager
    def hosting(self, *services: type[AnyService]) -> Generator[None]:
        """Run services."""
        with in_thread(Host(self.config.transport(), [service(self.config) for service in services])):
            yield


@contextlib.contextmanager
def world(
    kind: str, broker: dict[str, Any], directory: Path, patch: pytest.MonkeyPatch, **more: Any
) -> Iterator[World]:
    """A site with a broker; `broker` is what the configuration says of it, and `more` of plugins."""
    storage = {
        "plugin": "storage",
        "zocalo.go.fallback_location": str(directory / "drop"),
        "zocalo.dlq.purge_location": str(directory / "dead"),
        "parvis.state_directory": str(directory / "state"),
        "parvis.pickup.settle": 0,
        "parvis.pickup.interval": 0.1,
    }
    file = directory / "site.yml"
    settings = {"version": 1, "broker": broker, "places": storage, **more}
    environment = ["broker", "places", *more]
    settings["environments"] = {"live": environment, "default": "live"}
    file.write_text(yaml.safe_dump(settings))
    patch.setenv("ZOCALO_CONFIG", str(file))
    config = Config.load()
    transport = config.transport()
    transport.connect()
    try:
        yield World(kind, directory, config, transport)
    finally:
        transport.disconnect()


@contextlib.contextmanager
def world_of(
    kind: str, request: pytest.FixtureRequest, directory: Path, patch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A site with one of the brokers, whose fixture is asked for."""
    if kind == "rabbitmq":
        vhost = request.getfixturevalue("vhost")
        vhost.make_queues("multiply", "results", "processing_recipe")
        server = vhost.server
        login = {"username": server.username, "password": server.password}
        pika = {"plugin": "pika", "host": server.host, "port": server.port, "vhost": vhost.name, **login}
        url = f"http://{server.host}:{server.management_port}"
        api = {"plugin": "rabbitmqapi", "base_url": url, **login}
        patch.setenv("PARVIS_TRANSPORT", "PikaTransport")
        with world(kind, pika, directory, patch, management=api) as made:
            yield made
        return
    if kind == "activemq":
        server = request.getfixturevalue("activemq")
        port, login = server.port, {"username": server.username, "password": server.password}
    else:
        broker: BrokerThread = request.getfixturevalue("broker")
        port, login = broker.port, {"username": "", "password": ""}
    namespace = f"n{uuid.uuid4().hex[:8]}"
    stomp = {"plugin": "stomp", "host": "127.0.0.1", "port": port, "prefix": namespace, **login}
    with world(kind, stomp, directory, patch) as made:
        yield made
