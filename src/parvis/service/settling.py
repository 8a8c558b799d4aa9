"""What becomes of a message after it was handled: done, tried again later, or a dead letter.

Counts travel in headers of our own, because a STOMP broker tells nobody how often it delivered a message.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from parvis.recipe.envelope import RECIPE_HEADER, Envelope, MalformedMessage, is_recipe_message
from parvis.recipe.watch import dead_letter_notices
from parvis.service.base import AnyService
from parvis.service.handling import Outcome
from parvis.service.identity import IDENTITY, identity_of
from parvis.service.status import host_id
from parvis.transport.base import Message, Send, Transport, own_headers

ATTEMPTS: Final = "parvis-attempts"  # unforeseen exceptions so far
RETRIES: Final = "parvis-retries"  # retries that the service asked for so far
CRASHES: Final = "parvis-crashes"  # processes that died of it so far, not counting the first

_COUNTS: Final = (ATTEMPTS, RETRIES, CRASHES)

REASON: Final = "parvis-reason"
TRIES: Final = "parvis-tries"  # on a dead letter: how often it was tried
TRACEBACK: Final = "parvis-traceback"

_MAX_CRASHES = 2
_MOST_DIGITS = 16
_FIRST_DELAY = 2.0
_LONGEST_DELAY = 300.0
_MOST_DOUBLINGS = 16


def settle(transport: Transport, service: AnyService, message: Message, outcome: Outcome) -> Sequence[Send]:
    """Return what is to be sent, together with the acknowledgement of `message`."""
    if outcome.result == "done":
        return outcome.sends
    again = _again(service, message, outcome)
    if again is not None:
        service.log.warning("trying again in %g s: %s", again.delay, outcome.reason)
        return [again]
    service.log.error("set aside as a dead letter: %s", outcome.reason)
    if outcome.trace:
        service.log.error("%s", outcome.trace)
    # Without our counts: a message that somebody sends in again is to begin anew.
    headers = {name: value for name, value in message.headers.items() if name not in _COUNTS}
    letter = replace(message, headers=headers | {IDENTITY: identity_of(message)})
    return [
        *outcome.sends,
        *_notices(service, message, outcome),
        transport.dead_letter(letter, _dead_letter_headers(service, message, outcome)),
    ]


def _notices(service: AnyService, message: Message, outcome: Outcome) -> Sequence[Send]:
    """What tells those who wait for the results of the recipe."""
    if not is_recipe_message(message.headers):
        return ()
    try:
        return dead_letter_notices(Envelope.parse(message.body), service.name, outcome.reason)
    except (MalformedMessage, RecursionError):
        return ()


def bare_dead_letter(transport: Transport, message: Message, reason: str) -> Send:
    """Return what makes a message a dead letter with no headers but the reason and what it needs."""
    kept = {name: value for name, value in message.headers.items() if name in (RECIPE_HEADER, "destination")}
    kept[IDENTITY] = identity_of(message)
    return transport.dead_letter(replace(message, headers=kept), {REASON: reason[:500]})


def count(message: Message, header: str) -> int:
    """Read one of our counts; whatever is not a number counts as none."""
    return _number(message, header) or 0


def _again(service: AnyService, message: Message, outcome: Outcome) -> Send | None:
    """What sends the message to its queue once more, or None if it has been tried often enough."""
    if outcome.result == "retry":
        header, most = RETRIES, service.max_retries
    elif outcome.result == "fail":
        header, most = ATTEMPTS, service.max_attempts - 1
    elif outcome.result == "crash":
        header, most = CRASHES, _MAX_CRASHES - 1
    else:
        return None
    so_far = count(message, header)
    if so_far >= most:
        return None
    first = outcome.after if outcome.after is not None else _FIRST_DELAY
    delay = min(first * 2 ** min(so_far, _MOST_DOUBLINGS), max(_LONGEST_DELAY, first))
    return Send(
        message.destination,
        message.body,
        own_headers(message.headers) | {IDENTITY: identity_of(message), header: str(so_far + 1)},
        delay=delay,
        priority=_number(message, "priority"),
        expiration=_remaining(message),
    )


def _number(message: Message, header: str) -> int | None:
    value = message.headers.get(header, "")
    return int(value) if value.isdecimal() and len(value) < _MOST_DIGITS else None


def _remaining(message: Message) -> float | None:
    """Seconds until the message is worthless, if ever."""
    expires = _number(message, "expires")
    return max(0.001, expires / 1000 - time.time()) if expires else None


def _dead_letter_headers(service: AnyService, message: Message, outcome: Outcome) -> dict[str, str]:
    reasons = {
        "reject": "rejected",
        "retry": f"gave up after {service.max_retries} retries",
        "fail": f"failed {service.max_attempts} times",
        "crash": "the process that handled it died, again and again",
    }
    headers = {
        REASON: outcome.reason or reasons[outcome.result],
        "parvis-result": reasons[outcome.result],
        "parvis-service": service.name,
        "parvis-host": host_id(),
        "parvis-time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        # The first process that died of it could count nothing any more.
        TRIES: str(1 + sum(count(message, header) for header in _COUNTS) + (outcome.result == "crash")),
    }
    if outcome.trace:
        headers[TRACEBACK] = outcome.trace
    return headers
