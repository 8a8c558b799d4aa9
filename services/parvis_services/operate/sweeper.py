"""The sweeper: sets aside messages of which one consumer after the other dies."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Final, NoReturn, cast

from parvis.config import Config, ConfigError
from parvis.observe.hop_recorder import reported
from parvis.observe.hops import reports_hops
from parvis.service.base import Reject, Service, Step
from parvis.service.contract import Anything
from parvis.service.handling import Outcome
from parvis.service.observer import Handled
from parvis.service.registry import contracts
from parvis.service.settling import CRASHES, once_more, settle
from parvis.transport.base import (
    BrokerRefused,
    Disconnected,
    Message,
    Send,
    TransportError,
    check_destination,
    whole_number,
)
from parvis.transport.stomp import StompTransport

QUEUES: Final = "parvis.sweeper.queues"
DELIVERIES: Final = "parvis.sweeper.deliveries"
RENEWED: Final = "parvis_renewed"  # of a message that got a new start: how often it was delivered before

_DELIVERIES: Final = 5
_LEAST: Final = 2  # how often it may be delivered after a new start
_WINDOW: Final = 1000
_SILENCE: Final = 1.0  # seconds without a message after which those that come were not lost together
_AFTERMATH: Final = 600.0  # seconds in which others that were lost with a poisonous message may turn up
_PAUSE: Final = 5.0
_REFUSALS: Final = 5  # after which it is at fault, and not the broker


@dataclass(frozen=True, slots=True)
class SweeperSettings:
    """What the configuration says.

    Attributes:
        queues: Queues to look after, without namespace; `*` and `>` stand for any parts of a name.
        deliveries: How often a message may be delivered before it is set aside.
    """

    queues: Sequence[str]
    deliveries: int

    @classmethod
    def of(cls, config: Config) -> SweeperSettings:
        """Read the storage keys `parvis.sweeper.queues` and `parvis.sweeper.deliveries`.

        Raises:
            ConfigError: They are no good.
        """
        queues: Any = config.storage.get(QUEUES)
        if queues is None:
            # Without a namespace, `>` would be the dead letters and everything else on the broker, too.
            queues = [">"] if config.stomp.prefix else sorted(contracts())
        if not isinstance(queues, list) or not queues:
            raise ConfigError(f"{QUEUES} must be a list of queues")
        for queue in cast("list[Any]", queues):
            try:
                check_destination(str(queue).replace("*", "x").replace(">", "x"))
            except ValueError as error:
                raise ConfigError(f"{QUEUES}: {error}") from None
        text = str(config.storage.get(DELIVERIES, _DELIVERIES))
        if not text.isdecimal() or not 3 <= int(text) <= 1000:
            raise ConfigError(f"{DELIVERIES} must be a number from 3 to 1000, it is {text[:20]!r}")
        return cls([str(queue) for queue in cast("list[Any]", queues)], int(text))


class Judge:
    """Says which of the messages that were delivered too often is the one that consumers die of.

    A consumer that dies gives back all that it was handed in advance, and the broker counts a delivery for
    each. So what comes alone is guilty. What comes together gets a new start, the oldest last: the innocent
    are handled then before the guilty one is met, and it comes again without them. Those that were with
    another consumer may turn up later; so for a while, all that come get a new start first.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def guilty(self, messages: Sequence[Message], now: float) -> Message | None:
        """Judge messages of one queue that came together.

        Args:
            messages: In order of age.
            now: Seconds since any moment.
        """
        queue = messages[0].destination
        in_aftermath = now - self._last.get(queue, -_AFTERMATH) < _AFTERMATH
        self._last[queue] = now
        suspects = [message for message in messages if RENEWED in message.headers]
        if suspects:
            return suspects[0]
        return messages[0] if len(messages) == 1 and not in_aftermath else None


def _age(message: Message) -> tuple[int, int]:
    """What sorts messages by when the broker got them: they do not always come back in that order."""
    # Those of one sender are numbered, which tells what came first in the same millisecond.
    number = re.search(r"\d+$", message.message_id)
    return whole_number(message.headers.get("timestamp")) or 0, whole_number(number and number[0]) or 0


def _can_be_named(queue: str) -> bool:
    try:
        check_destination(queue)
    except ValueError:
        return False
    return True


class Sweeper(Service[Anything, Anything]):
    """Sets aside messages of which one consumer after the other dies, whoever wrote the consumers.

    ActiveMQ and the embedded broker hand a message out again and again when its consumers die without a word.
    The sweeper takes what was delivered too often, from all queues of the namespace, and makes it a dead
    letter with the reason. It has a connection of its own for that, and takes no messages in its own queue.
    RabbitMQ sets such messages aside by the delivery limit of its queues: there it has nothing to do.
    """

    name: ClassVar[str] = "Sweeper"
    queue: ClassVar[str] = "sweeper"
    plain_messages: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._settings = SweeperSettings.of(config)
        self._inbox: SimpleQueue[Message | None] = SimpleQueue()
        self._judge = Judge()
        self._refused: Counter[str] = Counter()  # of what could not be settled, how often
        self._transport: StompTransport | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Subscribe, on a connection of our own, to what was delivered too often."""
        transport = self.config.transport()
        if not isinstance(transport, StompTransport):
            self.log.info("nothing to do: this broker sets aside by itself what it has delivered too often")
            return
        transport.connect()
        self._transport = transport
        # Of several sweepers one gets the messages, so that it sees all that were lost together.
        rank = random.randint(1, 127)  # noqa: S311 - only to differ
        for queue in self._settings.queues:
            transport.subscribe(
                queue,
                self._inbox.put,
                prefetch=_WINDOW,
                selector=(
                    f"JMSXDeliveryCount > {self._settings.deliveries}"
                    f" OR ({RENEWED} IS NOT NULL AND JMSXDeliveryCount > {_LEAST})"
                ),
                priority=rank,
            )
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()
        self.log.info(
            "setting aside what is delivered more than %d times, from %s",
            self._settings.deliveries,
            ", ".join(self._settings.queues),
        )

    def stop(self) -> None:
        """Leave; what was not set aside goes back."""
        if self._transport is None or self._thread is None:
            return
        self._inbox.put(None)
        self._thread.join()
        self._transport.disconnect()

    def process(self, payload: Anything, step: Step[Anything]) -> NoReturn:  # noqa: ARG002
        """Take no messages: those that the sweeper looks after are in other queues."""
        raise Reject("the sweeper takes no messages; it looks after those in other queues")

    def _run(self) -> None:
        together: list[Message] = []
        while True:
            try:
                message = self._inbox.get(timeout=_SILENCE)
            except Empty:
                self._sweep(together)
                together = []
                continue
            if message is None:
                return
            together.append(message)
            if len(together) >= _WINDOW:
                self._sweep(together)
                together = []

    def _sweep(self, messages: Sequence[Message]) -> None:
        """Settle messages that came together, in one transaction."""
        transport = self._transport
        assert transport is not None  # noqa: S101 - they came by it
        messages = [message for message in messages if message.connection == transport.connection]
        if not messages:
            return
        if not all(message.redelivered for message in messages):
            self.log.error(
                "this broker ignores selectors, and hands out what nobody died of: nothing is swept"
            )
            transport.disconnect()
            return
        try:
            if all(
                _can_be_named(message.destination) and not self._refused[message.message_id]
                for message in messages
            ):
                self._commit(transport, messages, self._all_settled(messages))
            else:
                self._sweep_strange(transport, messages)
        except TransportError as error:
            self.log.warning("what was to be set aside comes again: %s", error)
            if not isinstance(error, Disconnected):
                time.sleep(_PAUSE)

    def _sweep_strange(self, transport: StompTransport, messages: Sequence[Message]) -> None:
        """Settle messages of which some cannot be sent once more: in order, one by one."""
        for message in messages:
            if _can_be_named(message.destination) and self._refused[message.message_id] < _REFUSALS:
                self._commit(transport, [message], [self._renewed(message)])
            else:
                self.log.error("left to the broker's own dead letters: a message in %r", message.destination)
                transport.refuse(message)
                del self._refused[message.message_id]

    def _commit(self, transport: StompTransport, messages: Sequence[Message], sends: Sequence[Send]) -> None:
        try:
            transport.commit(messages, sends)
        except BrokerRefused:
            self._refused.update(message.message_id for message in messages)
            raise
        for message in messages:
            del self._refused[message.message_id]

    def _all_settled(self, messages: Sequence[Message]) -> list[Send]:
        queues: dict[str, list[Message]] = {}
        for message in sorted(messages, key=_age):
            queues.setdefault(message.destination, []).append(message)
        return [send for lost in queues.values() for send in self._settled(lost)]

    def _settled(self, messages: Sequence[Message]) -> list[Send]:
        """What is to be sent for messages of one queue that were delivered too often, in order of age."""
        guilty = self._judge.guilty(messages, time.monotonic())
        others = [message for message in messages if message is not guilty]
        if others:
            self.log.info("a new start for %d messages in %s", len(others), others[0].destination)
        sends = [self._renewed(message) for message in reversed(others)]
        return sends if guilty is None else [*sends, *self._set_aside(guilty)]

    def _renewed(self, message: Message) -> Send:
        return once_more(message, {RENEWED: str(self._deliveries(message))})

    def _set_aside(self, message: Message) -> Sequence[Send]:
        assert self._transport is not None  # noqa: S101 - it came by it
        deliveries = self._deliveries(message)
        counted = "" if "JMSXDeliveryCount" in message.headers else "at least "
        reason = f"delivered {counted}{deliveries} times: its consumers died, or went away without a word"
        headers = {name: value for name, value in message.headers.items() if name != RENEWED}
        headers[CRASHES] = str(deliveries - 2)  # so many between the first and the last of them
        died = replace(message, headers=headers)
        outcome = Outcome("crash", reason=reason)
        sends = settle(self._transport, self, died, outcome)
        return reported([(Handled(self, died, outcome, 0), sends)]) if reports_hops(self.config) else sends

    def _deliveries(self, message: Message) -> int:
        """How often others were given a message; ActiveMQ says no more than that it was too often."""
        before = whole_number(message.headers.get(RENEWED)) or 0
        # The delivery to us is among them.
        counted = whole_number(message.headers.get("JMSXDeliveryCount")) or 0
        return before + (counted - 1 if counted else _LEAST if before else self._settings.deliveries)
