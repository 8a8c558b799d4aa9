"""Topics, wildcards, selectors and temporary queues, over raw sockets."""

from __future__ import annotations

import pytest

from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp_frames import Frame
from raw_stomp import Connect, fill, sizes
from waiting import wait_until


def test_a_topic_goes_to_all_who_are_there(broker: BrokerThread, connect: Connect) -> None:
    sender, receivers = connect(), [connect() for _ in range(3)]
    sender.send("/topic/a", "nobody")
    for receiver in receivers:
        receiver.subscribe("/topic/a", "client")
    sender.send("/topic/a", "all")
    messages: list[Frame] = [receiver.message() for receiver in receivers]
    assert {message.body for message in messages} == {b"all"}
    receivers[0].ack(messages[0])
    receivers[1].nack(messages[1])
    receivers[2].close()
    wait_until(lambda: sizes(broker) == {"/topic/a": (0, 0)}, 5, "nothing left behind")


@pytest.mark.parametrize("name", ["/topic/a", "/topic/*"])
def test_a_subscriber_of_a_topic_that_has_gone_gets_no_more(
    broker: BrokerThread, connect: Connect, name: str
) -> None:
    stays, goes = connect(), connect()
    stays.send("/topic/a")
    goes.subscribe(name)
    goes.confirm("UNSUBSCRIBE", {"id": "1"})
    stays.send("/topic/a", "nobody")
    (entry,) = broker.statistics()
    assert (entry.consumers, entry.size, entry.memory) == (0, 0, 0)


def test_retroactive_subscribers_get_the_last_messages(connect: Connect) -> None:
    client = connect()
    fill(client, 30, "/topic/a")
    client.send("/topic/a", "too late", expires="1")
    client.subscribe("/topic/a", more={"activemq.retroactive": "true"})
    assert client.bodies(19) == [str(number) for number in range(11, 30)]
    assert client.nothing()


@pytest.mark.parametrize("kind", ["queue", "topic"])
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.*", ["a.b", "a.c"]),
        ("a.>", ["a", "a.b", "a.c", "a.b.c"]),
        ("*.b", ["a.b"]),
        (">", ["a", "a.b", "a.c", "a.b.c", "ab"]),
        ("*.*.c", ["a.b.c"]),
    ],
)
def test_wildcards_subscribe_to_what_is_and_what_comes(
    connect: Connect, kind: str, pattern: str, names: list[str]
) -> None:
    sender, receiver = connect(), connect()
    every = ["a", "a.b", "a.c", "a.b.c", "ab"]
    if kind == "queue":
        for name in every[:2]:
            sender.send(f"/queue/{name}", name)
    receiver.subscribe(f"/{kind}/{pattern}", "client-individual", more={"activemq.prefetchSize": "2"})
    for name in every[2:] if kind == "queue" else every:
        sender.send(f"/{kind}/{name}", name)
    got = []
    for _ in names:
        message = receiver.message()
        assert message.headers["destination"] == f"/{kind}/{message.body.decode()}"
        got.append(message.body.decode())
        receiver.ack(message)
    assert sorted(got) == sorted(names)
    assert receiver.nothing()


def test_selectors_choose_and_leave_the_rest_to_others(connect: Connect) -> None:
    picky, other = connect(), connect()
    picky.subscribe("/queue/a", "client", more={"selector": "colour = 'red' AND n > 2"})
    for n in range(5):
        for colour in ("red", "blue"):
            other.send("/queue/a", f"{colour}{n}", colour=colour, n=str(n))
    assert picky.bodies(2) == ["red3", "red4"]
    assert picky.nothing()
    other.subscribe("/queue/a", "client")
    assert other.bodies(8) == ["red0", "blue0", "red1", "blue1", "red2", "blue2", "blue3", "blue4"]


def test_a_sweeper_selects_by_delivery_count(connect: Connect) -> None:
    sweeper = connect()
    sweeper.subscribe("/queue/>", "client", more={"selector": "JMSXDeliveryCount > 3"})
    sweeper.send("/queue/a", "poison")
    for _ in range(3):
        victim = connect()
        victim.subscribe("/queue/a", "client")
        assert victim.message().body == b"poison"
        victim.close()
    message = sweeper.message()
    assert (message.body, message.headers["JMSXDeliveryCount"]) == (b"poison", "4")


def test_temporary_queues_bring_replies_to_their_owner(broker: BrokerThread, connect: Connect) -> None:
    asking, answering = connect(), connect()
    asking.subscribe("/temp-queue/replies", "client")
    answering.subscribe("/queue/questions")
    asking.send("/queue/questions", "how?", reply__to="/temp-queue/replies", correlation__id="7")
    question = answering.message()
    reply_to = question.headers["reply-to"]
    assert reply_to.startswith("/remote-temp-queue/")
    answering.send(reply_to, "so")
    answer = asking.message()
    assert (answer.body, answer.headers["destination"]) == (b"so", "/temp-queue/replies")
    asking.close()
    wait_until(lambda: reply_to not in {s.name for s in broker.statistics()}, 5, "the end of the queue")
    answering.send(reply_to, "too late, and nobody's error")
    assert reply_to not in {s.name for s in broker.statistics()}


def test_nobody_else_reads_a_temporary_queue(connect: Connect) -> None:
    asking, spy = connect(), connect()
    asking.subscribe("/temp-queue/replies")
    asking.send("/queue/questions", "how?", reply__to="/temp-queue/replies")
    spy.subscribe("/queue/questions")
    reply_to = spy.message().headers["reply-to"]
    spy.say("SUBSCRIBE", {"destination": reply_to, "id": "2"})
    assert "belongs to another connection" in spy.error()


def test_too_many_destinations_are_refused(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parvis.transport.embedded.destinations._MAX_DESTINATIONS", 3)
    client, other = connect(), connect()
    for name in "abc":
        client.send(f"/queue/{name}")
    client.say("SEND", {"destination": "/topic/d"})
    assert "3 queues and topics already" in client.error()
    other.send("/queue/a")
