"""What monitors see: statistics, as objects and over STOMP, and browsing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from parvis.transport.embedded import BrokerThread
from raw_stomp import Connect, RawClient
from waiting import wait_until

ACTIVEMQ_KINDS = {
    "size": "long",
    "inflightCount": "long",
    "enqueueCount": "long",
    "dispatchCount": "long",
    "dequeueCount": "long",
    "expiredCount": "long",
    "consumerCount": "long",
    "producerCount": "long",
    "averageEnqueueTime": "double",
    "averageMessageSize": "long",
    "memoryUsage": "long",
}
"""Numbers, and their types, in what ActiveMQ 5.17.2 answered when it was asked."""
CHANGING = {"averageEnqueueTime", "averageMessageSize", "memoryUsage", "oldestMessageAge"}


@pytest.fixture
def busy(connect: Connect) -> RawClient:
    """A client with 5 messages sent to q.a, of which 1 is acknowledged, 1 dead, 1 in flight, and 1 late."""
    client = connect()
    for number in range(5):
        client.send("/queue/q.a", f"body {number}", n=str(number))
    client.send("/queue/q.a", "late", expires="1")
    client.send("/queue/q.b", "other")
    client.subscribe("/queue/q.a", "client-individual", more={"activemq.prefetchSize": "1"})
    client.ack(client.message())
    client.nack(client.message())
    client.message()
    return client


def ask(
    client: RawClient, what: str, answers: int, kind: str = "queue", more: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    client.subscribe("/temp-queue/answers", key="answers", more=more)
    client.send(
        f"/{kind}/ActiveMQ.Statistics.{what}", "", reply__to="/temp-queue/answers", correlation__id="c"
    )
    messages = [client.message() for _ in range(answers)]
    assert client.nothing()
    assert {message.headers["correlation-id"] for message in messages} <= {"c"}
    return [json.loads(message.body) for message in messages]


def ask_again(client: RawClient, what: str) -> list[dict[str, Any]]:
    """Ask for one more answer by the same subscription."""
    client.send(f"/queue/ActiveMQ.Statistics.{what}", "", reply__to="/temp-queue/answers")
    return [json.loads(client.message().body)]


def test_statistics_of_the_broker_object(broker: BrokerThread, busy: RawClient) -> None:
    found = {entry.name: entry for entry in broker.statistics()}
    assert list(found) == ["/queue/DLQ.q.a", "/queue/q.a", "/queue/q.b"]
    entry = found["/queue/q.a"]
    assert (entry.size, entry.in_flight, entry.enqueued, entry.dispatched) == (4, 1, 6, 3)
    assert (entry.dequeued, entry.expired, entry.consumers, entry.producers) == (1, 0, 1, 1)
    assert entry.mean_wait >= 0
    assert entry.memory > 0
    assert found["/queue/DLQ.q.a"].size == 1


def test_statistics_of_a_destination_over_stomp(busy: RawClient) -> None:
    (answer,) = ask(busy, "Destination.q.a", 1)
    assert {name: value for name, value in answer.items() if name not in CHANGING} == {
        "destinationName": "queue://q.a",
        "size": 4,
        "inflightCount": 1,
        "enqueueCount": 6,
        "dispatchCount": 3,
        "dequeueCount": 1,
        "expiredCount": 0,
        "consumerCount": 1,
        "producerCount": 1,
        "dlq": False,
    }
    assert isinstance(answer["averageEnqueueTime"], float)
    assert answer["memoryUsage"] == 4 * answer["averageMessageSize"] + answer["memoryUsage"] % 4


def test_statistics_as_activemq_writes_them_where_asked_so(busy: RawClient) -> None:
    """Names, types and form are those of ActiveMQ 5.17, which leaves out the point of whole doubles."""
    (answer,) = ask(busy, "Destination.q.a", 1, more={"transformation": "jms-map-json"})
    entries = answer["map"]["entry"]
    texts = [entry["string"] for entry in entries if len(entry) == 1]
    assert texts == [["destinationName", "queue://q.a"]]
    values = {
        entry["string"]: next((kind, value) for kind, value in entry.items() if kind != "string")
        for entry in entries
        if len(entry) == 2
    }
    assert (values["size"], values["inflightCount"], values["dlq"]) == (
        ("long", 4),
        ("long", 1),
        ("boolean", False),
    )
    ours = {name: kind for name, (kind, _) in values.items()}
    assert ours == ACTIVEMQ_KINDS | {"oldestMessageAge": "long", "dlq": "boolean"}
    (broker,) = ask_again(busy, "Broker")
    assert {"string": "memoryPercentUsage", "int": 0} in broker["map"]["entry"]


def test_the_age_of_the_oldest_message(connect: Connect, broker: BrokerThread) -> None:
    client = connect()
    client.send("/queue/a", "oldest")
    wait_until(lambda: broker.statistics()[0].oldest_age > 0.05, 5, "a message to grow old")
    client.send("/queue/a", "younger", priority="9")
    client.subscribe("/queue/a", "client-individual", more={"activemq.prefetchSize": "2"})
    younger, oldest = client.message(), client.message()
    client.ack(younger)
    assert broker.statistics()[0].oldest_age > 0.05
    client.ack(oldest)
    assert broker.statistics()[0].oldest_age == 0


def test_a_queue_of_dead_letters_says_so(broker: BrokerThread, busy: RawClient) -> None:
    assert {entry.name: entry.dead_letters for entry in broker.statistics()} == {
        "/queue/DLQ.q.a": True,
        "/queue/q.a": False,
        "/queue/q.b": False,
    }


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("Destination.q.>", {"q.a", "q.b"}),
        ("Destination.*.b", {"q.b"}),
        ("Destinationq.b", {"q.b"}),
        ("Destination.none", set[str]()),
        ("Nonsense", set[str]()),
    ],
)
def test_statistics_with_wildcards(busy: RawClient, what: str, names: set[str]) -> None:
    answers = ask(busy, what, len(names))
    assert {answer["destinationName"] for answer in answers} == {f"queue://{name}" for name in names}


def test_statistics_of_topics(connect: Connect) -> None:
    client = connect()
    client.subscribe("/topic/t.status")
    client.send("/topic/t.status", "x")
    client.message()
    (answer,) = ask(client, "Destination.t.>", 1, "topic")
    assert (answer["destinationName"], answer["enqueueCount"], answer["dequeueCount"]) == (
        "topic://t.status",
        1,
        1,
    )
    assert (answer["consumerCount"], answer["producerCount"], answer["size"]) == (1, 1, 0)


def test_statistics_of_the_broker_over_stomp(busy: RawClient) -> None:
    busy.send("/queue/later", AMQ_SCHEDULED_DELAY="100000")
    (answer,) = ask(busy, "Broker", 1)
    assert (answer["size"], answer["inflightCount"], answer["enqueueCount"]) == (6, 1, 8)
    assert (answer["scheduledCount"], answer["memoryPercentUsage"]) == (1, 0)
    assert answer["memoryUsage"] > 5000


def test_producers_that_have_gone_do_not_count(broker: BrokerThread, connect: Connect) -> None:
    stays, goes = connect(), connect()
    for client in (stays, goes):
        client.send("/queue/a")
        client.send("/queue/a")
    assert broker.statistics()[0].producers == 2
    goes.confirm("DISCONNECT")
    assert broker.statistics()[0].producers == 1


@pytest.mark.parametrize("ack", ["auto", "client"])
def test_a_browser_sees_all_and_takes_nothing(broker: BrokerThread, busy: RawClient, ack: str) -> None:
    before = [replace(entry, oldest_age=0) for entry in broker.statistics()]
    busy.subscribe("/queue/q.a", ack, "look", {"browser": "true"})
    shown = [busy.message() for _ in range(5)]
    assert [message.body for message in shown] == [b"body 2", b"body 3", b"body 4", b"late", b""]
    assert {message.headers["subscription"] for message in shown} == {"look"}
    assert [message.headers.get("browser") for message in shown] == [None] * 4 + ["end"]
    busy.ack(shown[0])
    assert [replace(entry, oldest_age=0) for entry in broker.statistics()] == before
    busy.confirm("UNSUBSCRIBE", {"id": "look"})


def test_a_browser_may_have_a_selector_and_wildcards(busy: RawClient) -> None:
    busy.subscribe("/queue/q.*", key="look", more={"browser": "true", "selector": "n >= 3 OR n IS NULL"})
    assert sorted(busy.bodies(5)) == ["", "body 3", "body 4", "late", "other"]


def test_browsing_nothing_ends_at_once(connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/none", more={"browser": "true"})
    assert client.message().headers["browser"] == "end"


def test_a_large_queue_is_browsed_to_the_end(connect: Connect) -> None:
    client = connect()
    for number in range(100):
        client.say("SEND", {"destination": "/queue/a"}, f"{number}".encode().ljust(10_000))
    client.subscribe("/queue/a", more={"browser": "true"})
    assert [body.strip() for body in client.bodies(101)] == [*map(str, range(100)), ""]
