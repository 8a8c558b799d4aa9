"""What is told of a message that ended for good: to the error nodes of its recipe, and on its dead letter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from parvis.recipe.envelope import Envelope
from parvis.recipe.problem import printable
from parvis.transport.stomp_messages import clip

REASON: Final = "parvis-reason"
RESULT: Final = "parvis-result"
TRIES: Final = "parvis-tries"
TRACEBACK: Final = "parvis-traceback"
ROUTE: Final = "parvis-route"
SERVICE: Final = "parvis-service"
HOST: Final = "parvis-host"
TIME: Final = "parvis-time"
#: All headers that say how a message ended.
HEADERS: Final = (REASON, RESULT, TRIES, TRACEBACK, ROUTE, SERVICE, HOST, TIME)

_LONGEST_ROUTE = 1000
_MOST_STEPS = 40


@dataclass(frozen=True, slots=True)
class Failure:
    """How a message ended.

    Attributes:
        reason: What was wrong, in one sentence.
        result: How it ended: `rejected`, `failed 4 times` and so on.
        service: Who gave it up.
        host: In which process.
        time: When, in ISO 8601.
        tries: How often it had been tried.
        trace: The traceback of an unforeseen exception, or empty.
    """

    reason: str
    result: str
    service: str
    host: str
    time: str
    tries: int
    trace: str = ""

    def headers(self, envelope: Envelope | None) -> dict[str, str]:
        """Headers of the dead letter; those that are too long are shortened by the transport.

        Args:
            envelope: The message, if it is one of a recipe that can be read.
        """
        headers = {
            REASON: self.reason,
            RESULT: self.result,
            SERVICE: self.service,
            HOST: self.host,
            TIME: self.time,
            TRIES: str(self.tries),
        }
        if self.trace:
            headers[TRACEBACK] = self.trace
        if envelope is not None:
            headers[ROUTE] = route(envelope)
        return headers

    def payload(self, envelope: Envelope) -> dict[str, Any]:
        """Payload for error nodes: what happened under `error`, and the payload that it happened to."""
        error: dict[str, Any] = {
            "reason": clip(self.reason),
            "result": self.result,
            "service": self.service,
            "host": self.host,
            "time": self.time,
            "node": envelope.pointer,
            "tries": self.tries,
        }
        if self.trace:
            error["traceback"] = clip(self.trace)
        return {"error": error, "payload": envelope.payload}


def route(envelope: Envelope) -> str:
    """Return the way of a message, as `1 filewatcher > 2 per_image_analysis`; of a long one, both ends."""
    steps = [*envelope.path, envelope.pointer]
    if len(steps) > _MOST_STEPS:
        steps = [*steps[: _MOST_STEPS // 2], None, *steps[-_MOST_STEPS // 2 :]]
    return clip(" > ".join(_step(envelope.recipe, step) for step in steps), _LONGEST_ROUTE)


def _step(recipe: Mapping[str, Any], number: int | None) -> str:
    if number is None:
        return "[...]"
    node = recipe.get(str(number))
    where: Any = None
    if isinstance(node, dict):
        node = cast("dict[str, Any]", node)
        where = node.get("queue") or node.get("topic")
    return f"{number} {printable(where, 255)}" if isinstance(where, str) else str(number)
