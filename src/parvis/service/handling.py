"""Handle one message: from its bytes to what is to be sent. No broker is needed here.

The host, the isolated child process and `parvis.service.testing` all handle messages through this module, so
that a message means the same everywhere.
"""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

from pydantic import BaseModel, ValidationError

from parvis.observe.logs import recipe_context
from parvis.recipe.envelope import Envelope, MalformedMessage, is_recipe_message, parse_json
from parvis.recipe.policy import Policy, PolicyError, policy_of
from parvis.service.base import AnyBatchService, AnyService, Reject, Retry, Step
from parvis.service.contract import Contract, explain
from parvis.service.identity import identity_of
from parvis.service.time_limit import OutOfTime, call_within
from parvis.transport.base import Message, Send

Result = Literal["done", "reject", "retry", "fail", "timeout", "crash", "duplicate"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a message.

    Attributes:
        result: `done`; `reject`, bad input; `retry`, asked for by the service; `fail`, an unforeseen
            exception; `timeout`, it took longer than its node allows; `crash`, the process that handled
            it died; `duplicate`, it was done before.
        sends: What to send.
        reason: Why it is not done.
        trace: The traceback of an unforeseen exception.
        after: Seconds to wait before the next attempt, if the service said so.
        tells_error_nodes: Whether error nodes get it; not where sending to them may be what failed.
    """

    result: Result
    sends: Sequence[Send] = ()
    reason: str = ""
    trace: str = ""
    after: float | None = None
    tells_error_nodes: bool = True


@dataclass(slots=True)
class Work:
    """A message made ready for its service."""

    payload: Any
    step: Step[Any]
    recipe_id: str | None = None
    time_limit: float | None = None


@dataclass(slots=True)
class Batch:
    """Messages that a service handles together; those that cannot be read are kept with their outcome."""

    messages: list[Message] = field(default_factory=list[Message])
    work: list[Work | Outcome] = field(default_factory=list["Work | Outcome"])
    identities: set[str] = field(default_factory=set[str])

    def readable(self) -> list[tuple[Any, Step[Any]]]:
        """Payload and step of each message that could be read, in order of arrival."""
        return [(work.payload, work.step) for work in self.work if isinstance(work, Work)]


def read(service: AnyService, message: Message) -> Work | Outcome:
    """Read a message and check it against the contract of the service.

    Return the outcome `reject` if it is no good, whatever is wrong with it.
    """
    try:
        return _read(service, message)
    except PolicyError as error:
        return Outcome("reject", reason=f"its recipe node: {error}")
    except MalformedMessage as error:
        return Outcome("reject", reason=str(error))
    except Exception as error:  # noqa: BLE001 - a message made to break its reader must not break the host
        return Outcome("reject", reason=f"it cannot be read: {type(error).__name__}: {reprlib.repr(error)}")


def _read(service: AnyService, message: Message) -> Work:
    contract = Contract.of(type(service))
    envelope = _envelope(service, message)
    policy = policy_of(envelope.node)  # whose nonsense should not wait until it matters
    payload: Any = envelope.payload
    overriding: Any = None
    if not service.any_payload:
        overriding, payload = payload, _validate(contract.payload, payload, "payload")
    parameters = _validate(contract.parameters, _parameters(contract, envelope, overriding), "parameters")
    step = Step(
        contract,
        envelope,
        parameters,
        header=message.headers,
        message_id=message.message_id,
        identity=identity_of(message),
        queue=message.destination,
        redelivered=message.redelivered,
        fan_outs=service.fan_outs,
        ledger=service.ledger,
    )
    return Work(payload, step, envelope.recipe_id, _limit(service, policy))


def handle(service: AnyService, message: Message, *, hard: bool = True) -> Outcome:
    """Have the service handle one message; never raises for anything that is wrong with it.

    Args:
        service: Which.
        message: What.
        hard: Whether to end this process if the message takes too long and cannot be interrupted.
    """
    work = read(service, message)
    if isinstance(work, Outcome):
        return work
    with recipe_context(work.recipe_id):
        failure = _attempt(partial(service.process, work.payload, work.step), work.time_limit, hard=hard)
    return failure or _outcome(work)


def handle_batch(service: AnyBatchService, batch: Batch, *, hard: bool = True) -> list[Outcome]:
    """Have the service handle a batch; return the outcome of each message, in order. Arguments as `handle`.

    A batch may take as long as the message in it with the lowest limit. If `process_batch` raises, or takes
    too long, each message is handled again on its own, unless it was to ask for another try.
    """
    readable = batch.readable()
    limits = [item.time_limit for item in batch.work if isinstance(item, Work) and item.time_limit]
    limit = min(limits, default=None)
    failure = _attempt(lambda: service.process_batch(readable), limit, hard=hard) if readable else None
    if failure is None:
        return [item if isinstance(item, Outcome) else _outcome(item) for item in batch.work]
    if len(readable) == 1 or failure.result == "retry":
        return [item if isinstance(item, Outcome) else failure for item in batch.work]
    service.log.warning(
        "a batch of %d messages failed, handling them one by one: %s", len(readable), failure.reason
    )
    return [handle(service, message, hard=hard) for message in batch.messages]


def _attempt(call: Callable[[], None], limit: float | None, *, hard: bool) -> Outcome | None:
    """Return the outcome if the service raised or took too long, None if it returned."""
    try:
        if limit is None:
            call()
        else:
            call_within(limit, call, hard=hard)
    except OutOfTime as error:
        trace = "".join(traceback.format_exception(error))
        return Outcome("timeout", reason=too_long(limit or 0), trace=trace)
    except Exception as error:  # noqa: BLE001 - whatever a service raises costs the message, not the instance
        return _failure(error)
    return None


def limit_of(service: AnyService, message: Message) -> float | None:
    """Return the seconds that handling a message may take; None for no limit, or if it cannot be read."""
    try:
        return _limit(service, policy_of(_envelope(service, message).node))
    except (MalformedMessage, PolicyError, RecursionError):
        return None


def _limit(service: AnyService, policy: Policy) -> float | None:
    return service.time_limit if policy.timeout is None else policy.timeout


def too_long(limit: float) -> str:
    """The reason of an outcome `timeout`."""
    return f"it took longer than {limit:g} s"


def _outcome(work: Work) -> Outcome:
    """What came of a message for which nothing was raised."""
    failure = work.step.failure
    return _failure(failure) if failure else Outcome("done", sends=list(work.step.sends))


def _failure(error: Exception) -> Outcome:
    match error:
        case Reject():
            return Outcome("reject", sends=error.tell, reason=str(error))
        case Retry():
            return Outcome("retry", reason=str(error), after=error.after)
        case MalformedMessage():
            return Outcome("reject", reason=str(error))
        case _:
            text = str(error) or ("there is not enough memory" if isinstance(error, MemoryError) else "")
            reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
            return Outcome("fail", reason=reason, trace="".join(traceback.format_exception(error)))


def _envelope(service: AnyService, message: Message) -> Envelope:
    if is_recipe_message(message.headers):
        return Envelope.parse(message.body)
    if not service.plain_messages:
        raise MalformedMessage(
            f"{service.name} takes recipe messages only; this one has no header workflows-recipe: True"
        )
    return Envelope(recipe={"0": {}}, pointer=0, payload=parse_json(message.body))


def _parameters(contract: Contract, envelope: Envelope, overriding: Any) -> dict[str, Any]:
    """What the recipe says, and over it what a payload says under `parameters`."""
    node = envelope.node
    values = _mapping(node.get("parameters"), f"parameters of node {envelope.pointer}")
    values |= {key: node[key] for key in contract.node_keys if key in node}
    if isinstance(overriding, dict):
        own = cast("dict[str, Any]", overriding).get("parameters")
        values |= _mapping(own, "parameters of the payload")
    return values


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedMessage(f"{what} must be an object, not {type(value).__name__}")
    return dict(cast("dict[str, Any]", value))


def _validate(model: type[BaseModel], value: Any, what: str) -> BaseModel:
    try:
        # As `model_validate`, without what surrounds it there.
        return model.__pydantic_validator__.validate_python({} if value is None or value == [] else value)
    except ValidationError as error:
        raise MalformedMessage(f"{what}: {explain(error)}") from None
