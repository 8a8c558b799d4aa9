"""A broker of any kind, seen from two sides: as a program sees it, and as it tells itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from parvis.config import Config, PikaSettings, RabbitMQAPISettings
from parvis.transport.base import Transport
from real.rabbitmq.vhost import VirtualHost


@dataclass
class World:
    """A broker.

    Attributes:
        config: Leads to it.
        transport: Connected to it.
        prefix: What stands before the names of queues on the broker.
        dead: What stands before the name of a queue of dead letters.
    """

    config: Config
    transport: Transport
    prefix: str
    dead: str


@dataclass
class TellingWorld(World):
    """A broker that can be asked in two ways.

    Attributes:
        own: What the broker itself says of a queue, by another way: held, in flight, enqueued, dequeued and
            clients.
    """

    own: Callable[[str], tuple[int, ...]]


def rabbitmq_config(vhost: VirtualHost) -> Config:
    server = vhost.server
    pika = PikaSettings(server.host, server.port, server.username, server.password, vhost.name)
    api = RabbitMQAPISettings(management_url(vhost), server.username, server.password)
    return Config(pika=pika, rabbitmqapi=api, transport_default="PikaTransport")


def management_url(vhost: VirtualHost) -> str:
    return f"http://{vhost.server.host}:{vhost.server.management_port}"


def make_queue(world: World, name: str) -> None:
    """On RabbitMQ nobody can send to a queue before somebody has listened to it."""
    world.transport.unsubscribe(world.transport.subscribe(name, lambda _: None))
