"""All queues and topics of a broker, and the ways of messages between them. No input or output here."""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from parvis.transport.base import DISPOSABLE
from parvis.transport.embedded.clock import Clock
from parvis.transport.embedded.consumer import Consumer, close
from parvis.transport.embedded.journal import Journal, JournalError
from parvis.transport.embedded.memory import Memory
from parvis.transport.embedded.message import Message
from parvis.transport.embedded.queue import TOPIC_BOUNDS, Queue
from parvis.transport.embedded.selector import Selector
from parvis.transport.embedded.settings import Settings

QUEUE: Final = "/queue/"
TOPIC: Final = "/topic/"
TEMPORARY_QUEUE: Final = "/remote-temp-queue/"
TEMPORARY_TOPIC: Final = "/remote-temp-topic/"
DEAD_LETTERS: Final = "/queue/DLQ."

_PREFIXES: Final = (QUEUE, TOPIC, TEMPORARY_QUEUE, TEMPORARY_TOPIC)
_MAX_NAME: Final = 500
_MAX_DESTINATIONS: Final = 10_000
_KEEP_IDLE_MS: Final = 600_000
"""Empty destinations that nobody uses are forgotten after this time, in ms."""
_RETROACTIVE: Final = 20
_RETROACTIVE_SIZE: Final = 65_536
"""A topic remembers this many of its last messages, up to this size each, for `activemq.retroactive`."""


class DestinationError(ValueError):
    """A destination that cannot be: says which and why."""


def check(destination: str, wildcards: bool = False) -> str:
    """Return the full name of a destination if it is one.

    Raises:
        DestinationError: it is not; or has wildcards where they are not allowed.
    """
    prefix = next((prefix for prefix in _PREFIXES if destination.startswith(prefix)), None)
    if prefix is None:
        raise DestinationError(f"destination {destination[:80]!r} does not begin with /queue/ or /topic/")
    name = destination[len(prefix) :]
    if not name or len(name) > _MAX_NAME or not name.isprintable() or any(sign in name for sign in ",?"):
        raise DestinationError(
            f"destination {destination[:80]!r} is not one: {_MAX_NAME} printable characters, no ',' and '?'"
        )
    if not wildcards and is_pattern(destination):
        raise DestinationError(
            f"destination {destination[:80]!r} has wildcards, which only SUBSCRIBE may have"
        )
    return destination


def is_pattern(destination: str) -> bool:
    """Whether a name has wildcards: `*` for one part between dots, `>` at the end for any number."""
    parts = destination.split("/", 2)[-1].split(".")
    return "*" in parts or parts[-1] == ">"


def matches(pattern: str, destination: str) -> bool:
    """Whether a destination is one of those that a name with or without wildcards means."""
    _, wanted_kind, wanted_name = pattern.split("/", 2)
    _, kind, name = destination.split("/", 2)
    if kind != wanted_kind:
        return False
    wanted, parts = wanted_name.split("."), name.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(parts) < len(wanted):
            return False
        parts = parts[: len(wanted)]
    return len(parts) == len(wanted) and all(w in {"*", p} for w, p in zip(wanted, parts, strict=True))


class Topic:
    """A topic: every subscriber has a queue of its own.

    Attributes:
        enqueued: messages sent here.
        last: the last messages, for those who ask for them when they subscribe.
        idle_since: when it was last used, in ms since 1970.
    """

    def __init__(self, name: str, now: int) -> None:
        self.name = name
        self.subscribers: list[Queue] = []
        self.enqueued = 0
        self.last: deque[Message] = deque(maxlen=_RETROACTIVE)
        self.idle_since = now

    def publish(self, message: Message) -> None:
        """Give the message to all subscribers."""
        self.enqueued += 1
        self.idle_since = message.timestamp
        if message.size <= _RETROACTIVE_SIZE:
            self.last.append(message)
        for queue in self.subscribers:
            queue.put(message)


class Destinations:
    """All queues and topics.

    Args:
        settings: of the broker.
        journal: told of every persistent message and what becomes of it, if there is one.
        clock: what the time is.

    Attributes:
        producers: by full name, how many connections send there.
        connections: how many there are.
        failure: why the journal cannot be read any more.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.memory = Memory(settings.memory_limit)
        self.queues: dict[str, Queue] = {}
        self.topics: dict[str, Topic] = {}
        self.clock = clock or Clock()
        self.now = self.clock.now
        self.producers: Counter[str] = Counter()
        self.connections = 0
        self.failure: JournalError | None = None
        self.name = f"parvis-{secrets.token_hex(6)}"
        self._journal = journal
        self._numbers = itertools.count(1)
        self._delayed: list[tuple[int, int, Message]] = []
        self._patterns: dict[Consumer, str] = {}
        self._subscriptions: dict[Consumer, Queue] = {}

    # Messages

    def message(self, destination: str, headers: dict[str, str], body: bytes) -> Message:
        """A new message, to be sent with `send`."""
        number = next(self._numbers)
        return Message(number, f"{self.name}-{number}", destination, headers, body, self.now())

    def new_name(self) -> str:
        """A name that nobody else has, for a session or a temporary queue."""
        return f"{self.name}-{next(self._numbers)}"

    def send(self, message: Message) -> None:
        """Bring a message where it belongs, now or when it is due."""
        if self._is_kept(message) and self._journal:
            self._journal.add(message)
        if message.due and message.due > self.now():
            self._delay(message)
        else:
            self._deliver(message)

    def send_now(self, message: Message) -> None:
        """Send what was made some time ago: it comes, and its delay begins, after all that was sent since."""
        if message.due:
            now = self.now()
            message.due, message.timestamp = message.due + now - message.timestamp, now
        message.place = next(self._numbers)
        self.send(message)

    def restore(self) -> None:
        """Take back what the journal has kept."""
        if self._journal is None:
            return
        marks = self._journal.delivered()
        last = 0
        for message in self._journal.load():
            last = max(last, message.number, message.place)
            self._adjust(message)
            delayed = message.due > self.now()
            if message.place <= marks.get((message.destination, message.priority), 0) and not delayed:
                message.redeliveries += 1
                self._journal.update(message)
            if delayed:
                self._delay(message)
            else:
                message.due = 0
                self._deliver(message)
        self._numbers = itertools.count(last + 1)
        self._journal.unmark()

    def _adjust(self, message: Message) -> None:
        """A message from the future: the clock was set back. Let it wait and live no longer than meant."""
        ahead = max(0, message.timestamp - self.now())
        message.timestamp -= ahead
        message.due -= ahead if message.due else 0
        message.deadline = message.expires - ahead if message.expires else 0

    def settled(self) -> None:
        """All consumers have gone in an orderly way: the journal need not tell who held what."""
        if self._journal:
            self._journal.unmark()

    def accepts(self, message: Message) -> bool:
        """Whether the disk has room for a message."""
        return not (self._journal and self._is_kept(message)) or self._journal.has_room(message)

    @property
    def short(self) -> bool:
        """Whether producers have to wait: for consumers, or for the disk."""
        return self._presses(1)

    @property
    def relaxed(self) -> bool:
        """Whether they may go on: a fifth of the memory is free."""
        return not self._presses(0.8)

    def _presses(self, part: float) -> bool:
        memory, journal = self.memory, self._journal
        unwritten = journal.unwritten if journal else 0
        return memory.used > part * memory.limit or unwritten > part * memory.texts

    def load(self, messages: Sequence[Message]) -> bool:
        """Have the texts of messages, from the journal. False if one of them is not there any more."""
        for message in messages:
            if message.loaded:
                continue
            try:
                text = self._journal.text(message) if self._journal else None
                if text is None and message.counted and self._journal:
                    raise self._journal.lost(message)
            except JournalError as error:
                self.failure = error
                return False
            if text is None:
                return False
            self.memory.loaded(message, *text)
        return True

    def _is_kept(self, message: Message) -> bool:
        return message.persistent and message.destination.startswith(QUEUE)

    def _delay(self, message: Message) -> None:
        self.memory.take(message)
        heapq.heappush(self._delayed, (message.due, message.number, message))

    def _deliver(self, message: Message) -> None:
        destination = message.destination
        if destination.startswith((QUEUE, TOPIC)):
            if destination.startswith(QUEUE):
                self.queue(destination).put(message)
            else:
                self.topic(destination).publish(message)
        # A reply for somebody who has gone is nobody's error.
        elif destination in self.queues:
            self.queues[destination].put(message)
        elif destination in self.topics:
            self.topics[destination].publish(message)

    def next_due(self) -> int | None:
        """When `deliver_due` has something to do next, in ms since 1970."""
        return self._delayed[0][0] if self._delayed else None

    def deliver_due(self) -> None:
        """Deliver the delayed messages whose time has come."""
        now = self.now()
        while self._delayed and self._delayed[0][0] <= now:
            message = heapq.heappop(self._delayed)[2]
            self.memory.leave(message)
            message.timestamp, message.due, message.place = now, 0, next(self._numbers)
            self._note(message)
            self._deliver(message)

    @property
    def delayed(self) -> int:
        """How many messages wait for their time."""
        return len(self._delayed)

    # What queues ask of their owner

    def delivered(self, message: Message) -> None:
        """A consumer has the message, and has not acknowledged it."""
        if self._journal and self._is_kept(message):
            self._journal.mark(message)

    def forget(self, message: Message) -> None:
        """The message is done with."""
        if self._journal and self._is_kept(message):
            self._journal.remove(message)

    def returned(self, queue: Queue, message: Message) -> bool:
        """A consumer went away with the message. True if it may be delivered once more."""
        limit = self.settings.max_redeliveries
        mortal = queue.name.startswith(QUEUE) and not queue.name.startswith(DEAD_LETTERS)
        if mortal and limit and message.redeliveries > limit:
            self._bury(queue, message, f"{message.redeliveries} consumers vanished without acknowledging it")
            return False
        self._note(message)
        return True

    def _note(self, message: Message) -> None:
        if self._journal and self._is_kept(message):
            self._journal.update(message)

    def rejected(self, queue: Queue, message: Message) -> None:
        """A consumer refused the message, which has left the queue."""
        if message.redeliveries < self.settings.nack_redeliveries and queue.name.startswith(QUEUE):
            message.redeliveries += 1
            message.due = self.now() + round(1000 * self.settings.redelivery_delay)
            self._note(message)
            self._delay(message)
        else:
            self._bury(queue, message, "refused with NACK")

    def expired(self, queue: Queue, message: Message) -> None:
        """The message, which has left the queue, came too late."""
        if DISPOSABLE in message.headers and not queue.bounds:
            self.forget(message)
        else:
            self._bury(queue, message, "expired")

    def _bury(self, queue: Queue, message: Message, reason: str) -> None:
        """Move a message that has left its queue to the dead letters; topics and replies have none."""
        if queue.bounds:
            return
        if not queue.name.startswith(QUEUE):
            self.forget(message)
            return
        if not self.load([message]):
            return
        self.forget(message)
        if queue.name.startswith(DEAD_LETTERS):
            destination = queue.name  # a dead letter refused goes to the end of its queue
            headers = message.headers
        else:
            destination = DEAD_LETTERS + queue.name.removeprefix(QUEUE)
            headers = message.headers | {
                "original-destination": queue.name,
                "originalExpiration": str(message.expires),
                "dlqDeliveryFailureCause": reason,
            }
        dead = self.message(destination, headers, message.body)
        dead.id, dead.timestamp = message.id, message.timestamp
        dead.priority, dead.persistent = message.priority, message.persistent
        self.send(dead)

    # Queues and topics

    def queue(self, name: str) -> Queue:
        """The queue of that full name, made if absent."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name, self)
            for consumer, pattern in self._patterns.items():
                if matches(pattern, name):
                    queue.attach(consumer)
        return queue

    def topic(self, name: str) -> Topic:
        """The topic of that full name, made if absent."""
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name, self.now())
            topic.subscribers = [q for q in self._subscriptions.values() if matches(q.name, name)]
        return topic

    def check_known(self, name: str) -> None:
        """Raise DestinationError where this name would be one queue or topic too many."""
        full = len(self.queues) + len(self.topics) >= _MAX_DESTINATIONS
        if full and name not in self.queues and name not in self.topics:
            raise DestinationError(f"there are {_MAX_DESTINATIONS} queues and topics already")

    def remove(self, name: str) -> None:
        """Forget a queue or topic, which nobody uses, with what is in it."""
        queue = self.queues.pop(name, None)
        if queue is not None:
            queue.close()
        self.topics.pop(name, None)

    def subscribe(self, consumer: Consumer, name: str, retroactive: bool = False) -> None:
        """Let a consumer have the messages of a queue or topic, or of all that a pattern means."""
        pattern = is_pattern(name)
        if name.startswith((TOPIC, TEMPORARY_TOPIC)):
            self._subscribe_topic(consumer, name, pattern, retroactive)
        elif not pattern:
            self.queue(name).attach(consumer)
        else:
            self._patterns[consumer] = name
            for queue in self._matching_queues(name):
                queue.attach(consumer)

    def _subscribe_topic(self, consumer: Consumer, name: str, pattern: bool, retroactive: bool) -> None:
        if not pattern:
            self.topic(name)
        queue = self._subscriptions[consumer] = Queue(name, self, TOPIC_BOUNDS)
        queue.attach(consumer)
        for topic in [topic for topic in self.topics.values() if matches(name, topic.name)]:
            topic.subscribers.append(queue)
            for message in topic.last if retroactive else ():
                queue.put(message)

    def unsubscribe(self, consumers: Sequence[Consumer]) -> None:
        """Consumers go, together; what they have not acknowledged goes back."""
        for consumer in consumers:
            self._patterns.pop(consumer, None)
            queue = self._subscriptions.pop(consumer, None)
            if queue is not None:
                queue.close()
                for topic in self.topics.values():
                    if queue in topic.subscribers:
                        topic.subscribers.remove(queue)
                        topic.idle_since = self.now()
        close(consumers)

    def _matching_queues(self, pattern: str) -> list[Queue]:
        return [queue for name, queue in self.queues.items() if matches(pattern, name)]

    def browse(self, name: str, selector: Selector | None) -> list[Message]:
        """The messages of a queue, or of all that a pattern means, without taking them."""
        found = [message for queue in self._matching_queues(name) for message in queue.messages()]
        if selector is None:
            return found
        chosen: list[Message] = []
        for message in found:
            if self.load([message]) and selector.matches(message):
                chosen.append(message)
            self.memory.relieve(message)
        return chosen

    def sweep(self) -> bool:
        """Remove what is too late, and destinations that nobody has used for long. True if there is more."""
        before = self.now() - _KEEP_IDLE_MS
        more = False
        for queue in list(self.queues.values()):
            more = queue.expire() or more
            used = queue.size or queue.consumers or not queue.name.startswith(QUEUE)
            if not used and queue.idle_since < before:
                self.remove(queue.name)
        for queue in self._subscriptions.values():
            more = queue.expire() or more
        for topic in list(self.topics.values()):
            used = topic.subscribers or not topic.name.startswith(TOPIC)
            if not used and topic.idle_since < before:
                self.remove(topic.name)
        return more
