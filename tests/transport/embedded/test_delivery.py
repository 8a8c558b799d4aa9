"""Who gets which message when, over raw sockets."""

from __future__ import annotations

import time

import pytest

from parvis.transport.embedded import BrokerThread, Settings
from raw_stomp import Connect, RawClient, fill, sizes
from waiting import wait_until

# Acknowledging


def test_auto_needs_no_acknowledgement(broker: BrokerThread, connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/a")
    fill(client, 3)
    assert client.bodies(3) == ["0", "1", "2"]
    assert sizes(broker) == {"a": (0, 0)}


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_client_acknowledges_all_up_to_one(broker: BrokerThread, connect: Connect, version: str) -> None:
    client = connect(version)
    client.subscribe("/queue/a", "client")
    fill(client, 4)
    messages = [client.message() for _ in range(4)]
    client.ack(messages[2])
    assert sizes(broker) == {"a": (1, 1)}


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_client_individual_acknowledges_one(broker: BrokerThread, connect: Connect, version: str) -> None:
    client = connect(version)
    client.subscribe("/queue/a", "client-individual")
    fill(client, 4)
    messages = [client.message() for _ in range(4)]
    client.ack(messages[2])
    client.ack(messages[0])
    assert sizes(broker) == {"a": (2, 2)}
    client.close()
    other = connect(version)
    other.subscribe("/queue/a", "client-individual")
    assert other.bodies(2) == ["1", "3"]


@pytest.mark.parametrize(("ack", "dead"), [("client", 3), ("client-individual", 1)])
def test_nack_goes_to_the_dead_letters_at_once(connect: Connect, ack: str, dead: int) -> None:
    client = connect()
    client.subscribe("/queue/t.a", ack)
    client.subscribe("/queue/DLQ.t.a", "client", "dead")
    fill(client, 3, "/queue/t.a", mine="yes", persistent="true")
    messages = [client.message() for _ in range(3)]
    client.nack(messages[2])
    letters = [client.message() for _ in range(dead)]
    assert [letter.headers["message-id"] for letter in letters] == [
        message.headers["message-id"] for message in messages[-dead:]
    ]
    said = letters[0].headers
    assert (said["original-destination"], said["destination"]) == ("/queue/t.a", "/queue/DLQ.t.a")
    assert (said["mine"], said["persistent"]) == ("yes", "true")
    assert said["dlqDeliveryFailureCause"] == "refused with NACK"
    assert client.nothing()


def test_nack_may_redeliver_by_policy() -> None:
    settings = Settings(nack_redeliveries=2, redelivery_delay=0.05)
    with BrokerThread(settings=settings) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/a", "client-individual")
        client.subscribe("/queue/DLQ.a", "client-individual", "dead")
        client.send("/queue/a", "poison")
        counts = []
        while (message := client.message()).headers["subscription"] == "1":
            counts.append(message.headers.get("JMSXDeliveryCount", "1"))
            client.nack(message)
        assert counts == ["1", "2", "3"]
        assert message.headers["original-destination"] == "/queue/a"
        assert "redelivered" not in message.headers


def test_a_refused_dead_letter_stays_a_dead_letter(broker: BrokerThread, connect: Connect) -> None:
    client = connect()
    fill(client, 2, "/queue/DLQ.a")
    client.subscribe("/queue/DLQ.a", "client-individual", more={"activemq.prefetchSize": "1"})
    client.nack(client.message())
    assert client.message().body == b"1"
    client.close()
    wait_until(lambda: sizes(broker) == {"DLQ.a": (2, 0)}, 5, "both dead letters")


# Consumers that go


def test_messages_of_a_lost_consumer_come_again_in_order_and_marked(connect: Connect) -> None:
    first, second = connect(), connect()
    first.subscribe("/queue/a", "client-individual")
    fill(second, 5)
    first.ack([first.message() for _ in range(4)][1])
    second.subscribe("/queue/a", "client-individual", more={"activemq.prefetchSize": "10"})
    assert second.nothing()
    first.close()
    again = [second.message() for _ in range(4)]
    assert [message.body for message in again] == [b"0", b"2", b"3", b"4"]
    assert {message.headers["redelivered"] for message in again} == {"true"}
    assert {message.headers["JMSXDeliveryCount"] for message in again} == {"2"}


def test_unsubscribing_gives_back(connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/a", "client")
    fill(client, 3)
    assert client.bodies(3) == ["0", "1", "2"]
    client.confirm("UNSUBSCRIBE", {"id": "1"})
    client.subscribe("/queue/a", "client", "2")
    assert client.bodies(3) == ["0", "1", "2"]


def test_two_consumers_of_one_lost_connection_count_as_one_delivery(connect: Connect) -> None:
    lost, other = connect(), connect()
    for key in "12":
        lost.subscribe("/queue/a", "client", key)
    fill(other, 4)
    [lost.message() for _ in range(4)]
    other.subscribe("/queue/a", "client")
    lost.close()
    messages = [other.message() for _ in range(4)]
    assert [message.body for message in messages] == [b"0", b"1", b"2", b"3"]
    assert {message.headers["JMSXDeliveryCount"] for message in messages} == {"2"}


def test_messages_of_consumers_lost_one_by_one_come_again_in_order(
    broker: BrokerThread, connect: Connect
) -> None:
    first, second, other = connect(), connect(), connect()
    for client in (first, second):
        client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "2"})
    fill(other, 5)
    assert (first.bodies(2), second.bodies(2)) == (["0", "2"], ["1", "3"])
    for client, left in ((second, 2), (first, 0)):
        client.close()
        wait_until(lambda left=left: sizes(broker) == {"a": (5, left)}, 5, f"{left} in flight")
    other.subscribe("/queue/a", "client")
    assert other.bodies(5) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(("limit", "deliveries"), [(2, 3), (0, 8)])
def test_deaths_are_limited_where_the_settings_say(limit: int, deliveries: int) -> None:
    with BrokerThread(settings=Settings(max_redeliveries=limit)) as broker:
        with RawClient(broker.port) as client:
            client.send("/queue/a", "poison")
        for number in range(deliveries):
            with RawClient(broker.port) as client:
                client.subscribe("/queue/a", "client")
                assert client.message().headers.get("JMSXDeliveryCount", "1") == str(number + 1)
        buried = {"DLQ.a": (1, 0), "a": (0, 0)} if limit else {"a": (1, 0)}
        wait_until(lambda: sizes(broker) == buried, 5, f"{buried}")


# Prefetch and fairness


@pytest.mark.parametrize("header", ["activemq.prefetchSize", "prefetch-count"])
def test_no_more_than_the_prefetch_is_unacknowledged(connect: Connect, header: str) -> None:
    client = connect()
    client.subscribe("/queue/a", "client-individual", more={header: "2"})
    fill(client, 4)
    first, second = client.message(), client.message()
    assert client.nothing()
    client.ack(second)
    assert client.message().body == b"2"
    assert client.nothing()
    client.ack(first)
    assert client.message().body == b"3"


def test_the_default_prefetch_can_be_set() -> None:
    with BrokerThread(settings=Settings(prefetch=1)) as broker, RawClient(broker.port) as client:
        client.subscribe("/queue/a", "client")
        fill(client, 2)
        client.message()
        assert client.nothing()


def test_consumers_take_turns(connect: Connect) -> None:
    consumers = [connect() for _ in range(3)]
    for consumer in consumers:
        consumer.subscribe("/queue/a", "client")
    fill(connect(), 9)
    assert [consumer.bodies(3) for consumer in consumers] == [
        ["0", "3", "6"],
        ["1", "4", "7"],
        ["2", "5", "8"],
    ]


def test_a_busy_consumer_is_passed_over(connect: Connect) -> None:
    busy, free = connect(), connect()
    for consumer in (busy, free):
        consumer.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "1"})
    fill(connect(), 5)
    assert busy.bodies(1) == ["0"]
    for expected in (b"1", b"2", b"3", b"4"):
        message = free.message()
        assert message.body == expected
        free.ack(message)


def test_consumers_of_higher_priority_are_served_first(connect: Connect) -> None:
    low, high = connect(), connect()
    low.subscribe("/queue/a", "client")
    high.subscribe("/queue/a", "client", more={"activemq.priority": "7", "activemq.prefetchSize": "2"})
    fill(connect(), 4)
    assert high.bodies(2) == ["0", "1"]
    assert low.bodies(2) == ["2", "3"]


def test_an_exclusive_consumer_has_the_queue_alone_and_is_succeeded(connect: Connect) -> None:
    shared, first, second = connect(), connect(), connect()
    shared.subscribe("/queue/a", "client")
    for exclusive in (first, second):
        exclusive.subscribe(
            "/queue/a", "client", more={"activemq.exclusive": "true", "activemq.prefetchSize": "3"}
        )
    fill(connect(), 5)
    messages = [first.message() for _ in range(3)]
    assert first.nothing()
    assert second.nothing()
    first.ack(messages[0])
    first.message()
    first.close()
    assert second.bodies(3) == ["1", "2", "3"]
    assert second.nothing()
    assert shared.nothing()


# Order, time


def test_higher_priority_first_then_in_order(connect: Connect) -> None:
    client = connect()
    for priority in "4909040":
        client.send("/queue/a", priority, priority=priority)
    client.send("/queue/a", "default")
    client.send("/queue/a", "above", priority="99")
    client.subscribe("/queue/a", "client")
    assert client.bodies(9) == ["9", "9", "above", "4", "4", "default", "0", "0", "0"]


def test_what_comes_again_keeps_its_place_among_the_priorities(
    broker: BrokerThread, connect: Connect
) -> None:
    lost, client = connect(), connect()
    for body, priority in (("a", "4"), ("b", "9"), ("c", "4"), ("d", "9")):
        client.send("/queue/a", body, priority=priority)
    lost.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "3"})
    assert lost.bodies(3) == ["b", "d", "a"]
    client.send("/queue/a", "e", priority="9")
    lost.close()
    wait_until(lambda: sizes(broker) == {"a": (5, 0)}, 5, "the messages back in the queue")
    client.subscribe("/queue/a", "client")
    assert client.bodies(5) == ["b", "d", "e", "a", "c"]


def test_a_delayed_message_comes_when_it_is_due(broker: BrokerThread, connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/a")
    client.confirm("BEGIN", {"transaction": "t"})  # so that all delays begin together
    for body, delay in (("last", "300"), ("late", "150"), ("now", "0")):
        client.send("/queue/a", body, AMQ_SCHEDULED_DELAY=delay, transaction="t")
    sent = time.monotonic()
    client.confirm("COMMIT", {"transaction": "t"})
    messages = [client.message() for _ in range(3)]
    assert [message.body for message in messages] == [b"now", b"late", b"last"]
    assert time.monotonic() - sent > 0.29
    arrived = [int(message.headers["timestamp"]) for message in messages]
    assert arrived[1] - arrived[0] >= 150
    assert "scheduledJobId" in messages[1].headers
    assert "AMQ_SCHEDULED_DELAY" not in messages[1].headers


def expired_in(ms: int) -> str:
    return str(time.time_ns() // 1_000_000 + ms)


def test_an_expired_message_of_a_queue_becomes_a_dead_letter(connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/DLQ.a", "client", "dead")
    client.subscribe("/queue/a", "client", more={"activemq.prefetchSize": "1"})
    client.send("/queue/a", "holds the only place")
    stamp = expired_in(100)
    client.send("/queue/a", "too late", expires=stamp)
    client.send("/queue/a", "in time", expires=expired_in(60_000))
    assert client.message().headers["subscription"] == "1"
    letter = client.message()
    assert (letter.body, letter.headers["dlqDeliveryFailureCause"]) == (b"too late", "expired")
    assert (letter.headers["expires"], letter.headers["originalExpiration"]) == ("0", stamp)
    assert client.nothing()


def test_an_expired_message_of_a_topic_is_dropped(broker: BrokerThread, connect: Connect) -> None:
    client = connect()
    client.subscribe("/topic/a")
    client.send("/topic/a", "too late", expires="1")
    client.send("/topic/a", "in time", expires=expired_in(60_000))
    assert client.bodies(1) == ["in time"]
    assert sizes(broker) == {"/topic/a": (0, 0)}


def test_a_delayed_message_lives_as_long_once_it_has_come(connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/a")
    client.send("/queue/a", "x", AMQ_SCHEDULED_DELAY="200", expires=expired_in(100))
    assert client.bodies(1) == ["x"]
