"""What goes on in the queues, for monitors: as objects, and over STOMP as ActiveMQ's statistics plugin does.

A message to `/queue/ActiveMQ.Statistics.Destination.<name>`, where the name may have wildcards, or to
`/queue/ActiveMQ.Statistics.Broker` brings a message for each destination, or one for the broker, to its
`reply-to`: a JSON object, as it is or, where the subscription asks for `transformation:jms-map-json`, in the
form that ActiveMQ gives a map. Topics are asked at `/topic/ActiveMQ.Statistics.Destination.<name>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from parvis.transport.embedded.destinations import DEAD_LETTERS, QUEUE, TOPIC, Destinations, Topic, matches
from parvis.transport.embedded.message import Entry, Message
from parvis.transport.embedded.queue import Queue

_PREFIX: Final = "ActiveMQ.Statistics."
_ASK: Final = (QUEUE + _PREFIX, TOPIC + _PREFIX)


@dataclass(frozen=True, slots=True)
class DestinationStatistics:
    """One queue or topic.

    Attributes:
        name: full name, such as `/queue/zocalo.processing_recipe`.
        size: messages in it, those in flight included.
        in_flight: delivered and not yet acknowledged.
        enqueued, dispatched, dequeued, expired: messages that came, were delivered, acknowledged, too late.
        consumers, producers: subscriptions, and connections that have sent.
        mean_wait: mean time from arrival to acknowledgement, in seconds.
        memory: bytes of the messages in it, whether in memory or only in the journal.
        oldest_age: seconds that the message has been here that came first; 0 where there is none.
        dead_letters: it holds the dead letters of another queue.
    """

    name: str
    size: int
    in_flight: int
    enqueued: int
    dispatched: int
    dequeued: int
    expired: int
    consumers: int
    producers: int
    mean_wait: float
    memory: int
    oldest_age: float
    dead_letters: bool

    def as_map(self) -> dict[str, Entry]:
        """The same under ActiveMQ's names. Times are in ms."""
        return {
            "destinationName": self.name.replace("/", "", 1).replace("/", "://", 1),
            "size": self.size,
            "inflightCount": self.in_flight,
            "enqueueCount": self.enqueued,
            "dispatchCount": self.dispatched,
            "dequeueCount": self.dequeued,
            "expiredCount": self.expired,
            "consumerCount": self.consumers,
            "producerCount": self.producers,
            "averageEnqueueTime": 1000 * self.mean_wait,
            "averageMessageSize": self.memory // self.size if self.size else 0,
            "memoryUsage": self.memory,
            "oldestMessageAge": round(1000 * self.oldest_age),
            "dlq": self.dead_letters,
        }


def statistics(destinations: Destinations, pattern: str | None = None) -> list[DestinationStatistics]:
    """Of all queues and topics, or of those that a full name with or without wildcards means."""
    found: list[Queue | Topic] = [*destinations.queues.values(), *destinations.topics.values()]
    found = [entry for entry in found if pattern is None or matches(pattern, entry.name)]
    return [_of(destinations, entry) for entry in sorted(found, key=lambda entry: entry.name)]


def _of(destinations: Destinations, entry: Queue | Topic) -> DestinationStatistics:
    queues = entry.subscribers if isinstance(entry, Topic) else [entry]
    dequeued = sum(queue.dequeued for queue in queues)
    waited = sum(queue.waited for queue in queues)
    now = destinations.now()
    oldest = min((came for queue in queues if (came := queue.oldest) is not None), default=now)
    return DestinationStatistics(
        name=entry.name,
        size=sum(queue.size for queue in queues),
        in_flight=sum(queue.in_flight for queue in queues),
        enqueued=entry.enqueued,
        dispatched=sum(queue.dispatched for queue in queues),
        dequeued=dequeued,
        expired=sum(queue.expirations for queue in queues),
        consumers=sum(len(queue.consumers) for queue in queues),
        producers=destinations.producers[entry.name],
        mean_wait=waited / dequeued / 1000 if dequeued else 0.0,
        memory=sum(queue.memory for queue in queues),
        oldest_age=max(0, now - oldest) / 1000,
        dead_letters=entry.name.startswith(DEAD_LETTERS),
    )


def broker_map(destinations: Destinations) -> dict[str, Entry]:
    """The whole broker, under ActiveMQ's names."""
    every = statistics(destinations)
    return {
        "brokerName": destinations.name,
        "size": sum(entry.size for entry in every),
        "inflightCount": sum(entry.in_flight for entry in every),
        "enqueueCount": sum(entry.enqueued for entry in every),
        "dispatchCount": sum(entry.dispatched for entry in every),
        "dequeueCount": sum(entry.dequeued for entry in every),
        "expiredCount": sum(entry.expired for entry in every),
        "consumerCount": sum(entry.consumers for entry in every),
        "producerCount": sum(entry.producers for entry in every),
        "connectionCount": destinations.connections,
        "scheduledCount": destinations.delayed,
        "memoryUsage": destinations.memory.used,
        "memoryLimit": destinations.memory.limit,
        "memoryPercentUsage": 100 * destinations.memory.used // destinations.memory.limit,
    }


def is_request(destination: str) -> bool:
    """Whether a message to this full name asks for statistics."""
    return destination.startswith(_ASK)


def answer(destinations: Destinations, destination: str, reply_to: str, correlation: str | None) -> None:
    """Send what a message to `destination` asks for to the queue or topic `reply_to`."""
    kind = TOPIC if destination.startswith(TOPIC) else QUEUE
    what = destination.removeprefix(kind + _PREFIX)
    maps: list[dict[str, Entry]] = []
    if what == "Broker":
        maps = [broker_map(destinations)]
    elif what.startswith("Destination"):
        wanted = what.removeprefix("Destination").removeprefix(".")
        maps = [entry.as_map() for entry in statistics(destinations, kind + wanted)]
    headers = {"content-type": "application/json"}
    if correlation is not None:
        headers["correlation-id"] = correlation
    for entries in maps:
        message = destinations.message(reply_to, headers, orjson.dumps(entries))
        message.entries = entries
        destinations.send(message)


def as_jms_map(message: Message, entries: Mapping[str, Entry]) -> Message:
    """A message with a map in the form in which ActiveMQ gives it to `transformation:jms-map-json`.

    That is what the Java libraries XStream and Jettison make of a map: an entry of a name and a text is
    `{"string": [name, text]}`, one of a name and a number `{"string": name, "long": number}`.
    """
    written = [
        {"string": [name, value]} if isinstance(value, str) else {"string": name, _kind(name, value): value}
        for name, value in entries.items()
    ]
    headers = message.headers | {"transformation": "jms-map-json", "type": "Advisory"}
    body = orjson.dumps({"map": {"entry": written}})
    return Message(message.number, message.id, message.destination, headers, body, message.timestamp)


def _kind(name: str, value: float) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, float):
        return "double"
    return "int" if name.endswith("PercentUsage") else "long"
