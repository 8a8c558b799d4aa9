"""The AMQP transport with RabbitMQ."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from connecting import connecting
from inbox import Inbox
from parvis.transport.amqp_messages import delay_arguments, delay_milliseconds
from parvis.transport.base import BrokerRefused, Message, NoConnection, NotAdmitted, Send, Transport
from real.daemon import free_ports
from real.rabbitmq.vhost import VirtualHost
from tcp_proxy import TcpProxy
from transport.contract import HEADERS, Connect, TransportContract
from waiting import wait_until

pytestmark = pytest.mark.real("rabbitmq")


# What a test of the battery sends to, or sends to before it listens
OTHER_QUEUES = {
    "test_message_arrives_as_sent": ("work.in",),
    "test_transaction_acknowledges_and_sends": ("results", "more"),
    "test_transaction_spans_subscriptions": ("left", "right"),
    "test_request_and_reply_by_temporary_queue": ("requests",),
    "test_transports_in_one_process_are_independent": ("-other.work",),
    "test_exclusive_consumer_gets_everything": (),  # a queue with a single active consumer is made so
}


@pytest.fixture
def broker(vhost: VirtualHost) -> VirtualHost:
    """The broker of the battery."""
    return vhost


@pytest.fixture
def proxy(vhost: VirtualHost) -> Iterator[TcpProxy]:
    """A way to the broker that can be cut."""
    with closing(TcpProxy(vhost.server.port)) as proxy:
        yield proxy


@pytest.fixture
def namespace() -> str:
    """Names are taken as they are, as `workflows` does on RabbitMQ."""
    return ""


@pytest.fixture
def connect(vhost: VirtualHost) -> Iterator[Connect]:
    """Makes transports that are connected, until the end of the test."""
    with connecting(vhost.transport) as connect:
        yield connect


class TestAmqpTransport(TransportContract):
    """What every transport does; a queue must be there before something is sent to it."""

    @pytest.fixture(autouse=True)
    def _queues(self, vhost: VirtualHost, request: pytest.FixtureRequest) -> None:
        vhost.make_queues(*OTHER_QUEUES.get(request.node.originalname, ()))
        if "priority" in request.node.name:  # quorum queues have no priorities
            arguments = {"x-queue-type": "classic", "x-max-priority": 9}
            vhost.api("PUT", "queues", "priority", {"durable": True, "arguments": arguments})
        if "exclusive" not in request.node.name:
            vhost.make_queues("work")

    def test_selector_chooses(self, connect: Connect) -> None:
        with pytest.raises(ValueError, match="RabbitMQ has no selectors"):
            connect().subscribe("work", Inbox(), selector="beamline = 'i03'")

    def test_dead_letter_keeps_the_message_and_says_why(
        self,
        connect: Connect,
        namespace: str,  # noqa: ARG002 - as the battery has it
    ) -> None:
        transport, inbox, dead = connect(), Inbox(), Inbox()
        transport.subscribe("work", inbox)
        transport.send(Send("work", b"broken", HEADERS, priority=7, expiration=600))
        message = inbox.get()
        reasons = {
            "parvis-reason": "it\0is\ud800bad",
            "parvis-traceback": "a line: of it\n" * 2000 + "the end",
        }
        transport.commit([message], [transport.dead_letter(message, reasons)])
        transport.subscribe("dlq.work", dead, absolute=True)
        letter = dead.get()
        assert letter.body == b"broken"
        assert {name: letter.headers[name] for name in HEADERS} == HEADERS
        assert letter.headers["original-destination"] == "work"
        assert letter.headers["parvis-reason"] == "it\ufffdis?bad"
        assert letter.headers["parvis-traceback"].endswith("the end")
        assert letter.headers.get("expires", "0") == "0"
        assert json.loads(letter.headers["x-death"])[0]["queue"] == "work"


def test_workflows_recipe_header_is_a_bool_on_the_wire(vhost: VirtualHost, connect: Connect) -> None:
    transport = connect()
    vhost.make_queues("work")
    transport.send(Send("work", b"{}", {"workflows-recipe": "True", "parvis-id": "abc"}))
    message = vhost.take_one("work")
    assert message["properties"]["headers"]["workflows-recipe"] is True
    assert message["properties"]["message_id"] == "abc"
    assert message["properties"]["delivery_mode"] == 2


def test_message_nobody_takes_is_refused_and_the_rest_of_it_comes_again(
    vhost: VirtualHost, connect: Connect
) -> None:
    transport, inbox = connect(), Inbox()
    vhost.make_queues("work", "results")
    with pytest.raises(
        BrokerRefused, match="there is no queue nowhere; `parvis rabbitmq configure` makes it"
    ):
        transport.send(Send("nowhere", b"lost?"))
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"job"))
    with pytest.raises(BrokerRefused, match="no queue nowhere"):
        transport.commit([inbox.get()], [Send("results", b"result"), Send("nowhere", b"more")])
    again = inbox.get()
    assert again.body == b"job"
    assert again.redelivered
    assert again.message_id == inbox.messages[0].message_id
    transport.commit([again], [Send("results", b"result")])
    assert transport.is_connected


def test_delayed_message_to_a_missing_queue_is_refused(connect: Connect) -> None:
    with pytest.raises(BrokerRefused, match="there is no queue nowhere"):
        connect().send(Send("nowhere", b"lost?", delay=0.1))


def test_missing_queue_is_made_with_its_dead_letters(vhost: VirtualHost, connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    transport.subscribe("new", inbox, prefetch=3)
    arguments = vhost.queue("new")["arguments"]
    assert arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "dlq.new",
        "x-delivery-limit": 20,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    assert vhost.queue("dlq.new")["arguments"] == {"x-queue-type": "quorum"}


def test_queue_of_the_administrator_is_taken_as_it_is(vhost: VirtualHost, connect: Connect) -> None:
    vhost.api("PUT", "queues", "theirs", {"durable": True, "arguments": {"x-queue-type": "classic"}})
    transport, inbox = connect(), Inbox()
    transport.subscribe("theirs", inbox)
    transport.send(Send("theirs", b"1"))
    assert inbox.get().body == b"1"


def test_refused_message_goes_to_the_dead_letters(connect: Connect) -> None:
    transport, inbox, dead = connect(), Inbox(), Inbox()
    transport.subscribe("work", inbox)
    transport.subscribe("dlq.work", dead)
    transport.send(Send("work", b"poison"))
    transport.refuse(inbox.get())
    letter = dead.get()
    assert letter.body == b"poison"
    assert json.loads(letter.headers["x-death"])[0]["reason"] == "rejected"


def test_broker_counts_deliveries_and_sets_aside(connect: Connect) -> None:
    transport, inbox, dead = connect(), Inbox(), Inbox()
    transport.subscribe("work", inbox)
    transport.subscribe("dlq.work", dead)
    transport.send(Send("work", b"poison"))
    for number in range(21):
        message = inbox.get()
        assert message.headers.get("x-delivery-count", "0") == str(number)
        with pytest.raises(BrokerRefused):
            transport.commit([message], [Send("nowhere", b"")])
    assert json.loads(dead.get().headers["x-death"])[0]["reason"] == "delivery_limit"


def test_dead_letter_queue_is_made_when_it_is_needed(vhost: VirtualHost, connect: Connect) -> None:
    vhost.api("PUT", "queues", "theirs", {"durable": True, "arguments": {"x-queue-type": "quorum"}})
    transport, inbox, dead = connect(), Inbox(), Inbox()
    transport.subscribe("theirs", inbox)
    transport.send(Send("theirs", b"poison"))
    message = inbox.get()
    transport.commit([message], [transport.dead_letter(message, {"parvis-reason": "it is bad"})])
    transport.subscribe("dlq.theirs", dead)
    assert dead.get().headers["parvis-reason"] == "it is bad"


def test_delay_whose_making_was_cut_off_is_made_whole(vhost: VirtualHost, connect: Connect) -> None:
    vhost.api("PUT", "exchanges", "parvis.delay.100", {"type": "fanout", "durable": True})
    arguments = delay_arguments(100)
    vhost.api("PUT", "queues", "parvis.delay.100", {"durable": True, "arguments": arguments})
    transport, inbox = connect(), Inbox()
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"later", delay=0.1))
    assert inbox.get().body == b"later"


def test_message_that_expires_during_its_delay_is_a_dead_letter(connect: Connect) -> None:
    transport, inbox, dead = connect(), Inbox(), Inbox()
    transport.subscribe("work", inbox)
    transport.subscribe("dlq.work", dead)
    transport.send(Send("work", b"stale", delay=0.2, expiration=0.1), Send("work", b"fresh", delay=0.2))
    assert inbox.get().body == b"fresh"
    assert dead.get().body == b"stale"


def test_delayed_broadcast(connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    transport.subscribe_broadcast("news", inbox)
    transport.send(Send("news", b"later", kind="topic", delay=0.1))
    assert inbox.get().body == b"later"


def test_topic_of_one_listener_leaves_nothing_behind(vhost: VirtualHost, connect: Connect) -> None:
    topic = f"transient.go.{uuid.uuid4()}"
    sender, listener, inbox = connect(), connect(), Inbox()
    exchanges = len(vhost.api("GET", "exchanges"))
    listener.subscribe_broadcast(topic, inbox)
    sender.send(Send(topic, b"result", kind="topic"))
    message = inbox.get()
    assert (message.body, message.destination) == (b"result", topic)
    listener.disconnect()
    sender.send(Send(topic, b"nobody is there", kind="topic"))
    assert sender.is_connected
    wait_until(lambda: len(vhost.api("GET", "exchanges")) == exchanges, 10, "the exchange to go")


@pytest.mark.parametrize(
    ("delay", "milliseconds"),
    [(0.0004, 1), (0.7, 700), (1.234, 1300), (2, 2000), (299.1, 300_000), (864_000, 870_000_000)],
)
def test_delays_are_rounded_up_to_two_digits(delay: float, milliseconds: int) -> None:
    assert delay_milliseconds(delay) == milliseconds


def test_temporary_queue_outlives_a_cut_connection(
    vhost: VirtualHost, connect: Connect, proxy: TcpProxy
) -> None:
    client, server, replies = connect(port=proxy.port), connect(), Inbox()
    _, queue = client.subscribe_temporary("answers", replies)
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: not client.is_connected, 10, "the loss to be noticed")
    server.send(Send(queue, b"answer"))
    proxy.refuse(False)
    assert replies.get().body == b"answer"


def test_second_exclusive_consumer_of_a_classic_queue_waits(vhost: VirtualHost, connect: Connect) -> None:
    vhost.api("PUT", "queues", "one", {"durable": True, "arguments": {"x-queue-type": "classic"}})
    first, second = connect(), connect()
    ones, twos = Inbox(), Inbox()
    first.subscribe("one", ones, exclusive=True)
    second.subscribe("one", twos, exclusive=True)
    first.send(Send("one", b"1"))
    first.commit([ones.get()], [])
    first.disconnect()
    second.send(Send("one", b"2"))
    assert twos.get().body == b"2"


def test_deleted_queue_is_listened_to_again(vhost: VirtualHost, connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    transport.subscribe("work", inbox)
    vhost.api("DELETE", "queues", "work")
    wait_until(lambda: _is_sent(transport, Send("work", b"1")), 10, "the queue to be made again")
    transport.commit([inbox.get()], [])


def test_individual_messages_are_acknowledged_in_any_order(connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    transport.subscribe("work", inbox, prefetch=3, individual=True)
    transport.send(*(Send("work", b"%d" % number) for number in range(3)))
    first, second, third = inbox.take(3)
    transport.commit([third], [])
    with pytest.raises(ValueError, match="only once"):
        transport.commit([third], [])
    transport.commit([first], [Send("work", b"instead")])
    transport.disconnect()
    transport.connect(10)
    rest = Inbox()
    transport.subscribe("work", rest, prefetch=5)
    assert sorted(message.body for message in rest.take(2)) == [second.body, b"instead"]


def test_begun_transactions_are_confirmed_in_any_order(connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    transport.subscribe("work", inbox, prefetch=100)
    pending = [transport.begin([], [Send("work", b"%d" % number)]) for number in range(50)]
    for one in reversed(pending):
        one.wait(10)
    assert len({message.message_id for message in inbox.take(50)}) == 50


def test_who_drives_is_given_messages_and_answers_on_its_own_thread(
    vhost: VirtualHost, connect: Connect
) -> None:
    vhost.make_queues("other")
    transport, sender, inbox = connect(), connect(), Inbox()
    threads: list[int] = []

    def take(message: Message) -> None:
        threads.append(threading.get_ident())
        inbox(message)

    transport.subscribe("work", take, prefetch=1)
    assert transport.drive(0, lambda: False)
    for number in range(100):
        sender.send(Send("work", b"%d" % number))
        assert transport.drive(10, lambda: len(inbox.messages) > number)  # noqa: B023
        transport.commit([inbox.get()], [Send("other", b"")])
    assert threads.count(threading.get_ident()) > 90
    sender.send(Send("work", b"while nobody drives"))
    transport.commit([inbox.get()], [])
    transport.disconnect()
    assert not transport.drive(1, lambda: False)


@pytest.mark.parametrize("headers", [{"destination": "/queue/x"}, {"long": "x" * 200_000}, {"k" * 300: "x"}])
def test_headers_that_cannot_be(connect: Connect, headers: dict[str, str]) -> None:
    transport = connect()
    with pytest.raises(ValueError, match="header"):
        transport.send(Send("work", b"", headers))
    assert transport.is_connected


def test_foreign_message_without_properties(vhost: VirtualHost, connect: Connect) -> None:
    transport, inbox = connect(), Inbox()
    transport.subscribe("work", inbox)
    vhost.publish("work", b"bare", {})
    message = inbox.get()
    assert message.body == b"bare"
    assert message.message_id


def test_foreign_messages_without_identifier_are_told_apart_by_whoever_takes_them(
    vhost: VirtualHost, connect: Connect
) -> None:
    """Else a second process would take the first message that it gets for one that was handled before."""
    identifiers: set[str] = set()
    for _ in range(3):
        transport, inbox = connect(), Inbox()
        transport.subscribe("work", inbox)
        vhost.publish("work", b"bare", {})
        message = inbox.get()
        identifiers.add(message.message_id)
        transport.commit([message], [])
        transport.disconnect()
    assert len(identifiers) == 3


class TestLogin:
    """What is wrong is said in one line, within the time-out, and without the password."""

    def test_wrong_password(self, connect: Connect) -> None:
        with pytest.raises(NotAdmitted, match="refused the log-in of 'parvis'") as caught:
            connect(password="sesame-open")
        assert "sesame" not in str(caught.value)

    def test_wrong_virtual_host(self, connect: Connect) -> None:
        with pytest.raises(NotAdmitted, match="virtual host 'nowhere'"):
            connect(vhost="nowhere")

    def test_nobody_there(self, vhost: VirtualHost) -> None:
        port = free_ports(1)[0]
        transport = vhost.transport(port=port)
        with pytest.raises(NoConnection, match=f"127.0.0.1:{port} cannot be reached"):
            transport.connect(0.3)
        assert not transport.is_connected

    def test_no_such_host(self, vhost: VirtualHost) -> None:
        with pytest.raises(NotAdmitted, match="there is no host"):
            vhost.transport(hosts=[("no-such-host.invalid", 5672)]).connect(10)
        with pytest.raises(NotAdmitted, match="no name of a host"):
            vhost.transport(hosts=[("x" * 70, 5672)]).connect(10)

    def test_another_kind_of_server(self, vhost: VirtualHost) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            threading.Thread(target=_answer, args=(server, b"HTTP/1.1 400 Bad Request\r\n\r\n")).start()
            with pytest.raises(NotAdmitted, match=f"{port} does not speak AMQP 0-9-1"):
                vhost.transport(port=port).connect(10)

    def test_tls(self, vhost: VirtualHost, connect: Connect) -> None:
        transport = connect(port=vhost.server.tls_port, tls=_authority(vhost))
        inbox = Inbox()
        transport.subscribe("work", inbox)
        body = bytes(range(256)) * 4096
        transport.send(Send("work", body))
        assert inbox.get().body == body

    def test_tls_where_there_is_none(self, vhost: VirtualHost) -> None:
        with pytest.raises((NotAdmitted, NoConnection), match=r"TLS|closed|reached"):
            vhost.transport(tls=_authority(vhost)).connect(3)

    def test_no_tls_where_there_is(self, vhost: VirtualHost) -> None:
        with pytest.raises((NotAdmitted, NoConnection), match="TLS"):
            vhost.transport(port=vhost.server.tls_port).connect(3)

    def test_certificate_of_somebody_else(self, vhost: VirtualHost) -> None:
        with pytest.raises(NotAdmitted, match="certificate"):
            vhost.transport(port=vhost.server.tls_port, tls=ssl.create_default_context()).connect(10)

    def test_second_host_is_taken(self, vhost: VirtualHost, connect: Connect) -> None:
        hosts = [(vhost.server.host, port) for port in (*free_ports(3), vhost.server.port)]
        assert connect(hosts=hosts).is_connected


def test_user_who_may_make_nothing_is_told(vhost: VirtualHost, connect: Connect) -> None:
    vhost.server.api("PUT", "users/reader", {"password": "secret", "tags": ""})
    rights = {"configure": "", "write": ".*", "read": ".*"}
    vhost.api("PUT", "permissions", "reader", rights)
    transport = connect(username="reader", password="secret")
    with pytest.raises(BrokerRefused, match=r"there is no queue .*work, and it cannot be made.*configure"):
        transport.subscribe("work", Inbox())
    vhost.make_queues("work")
    inbox = Inbox()
    transport.subscribe("work", inbox)
    transport.send(Send("work", b"1"))
    assert inbox.get().body == b"1"


def _answer(server: socket.socket, text: bytes) -> None:
    with server.accept()[0] as connection:
        connection.sendall(text)


def _is_sent(transport: Transport, send: Send) -> bool:
    try:
        transport.send(send)
    except BrokerRefused:
        return False
    return True


def _authority(vhost: VirtualHost) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(vhost.server.ca_file))
