"""Moving the messages of a queue to another one, or to where they belong, losing and doubling none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Final

from parvis.observe.dead_letters import origin_of
from parvis.observe.queue_figures import is_dead_letters
from parvis.recipe.envelope import envelope_of
from parvis.service.identity import REINJECTED, REINJECTIONS, identity_of, reinjections
from parvis.transport.base import (
    Disconnected,
    Message,
    Send,
    Transport,
    TransportError,
    check_destination,
    own_headers,
    whole_number,
)

#: In place of a destination: each message goes to where its headers, or its recipe, say that it belongs.
BY_HEADER: Final = "."

_LOOK: Final = 0.5  # seconds between looks at whether somebody ends it
_PATIENCE: Final = 60.0  # seconds to wait for a lost connection
_ORIGIN: Final = "original-destination"


class DiedAgain(TransportError):
    """A dead letter that was brought back is here once more; it stays, and what is behind it."""


class NoDestination(TransportError):
    """A message does not say where it belongs; it stays where it is, and what is behind it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A queue.

    Attributes:
        name: Its name.
        absolute: `name` is its whole name on the broker, outside any namespace.
    """

    name: str
    absolute: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """A message that is in its new place.

    Attributes:
        message: As it was taken.
        target: Where it is now.
        number: Counts the messages, from 1.
        seconds: Since the beginning.
    """

    message: Message
    target: Place
    number: int
    seconds: float


def place(name: str, namespace: str) -> Place:
    """The queue that somebody means by a name: of dead letters, and with the namespace, it is the whole name.

    Raises:
        ValueError: It cannot name a queue.
    """
    check_destination(name)
    whole = is_dead_letters(name) or bool(namespace and name.startswith(f"{namespace}."))
    return Place(name, whole or not namespace)


def drain(
    transport: Transport,
    source: Place,
    target: Place | None,
    *,
    told: Callable[[Moved], None],
    wait: float = 5,
    stop: float = 60,
    ended: Callable[[], bool] = lambda: False,
) -> int:
    """Move messages one by one, each in a transaction of its own; return how many.

    A connection that is lost on the way is waited for. On RabbitMQ, which has no such transactions, a message
    whose confirmation is lost with the connection can be there twice, with the same identity.

    Args:
        transport: Connected.
        source: Where they are.
        target: Where they go; None for where each says that it belongs.
        told: Called with each message when it has been moved.
        wait: Seconds between two messages.
        stop: Seconds without a message after which this ends; 0 for never.
        ended: Asked now and then whether to end.

    Raises:
        DiedAgain: A dead letter has come back: all that were there before it were brought back once.
        NoDestination: A message says nowhere that it belongs to.
        TransportError: The broker refuses, or is away for too long.
    """
    arrived: SimpleQueue[Message] = SimpleQueue()
    begun = last = time.monotonic()
    moved = 0
    brought_back: dict[str, int] = {}  # dead letters, and how often each had been brought back before
    subscription = transport.subscribe(source.name, arrived.put, prefetch=1, absolute=source.absolute)
    try:
        while not ended():
            try:
                message = arrived.get(timeout=min(_LOOK, stop) if stop else _LOOK)
            except Empty:
                if stop and time.monotonic() - last >= stop:
                    break
                continue
            where = target or _where(message, source, transport.namespace)
            again = is_dead_letters(source.name) and not is_dead_letters(where.name)
            if again:
                _check_first_time(message, brought_back)
            if _move(transport, message, _copy(message, where, again=again)):
                moved += 1
                last = time.monotonic()
                told(Moved(message, where, moved, last - begun))
                _pause(wait, ended)
                last = time.monotonic()
    finally:
        transport.unsubscribe(subscription)
    return moved


def _check_first_time(message: Message, brought_back: dict[str, int]) -> None:
    """Make sure that what dies of its handling does not go round and round."""
    identity, times = identity_of(message), reinjections(message.headers)
    if times > brought_back.setdefault(identity, times):
        raise DiedAgain(
            f"message {message.message_id[:80]!r} was brought back and died again: see parvis dlq show; it"
            " stays in its queue, and all that are behind it"
        )


def _move(transport: Transport, message: Message, copy: Send) -> bool:
    """Move a message; False if the connection was lost, with which it comes again unless it was moved."""
    try:
        transport.commit([message], [copy])
    except Disconnected:
        deadline = time.monotonic() + _PATIENCE
        while not transport.is_connected:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK)
        return False
    return True


def _pause(seconds: float, ended: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not ended():
        time.sleep(min(_LOOK, left))


def _copy(message: Message, where: Place, *, again: bool) -> Send:
    """What puts a message elsewhere; `again` if it is dead and is to be handled once more."""
    headers = message.headers
    sent = Send(
        where.name,
        message.body,
        own_headers(headers),
        absolute=where.absolute,
        persistent=headers.get("persistent") == "true",
        priority=whole_number(headers.get("priority")),
    )
    if again:
        again_headers = {REINJECTED: "True", REINJECTIONS: str(reinjections(headers) + 1)}
        return replace(sent, headers={**sent.headers, **again_headers}, persistent=True)
    expires = whole_number(headers.get("expires"))
    return replace(sent, expiration=max(0.0, expires / 1000 - time.time())) if expires else sent


def _where(message: Message, source: Place, namespace: str) -> Place:
    """Where a message belongs: a dead letter to the queue that it died in, any other to that of its node."""
    name = message.headers.get(_ORIGIN) or origin_of(source.name) or source.name
    if name != source.name:
        where = Place(name.split("/", 2)[-1] if name.startswith("/") else name, absolute=True)
    else:
        where = Place(_queue_of_node(message), absolute=False)
    try:
        check_destination(where.name)
    except ValueError:
        raise NoDestination(
            f"message {message.message_id[:80]!r} does not say where it belongs: name a destination; "
            "it stays in its queue, and all that are behind it"
        ) from None
    if _whole_name(where, namespace) == _whole_name(source, namespace):
        raise NoDestination(
            f"message {message.message_id[:80]!r} belongs where it is: name another destination; it stays "
            "in its queue, and all that are behind it"
        )
    return where


def _queue_of_node(message: Message) -> str:
    envelope = envelope_of(message.headers, message.body)
    return str(envelope.node.get("queue", "")) if envelope else ""


def _whole_name(one: Place, namespace: str) -> str:
    return one.name if one.absolute or not namespace else f"{namespace}.{one.name}"
