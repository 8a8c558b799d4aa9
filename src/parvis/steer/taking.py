"""Taking chosen messages out of a queue, one by one, and leaving all others in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from parvis.observe.dead_letter_search import Listing, Wanted, numbered
from parvis.observe.dead_letters import DeadLetter, content_name, of_message
from parvis.observe.queue_figures import LONGEST_PEEK, is_dead_letters
from parvis.transport.base import Disconnected, Message, Send, Transport

#: Seconds without a message after which there are no more.
SILENCE: Final = 3.0

_WINDOW: Final = 2 * LONGEST_PEEK
_LOOK: Final = 0.5
_PATIENCE: Final = 60.0

T = TypeVar("T")


def look(
    transport: Transport, queue: str, most: int = LONGEST_PEEK, silence: float = SILENCE
) -> list[DeadLetter]:
    """Return the dead letters of a queue, by taking them and giving them back.

    For brokers that let nobody look. They keep their places; the broker marks them as redelivered.

    Args:
        transport: Connected.
        queue: The whole name of the queue.
        most: How many at most.
        silence: As of `take`.

    Raises:
        TransportError: The broker refuses, or is away.
    """
    arrived: SimpleQueue[Message] = SimpleQueue()
    found: dict[str, DeadLetter] = {}
    subscription = transport.subscribe(queue, arrived.put, prefetch=most, absolute=True, individual=True)
    try:
        while len(found) < most:
            message = arrived.get(timeout=silence)
            found.setdefault(message.token, of_message(message, _place(message, queue)))
    except Empty:
        pass
    finally:
        transport.unsubscribe(subscription)
    return list(found.values())


def find_by_taking(transport: Transport, wanted: Wanted, silence: float = SILENCE) -> Listing:
    """As `find`, on a broker that lets nobody look; without names of queues, on a STOMP broker only.

    Raises:
        TransportError: As `look`.
        ValueError: As `find`.
    """
    names = [_whole_name(queue, wanted.namespace) for queue in wanted.queues]
    names = names or [f"DLQ.{wanted.namespace}.>" if wanted.namespace else "DLQ.>"]
    letters = [letter for name in names for letter in look(transport, name, silence=silence)]
    held = dict(Counter(letter.queue for letter in letters))
    return Listing(numbered(filter(wanted.matches, letters)), held, {})


def _whole_name(queue: str, namespace: str) -> str:
    if is_dead_letters(queue):
        return queue
    inside = not namespace or queue.startswith(f"{namespace}.")
    return f"DLQ.{queue}" if inside else f"DLQ.{namespace}.{queue}"


def take(
    transport: Transport,
    queue: str,
    wanted: Sequence[DeadLetter],
    settle: Callable[[DeadLetter, Message], tuple[Sequence[Send], T]],
    told: Callable[[T], None],
    silence: float = SILENCE,
) -> list[DeadLetter]:
    """Take dead letters out of a queue, each in a transaction with what is sent in its place.

    A connection that is lost on the way is waited for; then a letter may be settled a second time, if the
    broker had not heard of the first.

    Args:
        transport: Connected.
        queue: The whole name of the queue.
        wanted: Which, as they were found in it.
        settle: Called with each letter, as it was found, and the message, before that is acknowledged: does
            what must be done before, and returns what is to be sent, and what `told` is to hear. What it
            raises ends this, and the message stays where it is.
        told: Called when the broker has confirmed that a letter has left.
        silence: Seconds to wait for a message.

    Returns:
        Those that are not there (any more).

    Raises:
        TransportError: The broker refuses, or is away for too long.
    """
    missing = list(wanted)
    arrived: SimpleQueue[Message] = SimpleQueue()
    subscription = transport.subscribe(queue, arrived.put, prefetch=_WINDOW, absolute=True, individual=True)
    try:
        while missing:
            try:
                message = arrived.get(timeout=silence)
            except Empty:
                break
            letter = _same(missing, message, queue)
            if letter is None:
                continue
            sends, done = settle(letter, message)
            try:
                transport.commit([message], sends)
            except Disconnected:
                _wait(transport)  # it comes again, unless the broker heard of it
            else:
                missing.remove(letter)
                told(done)
    finally:
        transport.unsubscribe(subscription)
    return missing


def _same(wanted: Sequence[DeadLetter], message: Message, queue: str) -> DeadLetter | None:
    """The wanted letter that a message is.

    By the broker's identifier if it has given one, as there may be two letters of one identity.
    """
    taken = of_message(message, queue)
    found = [one for one in wanted if one.message_id and one.message_id == taken.message_id]
    if not found and message.headers.get("parvis-id"):
        found = [one for one in wanted if one.identity == taken.identity and not one.message_id]
    if not found:
        name = content_name(taken.body)
        found = [one for one in wanted if not one.message_id and one.identity == name]
    return found[0] if found else None


def _place(message: Message, queue: str) -> str:
    """The whole name of the queue that a message is in, where it was asked for by a pattern."""
    if "*" not in queue and ">" not in queue:
        return queue
    return message.headers.get("destination", queue).split("/", 2)[-1]


def _wait(transport: Transport) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not transport.is_connected:
        if time.monotonic() > deadline:
            raise Disconnected("the connection to the broker was lost, and does not come back")
        time.sleep(_LOOK)
