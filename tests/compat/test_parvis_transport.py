"""Our connection in the form of a transport of `workflows`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

import orjson
import pytest
import workflows
import workflows.transport
from workflows.transport.middleware import CounterMiddleware

from compat.conftest import MakeSite
from inbox import Inbox
from parvis.compat.transport import ParvisTransport
from parvis.transport.base import Send
from running import Listener
from tcp_proxy import TcpProxy
from waiting import wait_until
from zocalo_site import Site

Got = SimpleQueue[tuple[dict[str, Any], Any]]
MakeTransport = Callable[..., Any]


@pytest.fixture
def make(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeTransport]:
    """Makes connected transports, configured by the file of the site."""
    with ExitStack() as stack:

        def made(port: int | None = None) -> ParvisTransport:
            if port is not None:
                site.configure(broker=site.settings["broker"] | {"port": port})
            monkeypatch.setenv("ZOCALO_CONFIG", str(site.configuration))
            transport = ParvisTransport()
            assert transport.connect()
            stack.callback(transport.disconnect)
            return transport

        yield made


def taking(transport: Any, queue: str, **options: Any) -> Got:
    """What comes to a subscription that acknowledges."""
    got: Got = SimpleQueue()
    transport.subscribe(
        queue, lambda *message: got.put(message), **{"acknowledgement": True, "prefetch_count": 10, **options}
    )
    return got


def left_over(site: Site, queue: str) -> set[bytes]:
    """What is in a queue when a mark has passed through it."""
    site.transport.send(Send(queue, b"mark"))
    listener = Listener(site.transport, queue)
    wait_until(lambda: b"mark" in [message.body for message in listener.messages], 10, "the mark")
    return {message.body for message in listener.messages} - {b"mark"}


def test_it_is_announced_and_configured_by_the_file(make: MakeTransport, site: Site) -> None:
    assert workflows.transport.lookup("ParvisTransport") is ParvisTransport
    transport = make()
    assert transport.is_connected()
    assert transport.get_namespace() == site.namespace


@pytest.mark.parametrize("prefetch", [None, 1, 10])
def test_transactions(make: MakeTransport, site: Site, prefetch: int | None) -> None:
    transport = make()
    results = Listener(site.transport, "results")
    got = taking(transport, "work", prefetch_count=prefetch)
    transport.send("work", {"number": 1}, headers={"own": 7})
    header, message = got.get(timeout=10)
    assert (message, header["own"]) == ({"number": 1}, "7")
    for way in ("abort", "commit"):
        transaction = transport.transaction_begin(subscription_id=header["subscription"])
        transport.ack(header, transaction=transaction)
        transport.send("results", way, transaction=transaction, headers={"workflows-recipe": True})
        getattr(transport, f"transaction_{way}")(transaction)
    (only,) = results.wait_for(1)
    assert (only.body, only.headers["workflows-recipe"]) == (b'"commit"', "True")
    transport.disconnect()
    assert left_over(site, "work") == set()


def test_what_is_sent_because_of_a_message_has_the_same_identity_each_time(
    make: MakeTransport, site: Site
) -> None:
    transport = make()
    results = Listener(site.transport, "results")
    got = taking(transport, "work")
    for _ in range(2):  # as after a crash between the two parts of a transaction
        transport.send("work", "again", headers={"parvis-id": "the-same"})
        header, message = got.get(timeout=10)
        transaction = transport.transaction_begin()
        transport.ack(header, transaction=transaction)
        transport.send("results", message, transaction=transaction)
        transport.send("results", message, transaction=transaction)
        transport.transaction_commit(transaction)
    identities = [message.headers["parvis-id"] for message in results.wait_for(4)]
    assert identities[:2] == identities[2:]
    assert len(set(identities)) == 2


def test_what_is_not_acknowledged_comes_again(make: MakeTransport, site: Site) -> None:
    transport = make()
    got = taking(transport, "work")
    for number in range(4):
        transport.send("work", number)
    taken = [got.get(timeout=10) for _ in range(4)]
    transport.ack(taken[2][0])
    transport.ack(taken[0][0]["message-id"], subscription_id=taken[0][0]["subscription"])
    transport.disconnect()
    assert left_over(site, "work") == {b"1", b"3"}


def test_nack_makes_a_dead_letter_with_a_reason(make: MakeTransport, site: Site) -> None:
    dead = Listener(site.transport, f"DLQ.{site.namespace}.work")
    transport = make()
    transport.name = "the tester"
    got = taking(transport, "work")
    transport.raw_send("work", "no JSON {", headers={"own": "kept"})
    header, message = got.get(timeout=10)
    assert message == "no JSON {"
    transport.nack(header)
    (letter,) = dead.wait_for(1)
    assert letter.body == b"no JSON {"
    assert letter.headers["own"] == "kept"
    assert letter.headers["parvis-reason"] == "refused by the tester, which did not say why"
    assert letter.headers["original-destination"] == f"/queue/{site.namespace}.work"


def test_prefetch_is_one_unless_said(make: MakeTransport) -> None:
    transport = make()
    first, second = (taking(transport, "work", prefetch_count=None) for _ in range(2))
    for number in range(4):
        transport.send("work", number)
    header, _ = first.get(timeout=10)
    second.get(timeout=10)
    assert first.empty()
    transport.ack(header)
    first.get(timeout=10)


def test_without_acknowledgement_and_from_within_a_callback(make: MakeTransport, site: Site) -> None:
    results = Listener(site.transport, "results")
    transport = make()

    def forward(header: dict[str, Any], message: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        transport.send("results", message + header["message-id"][:0])

    transport.subscribe("work", forward)
    for word in ("one", "two"):
        transport.send("work", word)
    assert {message.body for message in results.wait_for(2)} == {b'"one"', b'"two"'}
    transport.disconnect()
    assert left_over(site, "work") == set()


def test_broadcasts_temporary_queues_and_unsubscribing(make: MakeTransport) -> None:
    transport = make()
    heard: Got = SimpleQueue()
    transport.subscribe_broadcast("news", lambda *message: heard.put(message))
    transport.broadcast("news", [1])
    assert heard.get(timeout=10)[1] == [1]
    transport.broadcast_status({"host": "here"})
    for hint in (None, "answers", "transient.answers"):
        temporary = transport.subscribe_temporary(hint, lambda *message: heard.put(message))
        assert temporary.queue_name.startswith("transient.")
        assert temporary.queue_name.count("transient.") == 1
        transport.send(temporary.queue_name, hint)
        assert heard.get(timeout=10)[1] == hint
        transport.unsubscribe(temporary.subscription_id, drop_callback_reference=True)
    with pytest.raises(workflows.Error):
        transport.unsubscribe(99)


def test_delay_expiration_raw_text_and_other_namespaces(make: MakeTransport, site: Site) -> None:
    transport = make()
    inbox = Inbox()
    site.transport.subscribe("work", inbox, prefetch=10)
    transport.send("work", "late", delay=0.4)
    transport.send("work", "soon", expiration=60)
    transport.raw_send(f"{site.namespace}.work", "whole name", ignore_namespace=True)
    soon, whole, late = inbox.take(3)
    assert [soon.body, whole.body, late.body] == [b'"soon"', b"whole name", b'"late"']
    assert int(soon.headers["expires"]) > 0
    raw: Got = SimpleQueue()
    transport.subscribe(
        f"{site.namespace}.raw",
        lambda *message: raw.put(message),
        disable_mangling=True,
        ignore_namespace=True,
    )
    transport.send("raw", {"a": 1})
    assert raw.get(timeout=10)[1] == '{"a": 1}'


def test_headers_of_an_earlier_delivery_do_not_stick(make: MakeTransport, site: Site) -> None:
    transport = make()
    inbox = Inbox()
    site.transport.subscribe("there", inbox)
    got = taking(transport, "here")
    transport.send("here", 1, headers={"own": "x", "priority": "7"})
    header, message = got.get(timeout=10)
    transport.send("there", message, headers=header)
    moved = inbox.get()
    assert (moved.body, moved.headers["own"], moved.headers["priority"]) == (b"1", "x", "7")
    assert moved.destination == "there"


def test_middleware_and_two_transports_in_one_process(make: MakeTransport) -> None:
    one, other = make(), make()
    counter = CounterMiddleware()
    one.add_middleware(counter)  # pyright: ignore[reportArgumentType] - workflows says type and means instance
    first, second = taking(one, "one"), taking(other, "other")
    one.send("other", "to the other")
    other.send("one", "to the one")
    header, message = first.get(timeout=10)
    assert message == "to the one"
    assert second.get(timeout=10)[1] == "to the other"
    transaction = one.transaction_begin()
    other.transaction_begin()
    one.ack(header, transaction=transaction)
    one.transaction_commit(transaction)
    assert (counter.subscribe_count, counter.send_count, counter.ack_count) == (1, 1, 1)


def test_a_lost_connection(make: MakeTransport, site: Site) -> None:
    proxy = TcpProxy(site.settings["broker"]["port"])
    results = Listener(site.transport, "results")
    transport = make(proxy.port)
    got = taking(transport, "work", prefetch_count=1)
    transport.send("work", "a")
    header, _ = got.get(timeout=10)
    transaction = transport.transaction_begin()
    transport.ack(header, transaction=transaction)
    transport.send("results", "void", transaction=transaction)
    proxy.cut()
    again, message = got.get(timeout=20)
    assert message == "a"
    assert transport.is_connected()
    if again["message-id"] != header["message-id"]:
        transport.transaction_commit(transaction)
    else:
        transport.transaction_abort(transaction)
    transport.ack(again)
    transport.send("results", "good")
    assert results.wait_for(1)[-1].body == b'"good"'
    proxy.close()


def test_nobody_there(small_site: Site) -> None:
    run = small_site.run("zocalo.shutdown", "-t", "ParvisTransport", "-e", "cut-off", "vm.1")
    assert run.returncode == 1
    assert "127.0.0.1:1" in run.stderr


def test_a_refused_subscription_is_an_error(make: MakeTransport) -> None:
    transport = make()
    with pytest.raises((workflows.Error, workflows.Disconnected, ValueError)):
        transport.subscribe("not a name", print)


def test_stock_service_on_our_connection(make_site: MakeSite) -> None:
    site = make_site("ParvisTransport")
    results = Listener(site.transport, "results")
    proxy = TcpProxy(site.settings["broker"]["port"])
    site.configure(broker=site.settings["broker"] | {"port": proxy.port})
    recipe = {
        "1": {"queue": "site.patient", "output": {"done": 2}},
        "2": {"queue": "results"},
        "start": [[1, []]],
    }
    with site.running("zocalo.service", "-s", "Patient", ready="Patient") as patient:
        site.start(recipe, {})
        proxy.cut()
        body = orjson.loads(results.wait_for(1, timeout=30)[0].body)
        assert body["payload"] == {"looked": 3}
        assert body["recipe-path"] == [1]
        assert patient.process.poll() is None
    proxy.close()
