"""What every transport does, whatever the broker. A test module makes a `Test...` class of it.

It needs the fixtures `connect` (makes connected transports) and `broker` (with its `kind`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from inbox import Inbox
from parvis.transport.base import Disconnected, Message, Send, Transport
from waiting import wait_until

Connect = Callable[..., Transport]

HEADERS = {
    "workflows-recipe": "True",
    "with:colon": "a:b:c",
    "lines": "first\nsecond\r\nthird\\n",
    "unicode": "Größe 5 µm → ok",
    "spaces": "  kept  ",
    "empty": "",
}


class TransportContract:
    """Tests of the interface `Transport`."""

    def test_message_arrives_as_sent(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        number = transport.subscribe("work.in", inbox)
        body = bytes(range(256)) * 3
        transport.send(Send("work.in", body, HEADERS))
        message = inbox.get()
        assert message.body == body
        assert {name: message.headers[name] for name in HEADERS} == HEADERS
        assert message.destination == "work.in"
        assert message.subscription == number
        assert message.connection == transport.connection
        assert not message.redelivered

    def test_messages_arrive_in_order(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        bodies = [b"%d" % number for number in range(200)]
        transport.send(*(Send("work", body) for body in bodies))
        transport.subscribe("work", inbox, prefetch=50)
        for _ in bodies:
            transport.commit([inbox.get()], [])
        assert inbox.bodies == bodies

    def test_acknowledged_message_is_gone(self, connect: Connect) -> None:
        first, second = connect(), connect()
        inbox, later = Inbox(), Inbox()
        first.subscribe("work", inbox)
        first.send(Send("work", b"one"))
        first.commit([inbox.get()], [])
        first.disconnect()
        second.send(Send("work", b"two"))
        second.subscribe("work", later)
        assert later.get().body == b"two"

    def test_unacknowledged_message_goes_back_when_its_consumer_leaves(self, connect: Connect) -> None:
        first, second = connect(), connect()
        inbox, later = Inbox(), Inbox()
        first.subscribe("work", inbox)
        first.send(Send("work", b"one"))
        inbox.get()
        first.disconnect()
        second.subscribe("work", later)
        assert later.get().body == b"one"

    def test_unsubscribing_gives_back_and_stops(self, connect: Connect) -> None:
        transport, other = connect(), connect()
        inbox, later = Inbox(), Inbox()
        number = transport.subscribe("work", inbox)
        transport.send(Send("work", b"one"))
        message = inbox.get()
        transport.unsubscribe(number)
        other.subscribe("work", later, prefetch=10)
        transport.send(Send("work", b"two"))
        assert {message.body for message in later.take(2)} == {b"one", b"two"}
        assert inbox.bodies == [b"one"]
        with pytest.raises(Disconnected):
            transport.commit([message], [])
        with pytest.raises(ValueError, match="no subscription"):
            transport.unsubscribe(number)

    def test_transaction_acknowledges_and_sends(self, connect: Connect) -> None:
        transport = connect()
        work, results, more = Inbox(), Inbox(), Inbox()
        transport.subscribe("work", work)
        transport.subscribe("results", results)
        transport.subscribe("more", more)
        transport.send(Send("work", b"job"))
        transport.commit([work.get()], [Send("results", b"result"), Send("more", b"more", kind="queue")])
        assert results.get().body == b"result"
        assert more.get().body == b"more"
        transport.send(Send("work", b"next"))
        assert work.get().body == b"next"

    def test_transaction_spans_subscriptions(self, connect: Connect) -> None:
        transport, other = connect(), connect()
        left, right, later = Inbox(), Inbox(), Inbox()
        transport.subscribe("left", left, prefetch=5)
        transport.subscribe("right", right, prefetch=5)
        transport.send(Send("left", b"1"), Send("left", b"2"), Send("right", b"3"), Send("right", b"4"))
        first, second = left.take(2)
        third, _fourth = right.take(2)
        transport.commit([first, third, second], [])
        transport.disconnect()
        other.subscribe("left", later)
        other.subscribe("right", later)
        assert later.get().body == b"4"
        other.send(Send("left", b"end"))
        assert later.get().body == b"end"

    def test_several_messages_are_sent_all_at_once(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        transport.subscribe("work", inbox, prefetch=100)
        transport.send(*(Send("work", b"%d" % number) for number in range(50)))
        inbox.take(50)

    @pytest.mark.parametrize("prefetch", [1, 10])
    def test_prefetch_bounds_what_is_held(self, connect: Connect, prefetch: int) -> None:
        transport, other = connect(), connect()
        held, rest = Inbox(), Inbox()
        transport.subscribe("work", held, prefetch=prefetch)
        transport.send(*(Send("work", b"%d" % number) for number in range(prefetch + 2)))
        taken = held.take(prefetch)
        other.subscribe("work", rest, prefetch=10)
        rest.take(2)
        assert len(held.messages) == prefetch
        transport.commit(taken, [])
        other.disconnect()
        assert held.get().redelivered

    def test_acknowledging_is_cumulative_and_in_order(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        transport.subscribe("work", inbox, prefetch=10)
        transport.send(*(Send("work", b"%d" % number) for number in range(4)))
        first, second, third, fourth = inbox.take(4)
        with pytest.raises(ValueError, match="order of delivery"):
            transport.commit([second], [])
        with pytest.raises(ValueError, match="order of delivery"):
            transport.commit([second, first], [])
        transport.commit([first, second], [])
        with pytest.raises(ValueError, match="only once"):
            transport.commit([second], [Send("work", b"never sent")])
        transport.commit([third], [])
        transport.commit([fourth], [Send("work", b"sent")])
        assert inbox.get().body == b"sent"

    def test_delayed_message_comes_later(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        transport.subscribe("work", inbox, prefetch=10)
        began = time.monotonic()
        transport.send(Send("work", b"late", delay=0.7), Send("work", b"early"))
        first, second = inbox.take(2)
        assert (first.body, second.body) == (b"early", b"late")
        assert time.monotonic() - began > 0.6

    def test_expired_message_is_not_delivered(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        transport.send(Send("work", b"stale", expiration=0.05), Send("work", b"fresh", expiration=60))
        expired = time.time() + 0.2
        wait_until(lambda: time.time() > expired, 5, "the message to expire")
        transport.subscribe("work", inbox, prefetch=10)
        assert inbox.get().body == b"fresh"

    def test_higher_priority_goes_first(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        for priority in (1, 4, 9):
            transport.send(Send("priority", b"%d" % priority, priority=priority))
        transport.subscribe("priority", inbox)
        for _ in range(3):
            transport.commit([inbox.get()], [])
        assert inbox.bodies == [b"9", b"4", b"1"]

    def test_exclusive_consumer_gets_everything(self, connect: Connect) -> None:
        transport, other = connect(), connect()
        inbox, nothing = Inbox(), Inbox()
        transport.subscribe("work", inbox, prefetch=10, exclusive=True)
        other.subscribe("work", nothing, prefetch=10)
        transport.send(*(Send("work", b"%d" % number) for number in range(6)))
        inbox.take(6)
        assert not nothing.messages
        transport.disconnect()
        nothing.take(6)

    def test_selector_chooses(self, connect: Connect) -> None:
        transport, chosen, rest = connect(), Inbox(), Inbox()
        transport.send(Send("work", b"no", {"beamline": "i04"}), Send("work", b"yes", {"beamline": "i03"}))
        transport.subscribe("work", chosen, selector="beamline = 'i03'")
        assert chosen.get().body == b"yes"
        transport.subscribe("work", rest)
        assert rest.get().body == b"no"

    def test_broadcast_reaches_all_who_listen(self, connect: Connect) -> None:
        sender, listener = connect(), connect()
        one, two, three = Inbox(), Inbox(), Inbox()
        sender.subscribe_broadcast("transient.status", one)
        sender.subscribe_broadcast("transient.status", two)
        listener.subscribe_broadcast("transient.status", three)
        sender.send(Send("transient.status", b"{}", kind="topic", persistent=False, expiration=15))
        assert [inbox.get().body for inbox in (one, two, three)] == [b"{}"] * 3
        assert one.messages[0].destination == "transient.status"

    def test_request_and_reply_by_temporary_queue(self, connect: Connect) -> None:
        client, server = connect(), connect()
        requests, replies = Inbox(), Inbox()
        server.subscribe("requests", requests)
        _, reply_queue = client.subscribe_temporary("answers", replies)
        assert reply_queue.startswith("transient.answers.")
        assert client.subscribe_temporary("answers", Inbox())[1] != reply_queue
        for question in (b"1", b"2"):
            client.send(Send("requests", question, {"reply-queue": reply_queue}))
            request = requests.get()
            answer = Send(request.headers["reply-queue"], b"answer to " + request.body)
            server.commit([request], [answer])
            assert replies.get().body == b"answer to " + question

    def test_post_does_not_wait(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        transport.subscribe_broadcast("transient.status", inbox)
        status = Send("transient.status", b"alive", kind="topic", persistent=False, expiration=15)
        transport.post(status)
        assert inbox.get().body == b"alive"
        transport.disconnect()
        transport.post(status)

    def test_callback_may_post(self, connect: Connect) -> None:
        transport, pongs = connect(), Inbox()
        pong = Send("pong", b"pong", kind="topic", persistent=False)
        transport.subscribe_broadcast("pong", pongs)
        transport.subscribe_broadcast("ping", lambda _message: transport.post(pong))
        transport.send(Send("ping", b"ping", kind="topic"))
        assert pongs.get().body == b"pong"

    def test_failing_callback_harms_nobody(self, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        transport, inbox = connect(), Inbox()

        def fail(message: Message) -> None:
            inbox(message)
            raise ZeroDivisionError("a mistake in a callback")

        transport.subscribe("work", fail, prefetch=10)
        transport.send(Send("work", b"1"), Send("work", b"2"))
        transport.commit(inbox.take(2), [])
        assert transport.is_connected
        wait_until(lambda: caplog.text.count("a mistake in a callback") >= 2, 5, "the callback to fail twice")

    def test_callback_that_would_wait_for_itself_is_told(
        self, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        transport, inbox = connect(), Inbox()

        def send_within(message: Message) -> None:
            inbox(message)
            transport.send(Send("elsewhere", b""))

        transport.subscribe("work", send_within)
        transport.send(Send("work", b"1"))
        transport.commit([inbox.get()], [])
        wait_until(lambda: "must not call the transport" in caplog.text, 5, "the callback to fail")

    def test_dead_letter_keeps_the_message_and_says_why(self, connect: Connect, namespace: str) -> None:
        transport, inbox, dead = connect(), Inbox(), Inbox()
        transport.subscribe("work", inbox)
        transport.send(Send("work", b"broken", HEADERS, priority=7, expiration=600))
        message = inbox.get()
        trace = "Traceback (most recent call last):\n" + "  a line: of it\n" * 2000 + "ValueError: the end"
        reasons = {"parvis-reason": "it\0is\ud800bad", "parvis-traceback": trace}
        transport.commit([message], [transport.dead_letter(message, reasons)])
        transport.subscribe(f"DLQ.{namespace}.work", dead, absolute=True)
        letter = dead.get()
        assert letter.body == b"broken"
        assert {name: letter.headers[name] for name in HEADERS} == HEADERS
        assert letter.headers["original-destination"].endswith(f"{namespace}.work")
        assert letter.headers["parvis-reason"] == "it\ufffdis?bad"
        assert letter.headers["parvis-traceback"].startswith("Traceback (most recent call last):")
        assert letter.headers["parvis-traceback"].endswith("ValueError: the end")
        assert letter.headers.get("expires", "0") == "0"

    def test_large_message(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        transport.subscribe("work", inbox)
        body = bytes(range(256)) * 32768
        transport.send(Send("work", body))
        message = inbox.get()
        assert message.body == body
        transport.commit([message], [])

    def test_many_threads_use_one_transport(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        transport.subscribe("work", inbox, prefetch=1000)

        def send(name: int) -> None:
            for number in range(25):
                transport.send(Send("work", b"%d %d" % (name, number)))

        threads = [threading.Thread(target=send, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bodies = [message.body for message in inbox.take(200)]
        assert sorted(bodies) == sorted(
            b"%d %d" % (name, number) for name in range(8) for number in range(25)
        )

    def test_transports_in_one_process_are_independent(self, connect: Connect, namespace: str) -> None:
        one, two = connect(), connect(namespace=f"{namespace}-other")
        ones, twos = Inbox(), Inbox()
        one.subscribe("work", ones)
        two.subscribe("work", twos)
        one.send(Send("work", b"one"))
        two.send(Send("work", b"two"))
        first, second = ones.get(), twos.get()
        assert (first.body, second.body) == (b"one", b"two")
        one.commit([first], [Send("work", b"more")])
        one.disconnect()
        two.commit([second], [Send("work", b"again")])
        assert twos.get().body == b"again"

    def test_nothing_to_commit(self, connect: Connect) -> None:
        connect().commit([], [])

    def test_not_connected(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        transport.subscribe("work", inbox)
        transport.send(Send("work", b"1"))
        message = inbox.get()
        transport.disconnect()
        assert not transport.is_connected
        refused: list[Callable[[], Any]] = [
            lambda: transport.commit([message], []),
            lambda: transport.send(Send("work", b"2")),
            lambda: transport.subscribe("work", inbox),
        ]
        for action in refused:
            with pytest.raises(Disconnected):
                action()
        transport.disconnect()

    def test_connects_again_after_disconnecting(self, connect: Connect) -> None:
        transport, inbox = connect(), Inbox()
        with pytest.raises(RuntimeError):
            transport.connect()
        transport.disconnect()
        transport.connect(10)
        transport.subscribe("work", inbox)
        transport.send(Send("work", b"1"))
        transport.commit([inbox.get()], [])
