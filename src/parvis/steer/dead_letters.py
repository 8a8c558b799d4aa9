"""What can be done with dead letters: keep them in files, take them out of their queue, send them in again.

Nothing leaves a queue before it is safe elsewhere: in a file that is on the disk, or in another queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from parvis.observe.dead_letters import DeadLetter
from parvis.observe.hop_recorder import READY
from parvis.service.failure import HEADERS
from parvis.service.flow_report import FLOW
from parvis.service.identity import FIRST_SEEN, IDENTITY, REINJECTED, REINJECTIONS
from parvis.service.settling import COUNTS
from parvis.steer.exported import write
from parvis.steer.taking import SILENCE, take
from parvis.transport.base import Message, Send, Transport, TransportError, check_destination, own_headers

_ORIGIN: Final = "original-destination"
# What other tools and brokers put on dead letters, beside what every transport does.
_FOREIGN: Final = frozenset({"ignore_namespace", "routing_key", "delivery_mode", "delivery-mode", "app-id"})
_BROKERS_OWN: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-opt-")
# What was noted of its end, and of its place in what is in flight, which it has left.
_FAILURE: Final = frozenset({*HEADERS, *COUNTS, READY, FLOW, _ORIGIN})


class NoDestination(TransportError):
    """A dead letter does not say where it belongs."""


class Incomplete(TransportError):
    """Only the beginning of a dead letter is known."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to a dead letter.

    Attributes:
        letter: As it was.
        file: Where it is now, if it was written to a file.
        queue: Whole name of the queue that it is in now, if it was sent to one.
    """

    letter: DeadLetter
    file: Path | None = None
    queue: str | None = None


Told = Callable[[Done], None]
_Settled = tuple[Sequence[Send], Done]


def export(letters: Iterable[DeadLetter], directory: Path, told: Told) -> None:
    """Write dead letters to files; they stay in their queue.

    Args:
        letters: As they were found.
        directory: Where: see `exported.write`.
        told: Called with each when it is on the disk.

    Raises:
        Incomplete: One is too long to be known as a whole without taking it: purge it.
        OSError: One cannot be written.
    """
    for letter in letters:
        if not letter.is_whole:
            raise Incomplete(
                f"dead letter {letter.short_id} has {letter.size} bytes, of which {len(letter.body)} can be "
                "looked at: purge it, or send it in again as it is"
            )
        told(Done(letter, file=write(headers_of(letter), letter.body, _file_id(letter), directory)))


def purge(
    transport: Transport,
    letters: Sequence[DeadLetter],
    directory: Path,
    told: Told,
    silence: float = SILENCE,
) -> list[DeadLetter]:
    """Write dead letters to files, and take each out of its queue when it is on the disk.

    Killed at any point, a letter is in its queue, or in a file, or in both.

    Args:
        transport: Connected.
        letters: As they were found.
        directory: Where: see `exported.write`.
        told: Called with each when it has left its queue.
        silence: Seconds to wait for a message.

    Returns:
        Those that were not there any more.

    Raises:
        OSError: One cannot be written; it stays where it is, and those behind it.
        TransportError: The broker refuses, or is away for too long.
    """

    def keep(letter: DeadLetter, message: Message) -> _Settled:
        return (), Done(letter, file=write(message.headers, message.body, _file_id(letter), directory))

    return _by_queue(transport, letters, keep, told, silence)


def reinject(
    transport: Transport,
    letters: Sequence[DeadLetter],
    told: Told,
    *,
    destination: str | None = None,
    pause: float = 0,
    silence: float = SILENCE,
) -> list[DeadLetter]:
    """Send dead letters in again, each in one transaction with its leaving the queue.

    Args:
        transport: Connected.
        letters: As they were found.
        told: Called with each when the broker has confirmed it.
        destination: Whole name of a queue; by default each goes to that which it died in.
        pause: Seconds between two.
        silence: Seconds to wait for a message.

    Returns:
        Those that were not there any more.

    Raises:
        NoDestination: One does not say where it belongs; none is sent then.
        TransportError: The broker refuses, or is away for too long.
    """
    for letter in letters:
        target_of(letter, destination)
    first = True

    def send(letter: DeadLetter, message: Message) -> _Settled:
        nonlocal first
        if not first:
            time.sleep(pause)
        first = False
        again = renewed(letter, destination, headers=message.headers, body=message.body)
        return [again], Done(letter, queue=again.destination)

    return _by_queue(transport, letters, send, told, silence)


def send_back(
    transport: Transport,
    letter: DeadLetter,
    body: bytes,
    directory: Path,
    told: Told,
    *,
    destination: str | None = None,
) -> bool:
    """Send a dead letter in again with another body; the letter as it was is in a file before.

    Return False if it was not there any more. Other arguments, and what is raised, as of `purge` and
    `reinject`.
    """

    def change(found: DeadLetter, message: Message) -> _Settled:
        file = write(message.headers, message.body, _file_id(letter), directory)
        again = renewed(found, destination, headers=message.headers, body=body)
        return [again], Done(found, file=file, queue=again.destination)

    return not _by_queue(transport, [letter], change, told, SILENCE)


def put_back(transport: Transport, letter: DeadLetter, body: bytes, directory: Path, told: Told) -> bool:
    """As `send_back`, but it stays a dead letter, with the new body and all its headers."""

    def change(found: DeadLetter, message: Message) -> _Settled:
        file = write(message.headers, message.body, _file_id(letter), directory)
        headers = own_headers(message.headers) | {IDENTITY: found.identity}
        if _ORIGIN in message.headers:
            headers[_ORIGIN] = message.headers[_ORIGIN]
        elif found.origin:
            headers[_ORIGIN] = found.origin
        done = Done(found, file=file, queue=found.queue)
        return [Send(found.queue, body, headers, absolute=True)], done

    return not _by_queue(transport, [letter], change, told, SILENCE)


def renewed(
    letter: DeadLetter,
    destination: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Send:
    """Return what sends a dead letter in again: as a new message, with the identity that it had.

    Services count its tries anew. Headers `dlq-reinjected` and `parvis-reinjections` say that it was a dead
    letter, and how often.

    Args:
        letter: Which.
        destination: Whole name of a queue; by default that which it died in.
        headers, body: In place of those of `letter`, where they are known better.

    Raises:
        NoDestination: It does not say where it belongs.
        Incomplete: Its body is not known as a whole.
    """
    queue = target_of(letter, destination)
    if body is None:
        if not letter.is_whole:
            raise Incomplete(f"only the beginning of dead letter {letter.short_id} is known")
        body = letter.body
    known = letter.headers if headers is None else headers
    kept = {
        name: value
        for name, value in own_headers(known).items()
        if name not in _FAILURE and name.lower() not in _FOREIGN and not name.startswith(_BROKERS_OWN)
    }
    kept |= {IDENTITY: letter.identity, REINJECTED: "True", REINJECTIONS: str(letter.reinjected + 1)}
    kept.setdefault(FIRST_SEEN, _first_seen(known))
    return Send(queue, body, kept, priority=_priority(known), absolute=True)


def target_of(letter: DeadLetter, destination: str | None = None) -> str:
    """Return the whole name of the queue that a dead letter goes to when it is sent in again.

    Raises:
        NoDestination: It does not say where it belongs.
    """
    name = destination or letter.origin
    try:
        return check_destination(name)
    except ValueError:
        raise NoDestination(
            f"dead letter {letter.short_id[:80]!r} does not say which queue it died in: name one (-d)"
        ) from None


def headers_of(letter: DeadLetter) -> dict[str, str]:
    """Return the headers of a dead letter that was looked at, with where it is: as of one that is taken."""
    named = {"destination": letter.queue, "message-id": letter.message_id or letter.identity}
    if letter.origin:
        named[_ORIGIN] = letter.origin
    if letter.died is not None:
        named["timestamp"] = str(round(letter.died * 1000))
    return named | dict(letter.headers)


def _by_queue(
    transport: Transport,
    letters: Sequence[DeadLetter],
    settle: Callable[[DeadLetter, Message], _Settled],
    told: Told,
    silence: float,
) -> list[DeadLetter]:
    missing: list[DeadLetter] = []
    in_order = sorted(letters, key=lambda one: (one.queue, one.number))
    for queue, members in groupby(in_order, key=lambda one: one.queue):
        missing += take(transport, queue, list(members), settle, told, silence)
    return missing


def _file_id(letter: DeadLetter) -> str:
    return letter.message_id or letter.identity


def _first_seen(headers: Mapping[str, str]) -> str:
    stamp = headers.get("timestamp", "")
    return stamp if stamp.isascii() and stamp.isdecimal() else str(time.time_ns() // 1_000_000)


def _priority(headers: Mapping[str, str]) -> int | None:
    value = headers.get("priority", "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) == 1 else None
