"""What a service author writes against: `Service`, `Step`, `Reject`, `Retry`."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeAlias, TypeVar

import orjson
from pydantic import BaseModel

from parvis.config import Config
from parvis.recipe.envelope import Envelope
from parvis.service.contract import Anything, Contract, Outputs
from parvis.service.fan_out import FanOut
from parvis.service.identity import anonymous
from parvis.transport.base import Send

if TYPE_CHECKING:
    from parvis.service.figures import Figure
    from parvis.service.flow_ledger import Ledger

#: Header of a checkpoint that is a reminder.
REMINDER: Final = "parvis-reminder"

#: Bounds of what is sent because of one message, and of each.
MOST_MESSAGES: Final = 100_000
MOST_BYTES: Final = 256 * 1024 * 1024
LARGEST_MESSAGE: Final = 64 * 1024 * 1024

PayloadT = TypeVar("PayloadT", bound=BaseModel)
ParametersT = TypeVar("ParametersT", bound=BaseModel)


class Reject(Exception):
    """Bad input: put the message among the dead letters at once, with this reason.

    Args:
        reason: What is wrong with it, for the person who reads the dead letter.
        tell: Messages that leave together with the dead letter, for those who wait for an answer.
    """

    def __init__(self, reason: str, tell: Sequence[Send] = ()) -> None:
        super().__init__(reason)
        self.tell = [anonymous(send) for send in tell]


class Retry(Exception):
    """Not now: try the message again, with growing delays and an end.

    Args:
        reason: Why not, for the person who reads the dead letter if it never succeeds.
        after: Seconds before the first new try; doubled for each further one.
    """

    def __init__(self, reason: str, after: float = 5) -> None:
        super().__init__(reason)
        self.after = after


class Step(Generic[ParametersT]):
    """The step of a recipe that a handler is given: what the recipe says here, and the ways out.

    What is sent leaves when the handler has returned, together with the acknowledgement of the message.

    Attributes:
        parameters: What the recipe says under `parameters`, checked.
        header: Headers of the message.
        message_id: The broker's identifier of the message.
        identity: What tells this message from all others. It is the same when the message is delivered or
            tried again, and so good for the unique key of a row that must not be written twice.
        queue: Name of the queue that the message came by.
        redelivered: The message was handed out before, so that side effects may have happened already.
    """

    def __init__(
        self,
        contract: Contract,
        envelope: Envelope,
        parameters: ParametersT,
        *,
        header: Mapping[str, str],
        message_id: str,
        identity: str,
        queue: str,
        redelivered: bool,
        fan_outs: Sequence[str] = (),
        ledger: Ledger | None = None,
    ) -> None:
        self.parameters = parameters
        self.header = header
        self.message_id = message_id
        self.identity = identity
        self.queue = queue
        self.redelivered = redelivered
        self._contract = contract
        self._envelope = envelope
        self._sends: list[Send] = []
        self._bytes = 0
        self._fan_outs = fan_outs
        self._fan_out = FanOut(header, envelope, ledger) if fan_outs else None
        self._failure: Exception | None = None

    @property
    def environment(self) -> dict[str, Any]:
        """The recipe environment. What is added here travels on with everything sent afterwards."""
        return self._envelope.environment

    @property
    def recipe_id(self) -> str | None:
        """The recipe ID, or None if the message is not part of a dispatched recipe."""
        return self._envelope.recipe_id

    @property
    def node(self) -> int:
        """Number of the recipe node that the message is for."""
        return self._envelope.pointer

    @property
    def path(self) -> Sequence[int]:
        """Numbers of the nodes that the message came through; the last is the one that sent it."""
        return self._envelope.path

    @property
    def sends(self) -> Sequence[Send]:
        """What has been sent so far."""
        return self._sends

    @property
    def failure(self) -> Exception | None:
        """What `fail` was called with."""
        return self._failure

    def fail(self, error: Exception) -> None:
        """Have this message of a batch end as if `error` had been raised for it alone; the others go on.

        Args:
            error: `Reject` or `Retry`, or whatever went wrong.
        """
        self._failure = error
        self._sends.clear()
        self._bytes = 0

    def connected_outputs(self) -> list[str]:
        """Names of the outputs that the recipe does something with."""
        outputs = self._envelope.node.get("output")
        if isinstance(outputs, dict):
            return [str(name) for name in outputs]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return [self._contract.default_output] if outputs and self._contract.default_output else []

    def room(self, output: str, total: int | None = None) -> int:
        """Return how many more messages may leave now at an output.

        When there is no more room, keep what is left for the next checkpoint. At outputs that `fan_outs` does
        not name there is always room.

        Args:
            output: Name of the output.
            total: How many messages the whole fan-out will have, if known: a small one is let go at once.
        """
        if self._fan_out is None or self._contract.output(output) not in self._fan_outs:
            return MOST_MESSAGES
        return self._fan_out.room(self._envelope.targets(output, self._contract.default_output), total)

    def send(self, output: str, payload: Any, delay: float | None = None) -> None:
        """Send `payload` out at `output`; nothing leaves if nothing is connected there.

        Args:
            output: Name of the output.
            payload: A model, or what JSON can carry.
            delay: Seconds to wait, in place of the `transport-delay` that the recipe may give.

        Raises:
            ValueError: The service has not declared that output, or declared another form of it.
            Reject: A message is larger than `LARGEST_MESSAGE`, or more is sent because of one message than
                `MOST_MESSAGES` and `MOST_BYTES` allow.
        """
        self._contract.check_output(output, payload)
        sends = self._envelope.onward(output, self._contract.default_output, _dump(payload), delay)
        if self._fan_out is not None and self._contract.output(output) in self._fan_outs:
            sends = self._fan_out.marked(sends)
        self._add(sends)

    def checkpoint(self, payload: Any, delay: float = 0, *, reminder: bool = False) -> None:
        """Send `payload` to this same node, after `delay` seconds: how a service waits. Raises as `send`.

        Args:
            payload: As for `send`.
            delay: Seconds to wait.
            reminder: Whether it is of no matter once the node has sent something else: so people see that
                a recipe has finished although a time-out is still to come.
        """
        sends = self._envelope.checkpoint(_dump(payload), delay)
        if reminder:
            sends = [replace(send, headers={**send.headers, REMINDER: "True"}) for send in sends]
        self._add(sends if self._fan_out is None else self._fan_out.checkpoint(sends))

    def start_recipe(self, recipe: dict[str, Any], environment: dict[str, Any]) -> None:
        """Start a recipe: send what its `start` says to its first nodes. Raises as `send`."""
        self._add(Envelope(recipe=recipe, pointer=0, payload=None, environment=environment).start())

    def send_to_queue(self, send: Send) -> None:
        """Send a message that is not part of this recipe. Raises as `send`."""
        self._add([anonymous(send)])

    def _add(self, sends: Iterable[Send]) -> None:
        kept = list(bounded(sends, len(self._sends), self._bytes))
        for send in kept:
            self._bytes += len(send.body)
        self._sends += kept


def bounded(sends: Iterable[Send], messages: int = 0, size: int = 0) -> Iterator[Send]:
    """Yield what is to leave, within bounds: a mistake must cost a message, not the memory of the host.

    Args:
        sends: Messages, best made one by one: those beyond the bounds are never asked for.
        messages: How many there are already.
        size: How many bytes they have.

    Raises:
        Reject: There are too many, or they are too large.
    """
    for send in sends:
        if len(send.body) > LARGEST_MESSAGE:
            raise Reject(
                f"a message of {len(send.body):,} bytes to {send.destination} is too large: "
                f"at most {LARGEST_MESSAGE:,} bytes can be sent"
            )
        messages, size = messages + 1, size + len(send.body)
        if messages > MOST_MESSAGES or size > MOST_BYTES:
            raise Reject(
                f"one message makes the service send more than {MOST_MESSAGES:,} messages "
                f"or {MOST_BYTES:,} bytes at once"
            )
        yield send


def _dump(payload: Any) -> Any:
    """What `dump_json` makes the payload of. A model writes itself, which saves a copy of it all."""
    if type(payload) is Anything:
        return payload.model_extra
    if isinstance(payload, BaseModel):
        return orjson.Fragment(payload.__pydantic_serializer__.to_json(payload))
    return payload


class Service(ABC, Generic[PayloadT, ParametersT]):
    """A service: handles one message at a time, keeps nothing between them.

    A subclass declares its contract in class attributes and implements `process`. It may override `start` and
    `stop` to open and close what it needs, such as a database.

    Class attributes:
        name: What people call it.
        queue: Queue it listens to, without namespace.
        Payload: Model of what arrives.
        Parameters: Model of what the recipe may say under `parameters`.
        outputs: Named ways out, each with the model of what leaves there (`contract.Contract.outputs`).
        default_output: The output of a node whose `output` names none.
        node_keys: Keys of the recipe node, beside `parameters`, that are read as parameters.
        fan_outs: Those outputs, as declared, that get a message for each of many things. What leaves there is
            counted until it is handled, and `Step.room` says how much of it may leave now.
        plain_messages: Whether messages that are not part of a recipe are taken, too.
        any_payload: Whether payloads are passed on as they came, whatever JSON value they are: they are not
            checked, and have no say in the parameters.
        prefetch: How many messages the broker may hand out in advance. They wait for this instance even if
            others are idle: 1 for what takes seconds, 10 to 20 for what takes a millisecond.
        exclusive: Whether only one instance gets messages at any time.
        commit_each: Whether the next message is only begun when the one before is committed. By default
            messages that are handled quickly, one after the other, are committed together, and a process that
            is killed leaves all of these to be handled again.
        remember: Seconds for which it is remembered that a message is done, so that a second delivery of it
            is only acknowledged; 0 for not at all. Known to one process, or to all on a machine if the
            configuration has a `parvis.state_directory`.
        isolates: Whether a message of which a process may have died is handled in a process of its own, by a
            second instance of the service. Not for a service of which there can be only one, as it holds the
            end of a stream.
        time_limit: Seconds that handling a message, or a batch, may take, if its node does not say `timeout`;
            None for no limit. What takes longer is interrupted and counts as failed.
        isolated_memory: Megabytes that a process may have in which a message is handled that may have killed
            another one. `parvis.isolated_memory` of the configuration counts more; by default, half of what
            the machine has.
        max_attempts: How often a message may fail by an unforeseen exception before it is a dead letter.
        max_retries: How often the service may ask for another try (`Retry`) before it is a dead letter. With
            the growing delays the default bridges an outage of more than an hour.
    """

    name: ClassVar[str]
    queue: ClassVar[str]
    Payload: ClassVar[type[BaseModel]] = Anything
    Parameters: ClassVar[type[BaseModel]] = Anything
    outputs: ClassVar[Outputs] = {}
    default_output: ClassVar[str | None] = None
    node_keys: ClassVar[tuple[str, ...]] = ()
    fan_outs: ClassVar[tuple[str, ...]] = ()
    plain_messages: ClassVar[bool] = False
    any_payload: ClassVar[bool] = False
    prefetch: ClassVar[int] = 1
    exclusive: ClassVar[bool] = False
    commit_each: ClassVar[bool] = False
    remember: ClassVar[float] = 0
    isolates: ClassVar[bool] = True
    time_limit: ClassVar[float | None] = None
    isolated_memory: ClassVar[int | None] = None
    max_attempts: ClassVar[int] = 4
    max_retries: ClassVar[int] = 20

    def __init__(self, config: Config) -> None:
        self.config = config
        self.log = logging.getLogger(f"parvis.service.{type(self).__name__}")
        #: What is in flight of what this service sends; given by the host if it has `fan_outs`.
        self.ledger: Ledger | None = None

    def start(self) -> None:
        """Get ready; called once before the first message."""

    def stop(self) -> None:
        """Close what `start` opened; called once after the last message."""

    def prepare(self, payload: PayloadT, parameters: ParametersT) -> None:
        """Get ready for the message that comes next, while another one is handled: fetch what it names.

        Called on another thread than `process`, perhaps while that runs, and for each message at most once
        before it is its turn. Must return at once: leave what takes time to a thread of your own. The message
        may never be handled here, so what is kept for it must be bounded; and `process` must do without, as
        not every message is announced: not one that finds the service idle, nor one of which a process may
        have died. What is raised changes nothing.

        Services without a `prepare` of their own, and those that take batches, pay nothing for it. `prefetch`
        must be 2 or more for the next message to be at hand.
        """

    def doing(self) -> str:
        """What it is doing, in a word for the status card, where the host cannot know. Any thread may ask."""
        return ""

    def figures(self) -> Sequence[Figure]:
        """How it gets on, in numbers for the status card and for Prometheus. Any thread may ask."""
        return ()

    @abstractmethod
    def process(self, payload: PayloadT, step: Step[ParametersT]) -> None:
        """Handle one message.

        Raises:
            Reject: The message is no good.
            Retry: Not now.
        """


class BatchService(Service[PayloadT, ParametersT]):
    """A service that handles several messages at once, in one transaction.

    Messages are gathered until there are `batch_size`, or `batch_wait` seconds have passed since the first,
    or `closes_batch` says so. What is wrong with single messages of a batch is said with `Step.fail`. If
    `process_batch` raises, the messages are handled again one at a time, so that only the one at fault is set
    aside.
    """

    batch_size: ClassVar[int] = 100
    batch_wait: ClassVar[float] = 1.0

    def closes_batch(self, batch: Sequence[tuple[PayloadT, Step[ParametersT]]]) -> bool:  # noqa: ARG002
        """Whether the batch, to which a message has just been added, should be handled now."""
        return False

    @abstractmethod
    def process_batch(self, batch: Sequence[tuple[PayloadT, Step[ParametersT]]]) -> None:
        """Handle the messages of a batch, in order of arrival. Raises as `process`."""

    def process(self, payload: PayloadT, step: Step[ParametersT]) -> None:
        """Handle a batch of one."""
        self.process_batch([(payload, step)])


AnyService: TypeAlias = Service[Any, Any]
AnyBatchService: TypeAlias = BatchService[Any, Any]
