"""Join: waits for messages of several nodes, and sends one when all have come."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

from pydantic import BaseModel, BeforeValidator, Field

from parvis.config import Config, ConfigError
from parvis.recipe.join import JOIN_QUEUE, WAIT_FOR
from parvis.service.base import Reject, Retry, Service, Step
from parvis.service.contract import Model, Outputs
from parvis.transport.base import LONGEST_DELAY
from parvis_services.operate.join_state import JoinState, OneJoin, TooMuch

_FILE = "joins.sqlite"
_OWN_KEY = "parvis-join"  # in the payload of what the service sends itself
_LARGEST = 8 * 2**20  # bytes that one join may hold: what it sends must fit in one message
_UNCONFIRMED = 600.0  # seconds after which the end of a join that nobody confirmed is taken not to have left
_COPY_DELAY = 2.0


def _counted(value: Any) -> Any:
    """Read `[2, 3]` as one message of each."""
    if isinstance(value, dict):
        return cast("dict[Any, Any]", value)
    if not isinstance(value, list):
        raise ValueError("must be a list of nodes, or an object with how many messages of each")
    counts = Counter(map(str, cast("list[Any]", value)))
    twice = next((number for number, times in counts.items() if times > 1), None)
    if twice is not None:
        raise ValueError(f'names node {twice} twice; for two messages of it write {{"{twice}": 2}}')
    return dict.fromkeys(counts, 1)


class JoinParameters(Model):
    """What to wait for, and how long.

    Attributes:
        wait_for: How many messages are to come from each node, by its number; a list of numbers stands for
            one of each.
        timeout: Seconds after the first message when the waiting ends.
    """

    wait_for: Annotated[
        dict[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1, le=1_000_000)]],
        BeforeValidator(_counted),
        Field(min_length=1, max_length=1000, alias=WAIT_FOR, examples=[{"2": 1, "3": 100}]),
    ]
    timeout: float = Field(default=86400, gt=0, le=LONGEST_DELAY)


class Joined(Model):
    """What has come.

    Attributes:
        arrived: The payloads from each node, by its number, in order of arrival.
    """

    arrived: dict[str, list[Any]]


class Missed(Joined):
    """What has come in time.

    Attributes:
        missing: How many messages did not come from which node.
    """

    missing: dict[str, int]


class Join(Service[Any, JoinParameters]):
    """Waits until messages have come from all nodes that it is told of, and sends one with their payloads.

    Which node a message came from is the last number of its recipe path. A message counts once, by its
    identity, however often it is delivered. What has come is kept in the SQLite file `joins.sqlite` in
    `parvis.state_directory`. The recipe environments of all messages travel on as one: where they differ, the
    value from the later message of the node with the highest number counts.
    """

    name: ClassVar[str] = "Join"
    queue: ClassVar[str] = JOIN_QUEUE
    Parameters: ClassVar[type[BaseModel]] = JoinParameters
    outputs: ClassVar[Outputs] = {"complete": Joined, "timeout": Missed, "late": None}
    default_output: ClassVar[str | None] = "complete"
    any_payload: ClassVar[bool] = True
    exclusive: ClassVar[bool] = True
    prefetch: ClassVar[int] = 10

    _state: JoinState

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._path = config.state_directory / _FILE

    def start(self) -> None:
        """Open the file with what has come so far."""
        try:
            self._state = JoinState(self._path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"parvis.state_directory: cannot keep joins in {self._path}: {error}"
            ) from error

    def stop(self) -> None:
        """Close the file."""
        self._state.close()

    def process(self, payload: Any, step: Step[JoinParameters]) -> None:
        """Take a message, or one that the service sent itself."""
        if step.recipe_id is None:
            raise Reject("it has no recipe ID (ID in its environment), so nobody can say what it belongs to")
        try:
            # Last of all, what has been changed is written. A process that is killed between that and the
            # broker's confirmation leaves traces that are known for what they are when the message comes
            # again: so each step can be taken twice.
            with self._state.join(step.recipe_id, step.node) as join:
                self._take(join, payload, step)
        except TooMuch:
            raise Reject(f"what this join waits for takes more than {_LARGEST} bytes") from None
        except sqlite3.Error as error:
            raise Retry(f"the state of joins cannot be kept in {self._path}: {error}") from error

    def _take(self, join: OneJoin, payload: Any, step: Step[JoinParameters]) -> None:
        match _own(payload):
            case "ended":
                join.confirm()
            case "time-out":
                self._time_out(join, step)
            case "gave up":
                raise Reject(str(payload.get("reason")))
            case _:
                self._arrive(join, payload, step)

    def _arrive(self, join: OneJoin, payload: Any, step: Step[JoinParameters]) -> None:
        source = step.path[-1] if step.path else None
        wanted = step.parameters.wait_for
        if source is None or source not in wanted:
            came = "it came from no node" if source is None else f"it came from node {source}"
            waits = ", ".join(map(str, wanted))
            raise Reject(f"{came}, and node {step.node} waits for messages of {waits}")
        if join.closer is not None:
            self._arrive_late(join, source, payload, step)
            return
        if not join.knows(step.identity):
            join.add(step.identity, source, payload, step.environment, _LARGEST)
        elif join.opener != step.identity:
            self.log.info("node %d has this message of node %d already", step.node, source)
        if all(join.counts.get(number, 0) >= count for number, count in wanted.items()):
            self._complete(join, step)
        elif join.opener == step.identity:
            step.checkpoint({_OWN_KEY: "time-out"}, delay=step.parameters.timeout, reminder=True)

    def _arrive_late(self, join: OneJoin, source: int, payload: Any, step: Step[JoinParameters]) -> None:
        if join.closer == step.identity:
            if _is_to_be_repeated(join, step):
                self._complete(join, step)
        elif join.knows(step.identity):
            self.log.info("node %d had this message of node %d already", step.node, source)
        elif "late" in step.connected_outputs():
            step.send("late", payload)
        else:
            self.log.warning(
                "node %d had ended when this message of node %d came; it is dropped", step.node, source
            )

    def _complete(self, join: OneJoin, step: Step[JoinParameters]) -> None:
        step.send("complete", Joined(arrived=_arrived(join, step)))
        self._end(join, step)

    def _time_out(self, join: OneJoin, step: Step[JoinParameters]) -> None:
        if join.opener is None:
            raise Reject(f"node {step.node} timed out, and {self._path} does not know what had come by then")
        if join.closer is not None and not (join.closer == step.identity and _is_to_be_repeated(join, step)):
            return
        wanted = step.parameters.wait_for
        missing = {str(number): count - join.counts.get(number, 0) for number, count in wanted.items()}
        missed = Missed(
            arrived=_arrived(join, step), missing={key: count for key, count in missing.items() if count > 0}
        )
        reason = f"waited {step.parameters.timeout:g} s; {_progress(wanted, join.counts)}"
        self.log.warning("node %d timed out: %s", step.node, reason)
        if "timeout" in step.connected_outputs():
            step.send("timeout", missed)
        else:
            # So that the dead letter, or the error nodes, get what has come.
            step.checkpoint({_OWN_KEY: "gave up", "reason": reason, **missed.model_dump()})
        self._end(join, step)

    def _end(self, join: OneJoin, step: Step[JoinParameters]) -> None:
        """Remember how it ended; what confirms that the broker took it leaves together with it."""
        join.end(step.identity, step.message_id)
        step.checkpoint({_OWN_KEY: "ended"})


def _own(payload: Any) -> Any:
    return cast("dict[str, Any]", payload).get(_OWN_KEY) if isinstance(payload, dict) else None


def _is_to_be_repeated(join: OneJoin, step: Step[JoinParameters]) -> bool:
    """Whether the message with which a join ended comes again because its transaction was not carried out.

    Raises:
        Retry: That cannot be told yet, because it may be a copy.
    """
    if join.is_confirmed:
        return False
    # A copy has another identifier, and must not be taken for it only because it was handed out before, too.
    if join.delivery == step.message_id or time.time() - join.closed > _UNCONFIRMED:
        return True
    raise Retry("a message with the same identity has just ended this join", after=_COPY_DELAY)


def _arrived(join: OneJoin, step: Step[JoinParameters]) -> dict[str, list[Any]]:
    """What has come by node; the recipe environments are put into that of `step`."""
    arrived: dict[str, list[Any]] = {str(number): [] for number in step.parameters.wait_for}
    for source, payload, environment in join.arrivals():
        arrived.setdefault(str(source), []).append(payload)
        step.environment.update(environment)
    return arrived


def _progress(wanted: Mapping[int, int], counts: Mapping[int, int]) -> str:
    parts: Sequence[str] = [
        f"{counts.get(number, 0)} of {count} messages of node {number}" for number, count in wanted.items()
    ]
    return ", ".join(parts) + " came"
