"""A virtual host for one test: everything in it goes when the test ends."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from parvis.transport.amqp import AmqpTransport
from real.rabbitmq.server import RabbitMQ


@dataclass(frozen=True)
class VirtualHost:
    """A virtual host of a RabbitMQ."""

    server: RabbitMQ
    name: str

    def transport(self, **options: Any) -> AmqpTransport:
        """A transport to it, not yet connected; `options` as `AmqpTransport`, and `port`."""
        return AmqpTransport(
            options.pop("hosts", [(self.server.host, options.pop("port", None) or self.server.port)]),
            options.pop("username", self.server.username),
            options.pop("password", self.server.password),
            options.pop("vhost", self.name),
            **options,
        )

    def environment(self) -> dict[str, str]:
        """Variables that lead a process there."""
        return {
            "PARVIS_TRANSPORT": "PikaTransport",
            "PARVIS_RABBITMQ_HOST": self.server.host,
            "PARVIS_RABBITMQ_PORT": str(self.server.port),
            "PARVIS_RABBITMQ_USERNAME": self.server.username,
            "PARVIS_RABBITMQ_PASSWORD": self.server.password,
            "PARVIS_RABBITMQ_VHOST": self.name,
        }

    def api(self, method: str, kind: str, name: str = "", content: Any = None) -> Any:
        """Ask about what is here: `api("GET", "queues", "work")`."""
        path = f"{kind}/{quote(self.name, safe='')}" + (f"/{quote(name, safe='')}" if name else "")
        return self.server.api(method, path, content)

    def queue(self, name: str) -> Any:
        """What the broker says of a queue."""
        return self.api("GET", "queues", name)

    def publish(self, queue: str, body: bytes, properties: dict[str, Any]) -> None:
        """Send a message as the broker's own interface does."""
        content = {
            "routing_key": queue,
            "properties": properties,
            "payload": base64.b64encode(body).decode(),
            "payload_encoding": "base64",
        }
        self.server.api("POST", f"exchanges/{quote(self.name, safe='')}/amq.default/publish", content)

    def take_one(self, queue: str) -> Any:
        """Take a message from a queue as the broker's own interface does."""
        content = {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}
        return self.server.api("POST", f"queues/{quote(self.name, safe='')}/{quote(queue)}/get", content)[0]

    def make_queues(self, *names: str) -> None:
        """Make queues as our own transport does."""
        transport = self.transport()
        transport.connect(10)
        for name in names:
            transport.unsubscribe(transport.subscribe(name, _ignore))
        transport.disconnect()


@contextmanager
def virtual_host(server: RabbitMQ) -> Iterator[VirtualHost]:
    """A new virtual host, for as long as the context lasts."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    server.api("PUT", f"vhosts/{name}")
    try:
        yield VirtualHost(server, name)
    finally:
        server.api("DELETE", f"vhosts/{name}")


def _ignore(_message: Any) -> None:
    """For a subscription that is only to make a queue."""
