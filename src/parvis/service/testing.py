"""Run a service on messages without a broker, for tests and notebooks.

>>> run(Doubler, {"number": 2}).sent("result")
[{'number': 4}]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from parvis.config import Config
from parvis.recipe.envelope import RECIPE_HEADER, Envelope, dump_json
from parvis.service.base import AnyService, BatchService, Service
from parvis.service.handling import Batch, Outcome, handle, handle_batch, read
from parvis.transport.base import Message, Send


@dataclass(frozen=True, slots=True)
class Sent:
    """Something that a service sent.

    Attributes:
        output: Name of the output, `checkpoint`, or the name of the queue for what is not part of the recipe.
        payload: What was sent.
        delay: Seconds that the broker would hold it back.
        environment: The recipe environment that travels with it.
    """

    output: str
    payload: Any
    delay: float
    environment: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run: the outcome of each message, everything sent, the outputs that are connected."""

    outcomes: Sequence[Outcome]
    everything: Sequence[Sent]
    outputs: Sequence[str]

    @property
    def outcome(self) -> Outcome:
        """The outcome of the first message."""
        return self.outcomes[0]

    def sent(self, output: str) -> list[Any]:
        """Return the payloads that left at `output`, in order.

        Raises:
            ValueError: The recipe of this run has no such output.
        """
        if output not in self.outputs and all(sent.output != output for sent in self.everything):
            raise ValueError(f"no output {output!r} is connected; {', '.join(self.outputs)} are")
        return [sent.payload for sent in self.everything if sent.output == output]

    @property
    def checkpoints(self) -> list[Sent]:
        """The checkpoints, in order."""
        return [sent for sent in self.everything if sent.output == "checkpoint"]


def run(
    service: type[AnyService] | AnyService,
    *payloads: Any,
    parameters: Mapping[str, Any] | None = None,
    node: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
    environment: Mapping[str, Any] | None = None,
    header: Mapping[str, str] | None = None,
    redelivered: bool = False,
    config: Config | None = None,
) -> Run:
    """Give a service one message, or a batch service several, and return what it did.

    Args:
        service: The class, or an instance that has been started (it is not started or stopped then).
        payloads: What arrives; several are one batch.
        parameters: What the recipe says under `parameters`.
        node: Further keys of the recipe node.
        outputs: Outputs that the recipe uses, by default all that are declared with a fixed name.
        environment: The recipe environment.
        header: Further headers.
        redelivered: Whether the messages were handed out before.
        config: Configuration, by default the one of the environment.
    """
    instance = service if isinstance(service, Service) else service(config or Config.load())
    names = list(outputs) if outputs is not None else [name for name in instance.outputs if "#" not in name]
    targets = {name: number for number, name in enumerate(names, start=2)}
    this_node = {
        **(node or {}),
        "queue": instance.queue,
        "parameters": {**(parameters or {})},
        "output": targets,
    }
    recipe: dict[str, Any] = {"start": [[1, []]], "1": this_node}
    recipe |= {str(number): {"queue": f"output.{number}"} for number in targets.values()}
    recipe_environment = {"ID": "test", **(environment or {})}
    messages = [
        _message(
            Envelope(recipe, 1, payload, environment=recipe_environment),
            instance.queue,
            header or {},
            redelivered=redelivered,
        )
        for payload in payloads
    ]
    if instance is not service:
        instance.start()
    try:
        outcomes = _handle(instance, messages)
    finally:
        if instance is not service:
            instance.stop()
    everything = [_sent(send, instance, names) for outcome in outcomes for send in outcome.sends]
    return Run(outcomes, everything, names)


def _handle(service: AnyService, messages: Sequence[Message]) -> list[Outcome]:
    if isinstance(service, BatchService):
        return handle_batch(service, Batch(list(messages), [read(service, message) for message in messages]))
    return [handle(service, message) for message in messages]


def _message(envelope: Envelope, queue: str, header: Mapping[str, str], *, redelivered: bool) -> Message:
    body = {
        "recipe": envelope.recipe,
        "recipe-pointer": envelope.pointer,
        "recipe-path": envelope.path,
        "environment": envelope.environment,
        "payload": envelope.payload,
    }
    return Message(
        destination=queue,
        body=dump_json(body),
        headers={RECIPE_HEADER: "True", **header},
        message_id=uuid4().hex,
        subscription=1,
        redelivered=redelivered,
    )


def _sent(send: Send, service: AnyService, outputs: Sequence[str]) -> Sent:
    if RECIPE_HEADER not in send.headers:
        return Sent(send.destination, send.body, send.delay, {})
    envelope = Envelope.parse(send.body)
    if send.destination.startswith("output."):
        output = outputs[envelope.pointer - 2]
    else:
        output = "checkpoint" if send.destination == service.queue else send.destination
    return Sent(output, envelope.payload, send.delay, envelope.environment)
