"""What sending a dead letter in again will do, as far as that can be known before."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from parvis.observe.dead_letters import DeadLetter
from parvis.observe.queue_figures import QueueFigures, local_name
from parvis.observe.wording import times
from parvis.recipe.envelope import Envelope, MalformedMessage, is_recipe_message
from parvis.recipe.graph import Recipe
from parvis.recipe.problem import RecipeError, printable
from parvis.service.handling import Outcome, read
from parvis.service.identity import occasion_of
from parvis.service.registry import service_of
from parvis.service.remembered import file_of, remembered_in
from parvis.steer.dead_letters import NoDestination, renewed, target_of
from parvis.transport.base import Message, Send

if TYPE_CHECKING:
    from parvis.config import Config

_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class Prospect:
    """What will become of a dead letter that is sent in again.

    Attributes:
        letter: Which.
        queue: Whole name of the queue that it goes to; empty if it goes nowhere.
        listeners: How many take messages from there; None if that is not known.
        service: The service that handles it there, as far as we know it, or empty.
        obstacles: Why it will die again, or not be sent at all.
        warnings: What else somebody should know.
    """

    letter: DeadLetter
    queue: str
    listeners: int | None
    service: str
    obstacles: Sequence[str]
    warnings: Sequence[str]

    def to_json(self) -> dict[str, object]:
        """All of it, for programs; the letter by its identity."""
        return {
            "number": self.letter.number,
            "identity": self.letter.identity,
            "from": self.letter.queue,
            "queue": self.queue,
            "listeners": self.listeners,
            "service": self.service,
            "obstacles": list(self.obstacles),
            "warnings": list(self.warnings),
        }


def preview(
    letter: DeadLetter,
    config: Config,
    namespace: str,
    figures: Sequence[QueueFigures] | None = None,
    destination: str | None = None,
) -> Prospect:
    """Say what sending a dead letter in again will do.

    Args:
        letter: Which.
        config: The configuration: services are asked what they think of the message.
        namespace: Of queues and topics.
        figures: What goes on in the queues, if that is known.
        destination: Whole name of a queue, if it is not to go to that which it died in.
    """
    try:
        queue = target_of(letter, destination)
    except NoDestination as error:
        return Prospect(letter, "", None, "", (str(error),), ())
    known = None if figures is None else {one.absolute: one for one in figures if one.kind == "queue"}
    listeners = None
    if known is not None:
        listeners = (known[queue].clients or 0) if queue in known else 0
    local = local_name(queue, namespace)
    obstacles: list[str] = []
    warnings = list(_warnings(letter, queue, listeners))
    service = service_of(local)
    if letter.is_whole:
        send = renewed(letter, destination)
        obstacles += problems(send, config, local)
        warnings += _recipe_warnings(send, local)
        if service is not None and (again := _done_before(send, config, namespace, local)):
            warnings.append(again)
    return Prospect(letter, queue, listeners, service.name if service else "", obstacles, warnings)


def problems(send: Send, config: Config, queue: str) -> list[str]:
    """Return why a message would be rejected by the service of a queue, by its name without namespace.

    Nothing, where that service is not one of those installed here.
    """
    if is_recipe_message(send.headers):
        try:
            Envelope.parse(send.body)
        except (MalformedMessage, RecursionError) as error:
            return [f"it is no recipe message that can be read: {printable(str(error), _LONGEST)}"]
    service = service_of(queue)
    if service is None:
        return []
    outcome = read(service(config), _delivered(send, queue))
    if isinstance(outcome, Outcome):
        return [f"{service.name} would reject it again: {printable(outcome.reason, _LONGEST)}"]
    return []


def _delivered(send: Send, queue: str) -> Message:
    return Message(queue, send.body, send.headers, send.headers["parvis-id"], 0)


def _warnings(letter: DeadLetter, queue: str, listeners: int | None) -> Iterator[str]:
    if listeners == 0:
        yield f"nobody listens to {printable(queue, 255)} now: it waits there"
    if letter.reinjected:
        yield f"it was sent in again {times(letter.reinjected)} before, and died again"
    if not letter.is_whole:
        yield "it is too long to be looked at as a whole"


def _recipe_warnings(send: Send, queue: str) -> Iterator[str]:
    if not is_recipe_message(send.headers):
        return
    try:
        envelope = Envelope.parse(send.body)
        Recipe.from_dict(envelope.recipe).validate()
    except (MalformedMessage, RecursionError):
        return
    except RecipeError as error:
        yield f"its recipe is not valid: {printable(str(error), _LONGEST)}"
        return
    named = envelope.node.get("queue")
    if isinstance(named, str) and named != queue:
        yield f"node {envelope.pointer} of its recipe is for queue {printable(named, 255)}"


def _done_before(send: Send, config: Config, namespace: str, queue: str) -> str:
    """Whether the service would take it for one that it has done, as far as this machine knows."""
    service = service_of(queue)
    if service is None or not service.remember:
        return ""
    at = remembered_in(file_of(config, namespace, queue), occasion_of(_delivered(send, queue)))
    if at is None or time.time() - at > service.remember:
        return ""
    return f"{service.name} has done just this before, and would only acknowledge it"


def with_content(letter: DeadLetter, body: bytes) -> DeadLetter:
    """Return a dead letter with another body."""
    return replace(letter, body=body, size=len(body))


def summary(prospects: Sequence[Prospect]) -> Mapping[str, int]:
    """Return how many go to each queue."""
    counts: dict[str, int] = {}
    for one in prospects:
        counts[one.queue] = counts.get(one.queue, 0) + 1
    return counts
