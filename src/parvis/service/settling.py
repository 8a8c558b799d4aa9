"""What becomes of a message after it was handled: done, tried again, sent to error nodes, or a dead letter.

Counts travel in headers of our own, because a STOMP broker tells nobody how often it delivered a message.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from parvis.recipe.envelope import RECIPE_HEADER, Envelope, MalformedMessage, envelope_of
from parvis.recipe.policy import Policy, PolicyError, policy_of
from parvis.recipe.watch import dead_letter_notices
from parvis.service.base import AnyService, Reject, bounded
from parvis.service.failure import REASON, Failure
from parvis.service.handling import Outcome
from parvis.service.identity import FIRST_SEEN, IDENTITY, first_seen_of, identity_of
from parvis.service.status import host_id
from parvis.transport.base import Message, Send, Transport, own_headers, whole_number

ATTEMPTS: Final = "parvis-attempts"  # unforeseen exceptions and time-outs so far
RETRIES: Final = "parvis-retries"  # retries that the service asked for so far
CRASHES: Final = "parvis-crashes"  # processes that died of it so far, not counting the first

COUNTS: Final = (ATTEMPTS, RETRIES, CRASHES)
_COUNTED_BY: Final = {"retry": RETRIES, "fail": ATTEMPTS, "timeout": ATTEMPTS, "crash": CRASHES}

_MAX_CRASHES = 2
_FIRST_DELAY = 2.0
_LONGEST_DELAY = 300.0
_MOST_DOUBLINGS = 16


def settle(transport: Transport, service: AnyService, message: Message, outcome: Outcome) -> Sequence[Send]:
    """Return what is to be sent, together with the acknowledgement of `message`."""
    if outcome.result == "done":
        return outcome.sends
    envelope = envelope_of(message.headers, message.body)
    policy = _policy(envelope)
    again = _again(service, message, outcome, policy)
    if again is not None:
        service.log.warning("trying again in %g s: %s", again.delay, outcome.reason)
        return [again]
    failure = _failure(service, message, outcome, policy)
    notices = dead_letter_notices(envelope, service.name, outcome.reason) if envelope else ()
    errors = _error_sends(service, envelope, failure) if outcome.tells_error_nodes else ()
    sends = [*outcome.sends, *notices, *errors]
    # A topic keeps nothing for those who do not listen just now.
    if all(send.kind == "topic" for send in errors):
        sends.append(_dead_letter(transport, service, message, envelope, failure))
    if outcome.trace:
        service.log.error("%s", outcome.trace)
    return sends


def _policy(envelope: Envelope | None) -> Policy:
    try:
        return policy_of(envelope.node) if envelope else Policy()
    except PolicyError:
        return Policy()


def _error_sends(service: AnyService, envelope: Envelope | None, failure: Failure) -> Sequence[Send]:
    """What goes to the error nodes, if there are any and they can be sent to."""
    if envelope is None:
        return ()
    try:
        sends = list(bounded(envelope.failed(failure.payload(envelope))))
    except (MalformedMessage, Reject, TypeError, RecursionError) as error:
        service.log.error("its error nodes cannot be sent to: %s", error)
        return ()
    if sends:
        service.log.error("sent to the error nodes of node %d: %s", envelope.pointer, failure.reason)
    return sends


def _dead_letter(
    transport: Transport, service: AnyService, message: Message, envelope: Envelope | None, failure: Failure
) -> Send:
    service.log.error("set aside as a dead letter: %s", failure.reason)
    # Without our counts: a message that somebody sends in again is to begin anew.
    headers = {name: value for name, value in message.headers.items() if name not in COUNTS}
    letter = replace(message, headers=headers | _kept(message))
    return transport.dead_letter(letter, failure.headers(envelope))


def _kept(message: Message) -> dict[str, str]:
    """What a message keeps when it is sent once more."""
    return {IDENTITY: identity_of(message), FIRST_SEEN: first_seen_of(message)}


def bare_dead_letter(transport: Transport, message: Message, reason: str) -> Send:
    """Return what makes a message a dead letter with no headers but the reason and what it needs."""
    kept = {name: value for name, value in message.headers.items() if name in (RECIPE_HEADER, "destination")}
    kept[IDENTITY] = identity_of(message)
    return transport.dead_letter(replace(message, headers=kept), {REASON: reason[:500]})


def count(message: Message, header: str) -> int:
    """Read one of our counts; whatever is not a number counts as none."""
    return whole_number(message.headers.get(header)) or 0


def _again(service: AnyService, message: Message, outcome: Outcome, policy: Policy) -> Send | None:
    """What sends the message to its queue once more, or None if it has been tried often enough."""
    if outcome.result == "reject":
        return None
    header = _COUNTED_BY[outcome.result]
    so_far = count(message, header)
    if so_far >= _most_retries(service, outcome, policy):
        return None
    # Where the recipe says how often, it means altogether.
    if policy.retries is not None and sum(count(message, each) for each in COUNTS) >= policy.retries:
        return None
    first = policy.retry_delay
    if first is None:
        first = outcome.after if outcome.after is not None else _FIRST_DELAY
    delay = min(first * 2 ** min(so_far, _MOST_DOUBLINGS), max(_LONGEST_DELAY, first))
    return once_more(message, {header: str(so_far + 1)}, delay)


def once_more(message: Message, headers: Mapping[str, str], delay: float = 0) -> Send:
    """Return what sends a message to its queue once more, with `headers` added, after `delay` seconds."""
    return Send(
        message.destination,
        message.body,
        {**own_headers(message.headers), **_kept(message), **headers},
        delay=delay,
        priority=whole_number(message.headers.get("priority")),
        expiration=_remaining(message),
    )


def _most_retries(service: AnyService, outcome: Outcome, policy: Policy) -> int:
    if outcome.result == "crash":
        return _MAX_CRASHES - 1
    if policy.retries is not None:
        return policy.retries
    return service.max_retries if outcome.result == "retry" else service.max_attempts - 1


def _remaining(message: Message) -> float | None:
    """Seconds until the message is worthless, if ever."""
    expires = whole_number(message.headers.get("expires"))
    return max(0.001, expires / 1000 - time.time()) if expires else None


def _failure(service: AnyService, message: Message, outcome: Outcome, policy: Policy) -> Failure:
    most = _most_retries(service, outcome, policy)
    times = f"{most + 1} times" if most else "once"
    results = {
        "reject": "rejected",
        "retry": "gave up after 1 retry" if most == 1 else f"gave up after {most} retries",
        "fail": f"failed {times}",
        "timeout": f"ran out of time {times}",
        "crash": "the process that handled it died, again and again",
    }
    result = results[outcome.result]
    return Failure(
        reason=outcome.reason or result,
        result=result,
        service=service.name,
        host=host_id(),
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        # The first process that died of it could count nothing any more.
        tries=1 + sum(count(message, header) for header in COUNTS) + (outcome.result == "crash"),
        trace=outcome.trace,
    )
