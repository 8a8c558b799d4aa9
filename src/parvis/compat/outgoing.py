"""Messages between the form that `workflows` gives them and ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from parvis.transport.base import LONGEST_DELAY, Kind, Message, Send, own_headers


def outgoing(kind: Kind, destination: str, message: Any, options: Mapping[str, Any]) -> Send:
    """Return what a call of `send` or `broadcast` asks for.

    Headers that only a transport may set are those of an earlier delivery and are left out, except for the
    ones by which `workflows` says how a message is to be sent.

    Args:
        kind: queue or topic.
        destination: Its name.
        message: Text or bytes.
        options: Keyword arguments of the call: `headers`, `delay` and `expiration` in seconds, `persistent`,
            `ignore_namespace`.

    Raises:
        ValueError: It cannot be sent like that.
    """
    given: Mapping[object, object] = options.get("headers") or {}
    headers = {str(name): str(value) for name, value in given.items()}
    delay = options.get("delay") or _number(headers, "AMQ_SCHEDULED_DELAY", 0.0) / 1000
    expiration = options.get("expiration") or None
    if expiration is None and _number(headers, "expires", 0.0) > 0:
        expiration = max(0.001, _number(headers, "expires", 0.0) / 1000 - time.time())
    persistent = str(options.get("persistent", headers.get("persistent", kind == "queue"))).lower() == "true"
    return Send(
        destination,
        message if isinstance(message, bytes) else str(message).encode(),
        own_headers(headers),
        kind=kind,
        delay=min(float(delay), LONGEST_DELAY),
        expiration=None if expiration is None else float(expiration),
        priority=_priority(headers),
        persistent=persistent,
        absolute=bool(options.get("ignore_namespace")),
    )


def received_body(message: Message) -> str | bytes:
    """The body as `workflows` hands it on: text, unless it is none."""
    try:
        return message.body.decode()
    except UnicodeDecodeError:
        return message.body


def _number(headers: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(headers.get(name, default))
    except ValueError:
        return default


def _priority(headers: Mapping[str, str]) -> int | None:
    value = headers.get("priority", "")
    return int(value) if len(value) == 1 and value.isdecimal() else None
