"""Which message is which: a name for each that stays the same when it comes, or is sent, a second time.

A message that is handled twice sends everything twice. So that those who take it can tell, the name of what
is sent follows from the name of the message that caused it, and from its place among all that it caused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Final

from parvis.transport.base import Message, Send

IDENTITY: Final = "parvis-id"
FIRST_SEEN: Final = "parvis-first-seen"  # when the first message of all that led to this one was sent, in ms
#: Of a message that was a dead letter and was sent in again: `True`, as all tools for dead letters set it.
REINJECTED: Final = "dlq-reinjected"
REINJECTIONS: Final = "parvis-reinjections"  # how often
_BYTES: Final = 12
_LONGEST: Final = 100
_MOST_DIGITS: Final = 16
_DIGITS_OF_COUNT: Final = 6


def identity_of(message: Message) -> str:
    """Return what tells a message from all others, however often it is delivered or tried again.

    That is its header `parvis-id`; for a message of somebody who sets none, the broker's identifier.
    """
    identity = message.headers.get(IDENTITY) or message.message_id
    return identity if len(identity) <= _LONGEST else _digest(identity)


def occasion_of(message: Message) -> str:
    """Return what tells one reason to handle a message from another: to be remembered once it is done.

    That is its identity; if it was a dead letter and somebody wants it handled again, with the number of
    times.
    """
    times = reinjections(message.headers)
    return f"{identity_of(message)} {times}" if times else identity_of(message)


def reinjections(headers: Mapping[str, str]) -> int:
    """Return how often a message was a dead letter and was sent in again, as its headers say."""
    value = headers.get(REINJECTIONS, "")
    if value.isascii() and value.isdecimal() and len(value) <= _DIGITS_OF_COUNT:
        return int(value)
    return 1 if REINJECTED in headers else 0


def derived(identity: str, position: int) -> str:
    """Return the identity of the message that is sent at `position`, from 0, because of another."""
    return _digest(f"{identity}\0{position}")


def identified(message: Message, sends: Sequence[Send]) -> list[Send]:
    """Return what is sent because of `message`, each with its identity and when its story began.

    What has the identity of `message` is that message, sent once more, and keeps it.
    """
    identity, first_seen = identity_of(message), first_seen_of(message)
    return [
        send
        if send.headers.get(IDENTITY) == identity
        else send.with_headers({IDENTITY: derived(identity, position), FIRST_SEEN: first_seen})
        for position, send in enumerate(sends)
    ]


def first_seen_of(message: Message) -> str:
    """Return when the first of the messages that led to this one was sent, in milliseconds since 1970.

    Of a message that does not say it, when the broker got it, or else now.
    """
    for header in (FIRST_SEEN, "timestamp"):
        value = message.headers.get(header, "")
        if value.isdecimal() and len(value) <= _MOST_DIGITS:
            return value
    return str(time.time_ns() // 1_000_000)


def anonymous(send: Send) -> Send:
    """Return `send` without an identity, which copied headers of another message may have brought along."""
    if IDENTITY not in send.headers:
        return send
    return replace(send, headers={name: value for name, value in send.headers.items() if name != IDENTITY})


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="replace"), digest_size=_BYTES).hexdigest()
