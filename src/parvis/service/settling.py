"""What becomes of a message after it was handled: done, tried again later, or a dead letter.

Counts travel in headers of our own, because a STOMP broker tells nobody how often it delivered a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from parvis.service.base import AnyService
from parvis.service.handling import Outcome
from parvis.service.status import host_id
from parvis.transport.base import Message, Send, Transport, own_headers

ATTEMPTS: Final = "parvis-attempts"  # unforeseen exceptions so far
RETRIES: Final = "parvis-retries"  # retries that the service asked for so far
CRASHES: Final = "parvis-crashes"  # processes that died of it so far, not counting the first

REASON: Final = "parvis-reason"
TRACEBACK: Final = "parvis-traceback"

_MAX_CRASHES = 2
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
    return [*outcome.sends, transport.dead_letter(message, _dead_letter_headers(service, message, outcome))]


def count(message: Message, header: str) -> int:
    """Read one of our counts; whatever is not a number counts as none."""
    value = message.headers.get(header, "")
    return int(value) if value.isdecimal() and len(value) < 6 else 0


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
    headers = own_headers(message.headers) | {header: str(so_far + 1)}
    return Send(message.destination, message.body, headers, delay=delay)


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
        ATTEMPTS: str(count(message, ATTEMPTS) + 1),
    }
    if outcome.trace:
        headers[TRACEBACK] = outcome.trace
    return headers
