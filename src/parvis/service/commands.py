"""Commands that are broadcast to all services: how they are stopped."""

from __future__ import annotations

from typing import Final

from parvis.recipe.envelope import dump_json
from parvis.transport.base import Send

TOPIC: Final = "command"
_EXPIRATION: Final = 60.0


def stop_instance(host: str) -> Send:
    """Return what stops one process; `host` is its whole name, as its status card says it."""
    return _shutdown("host", host)


def stop_service(service_class: str | None) -> Send:
    """Return what stops all instances of a service, by its class; None for front ends without a service."""
    return _shutdown("service", service_class)


def _shutdown(key: str, value: str | None) -> Send:
    body = dump_json({"command": "shutdown", key: value})
    return Send(TOPIC, body, kind="topic", expiration=_EXPIRATION, persistent=False)
