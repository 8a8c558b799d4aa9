"""Dead letters: what nobody could handle, and why, from whichever service, client or broker gave it up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

from parvis.observe.queue_figures import BODY_LIMIT, DEAD_PREFIXES, PeekedMessage, clip_headers
from parvis.recipe.envelope import MalformedMessage, envelope_of, parse_json
from parvis.service.failure import HOST, REASON, RESULT, ROUTE, SERVICE, TIME, TRACEBACK, TRIES, route
from parvis.service.identity import IDENTITY, reinjections
from parvis.transport.base import Message, whole_number

_ORIGIN: Final = "original-destination"
_CAUSE: Final = "dlqDeliveryFailureCause"
_DEATH_REASON: Final = "x-first-death-reason"
_DEATH_QUEUE: Final = "x-first-death-queue"
_DEATHS: Final = {
    "rejected": "a consumer gave it up, without a word why",
    "expired": "nobody took it in its time",
    "maxlen": "its queue was full",
    "delivery_limit": "it was handed out too often: its consumers died, or gave it back each time",
}
_UNKNOWN: Final = "nobody said why"
_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that nobody could handle. Texts are as somebody sent them: `printable` makes them harmless.

    Attributes:
        number: Its number in the listing, from 1; 0 outside one.
        queue: Whole name of the queue that it is in.
        origin: Whole name of the queue that it died in; empty if that is not known.
        message_id: The broker's identifier; empty where it has none.
        identity: What tells it from others, wherever it goes: see `parvis.service.identity`.
        reason: What was wrong, in words.
        result: How it ended, such as `rejected`; empty if nobody said.
        traceback: Of an unforeseen exception, or empty.
        route: The nodes it came through, as `1 filewatcher > 2 per_image_analysis`, or empty.
        service, host: Who gave it up, in which process; empty if that is not known.
        died: When, in s since 1970; None if that is not known.
        tries: How often it was tried, or None.
        recipe_id: Of the recipe that it is part of, or None.
        node: Number of its node, or None.
        payload: The payload, or the whole body if it is JSON and of no recipe; None if it cannot be read.
        parameters: What its node says to the service, or None.
        reinjected: How often it was sent in again before it died this time.
        headers: All headers.
        body: The body; of a very long one the beginning.
        size: Bytes of the whole body.
    """

    number: int
    queue: str
    origin: str
    message_id: str
    identity: str
    reason: str
    result: str
    traceback: str
    route: str
    service: str
    host: str
    died: float | None
    tries: int | None
    recipe_id: str | None
    node: int | None
    payload: Any
    parameters: Any
    reinjected: int
    headers: Mapping[str, str]
    body: bytes
    size: int

    @property
    def key(self) -> tuple[str, str]:
        """What names it among all dead letters: its queue and its identity."""
        return self.queue, self.identity

    @property
    def short_id(self) -> str:
        """As much of the identity as people need: the end of a long one that a broker has made."""
        return self.identity if len(self.identity) <= 2 * _SHORT else self.identity[-_SHORT:]

    @property
    def age(self) -> float | None:
        """Seconds since it died, if that is known."""
        return None if self.died is None else max(0.0, time.time() - self.died)

    @property
    def is_whole(self) -> bool:
        """Whether `body` is the whole body."""
        return len(self.body) == self.size

    def to_json(self) -> dict[str, object]:
        """All of it, for programs; the body as text where it is not JSON."""
        content: object = self.payload
        if self.recipe_id is None and content is None:
            content = self.body.decode(errors="replace")
        return {
            "number": self.number,
            "queue": self.queue,
            "origin": self.origin,
            "message_id": self.message_id,
            "identity": self.identity,
            "reason": self.reason,
            "result": self.result,
            "traceback": self.traceback,
            "route": self.route,
            "service": self.service,
            "host": self.host,
            "died": self.died,
            "tries": self.tries,
            "recipe_id": self.recipe_id,
            "node": self.node,
            "payload": content,
            "parameters": self.parameters,
            "reinjected": self.reinjected,
            "headers": dict(self.headers),
            "size": self.size,
        }


def origin_of(queue: str) -> str:
    """The whole name of the queue whose dead letters a queue holds; empty if it does not say."""
    for prefix in DEAD_PREFIXES:
        if queue.startswith(prefix):
            return queue.removeprefix(prefix)
    return ""


def of_peeked(message: PeekedMessage) -> DeadLetter:
    """Read a dead letter that was looked at."""
    return _letter(
        message.queue, message.message_id, message.headers, message.body, message.size, message.sent
    )


def of_message(message: Message, queue: str) -> DeadLetter:
    """Read a dead letter that was taken from a queue, by its whole name; as `of_peeked` does."""
    headers, body = clip_headers(message.headers), message.body
    sent = _sent(headers)
    return _letter(queue, message.message_id, headers, body[:BODY_LIMIT], len(body), sent)


def of_content(headers: Mapping[str, str], body: bytes) -> DeadLetter:
    """Read a dead letter that was kept elsewhere, such as in a file."""
    queue = headers.get("destination", "").split("/", 2)[-1]
    sent = _sent(headers)
    return _letter(queue, headers.get("message-id", ""), headers, body, len(body), sent)


def content_name(body: bytes) -> str:
    """A name for a message that has none, made of its body."""
    return blake2b(body[:BODY_LIMIT], digest_size=12).hexdigest()


def _letter(
    queue: str, message_id: str, headers: Mapping[str, str], body: bytes, size: int, sent: float | None
) -> DeadLetter:
    envelope = envelope_of(headers, body) if len(body) == size else None
    return DeadLetter(
        number=0,
        queue=queue,
        origin=_origin(queue, headers),
        message_id=message_id,
        identity=_identity(message_id, headers, body),
        reason=_reason(headers),
        result=headers.get(RESULT, ""),
        traceback=headers.get(TRACEBACK, ""),
        route=headers.get(ROUTE, "") or (route(envelope) if envelope else ""),
        service=headers.get(SERVICE, ""),
        host=headers.get(HOST, ""),
        died=_moment(headers.get(TIME, "")) or sent,
        tries=whole_number(headers.get(TRIES)),
        recipe_id=envelope.recipe_id if envelope else None,
        node=envelope.pointer if envelope else None,
        payload=envelope.payload if envelope else _json(body, size),
        parameters=envelope.node.get("parameters") if envelope else None,
        reinjected=reinjections(headers),
        headers=headers,
        body=body,
        size=size,
    )


def _json(body: bytes, size: int) -> Any:
    if len(body) < size:
        return None
    try:
        return parse_json(body)
    except (MalformedMessage, RecursionError):
        return None


def _origin(queue: str, headers: Mapping[str, str]) -> str:
    named = headers.get(_ORIGIN) or headers.get(_DEATH_QUEUE) or ""
    named = named.split("/", 2)[-1] if named.startswith("/") else named
    return origin_of(named) or named or origin_of(queue)


def _identity(message_id: str, headers: Mapping[str, str], body: bytes) -> str:
    if headers.get(IDENTITY):
        return headers[IDENTITY]
    # A broker that names no message has its header empty, and ours would be a new one each time.
    return message_id or content_name(body)


def _reason(headers: Mapping[str, str]) -> str:
    if headers.get(REASON):
        return headers[REASON]
    if headers.get(_CAUSE):
        return headers[_CAUSE]
    death = headers.get(_DEATH_REASON, "")
    return _DEATHS.get(death, death) or _UNKNOWN


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _sent(headers: Mapping[str, str]) -> float | None:
    milliseconds = whole_number(headers.get("timestamp"))
    return None if milliseconds is None else milliseconds / 1000
