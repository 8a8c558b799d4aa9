"""The sweeper: what kills consumers is set aside, and nothing else, whoever wrote the consumers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from parvis.config import Config, ConfigError, StompSettings
from parvis.observe.hops import QUEUE, read_hops
from parvis.service.base import AnyService
from parvis.service.host import Host
from parvis.service.observer import Observer
from parvis.service.registry import load_service
from parvis.transport.base import Message, Send, Transport
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.operate.sweeper import Judge, Sweeper
from raw_stomp import RawClient
from real.rabbitmq.vhost import VirtualHost
from running import Listener, in_thread, recipe_message
from waiting import wait_until

LIMIT = 3  # deliveries; the default of 5 only takes longer


@pytest.fixture(params=["embedded", pytest.param("activemq", marks=pytest.mark.real("activemq"))])
def stomp(request: pytest.FixtureRequest) -> Iterator[StompSettings]:
    """A broker, and a namespace that nobody else has."""
    if request.param == "embedded":
        with BrokerThread(port=0) as broker:
            yield StompSettings("127.0.0.1", broker.port, "", "", "sweep")
    else:
        real = request.getfixturevalue("activemq")
        prefix = f"sweep-{os.getpid()}-{abs(hash(request.node.name))}"
        yield StompSettings(real.host, real.port, real.username, real.password, prefix)


@pytest.fixture
def transport(stomp: StompSettings) -> Iterator[StompTransport]:
    connected = transport_for(stomp)
    connected.connect()
    yield connected
    connected.disconnect()


def transport_for(stomp: StompSettings) -> StompTransport:
    return StompTransport(stomp.hosts, stomp.username, stomp.password, stomp.prefix)


class Ready(Observer):
    """Knows when services have started."""

    def __init__(self) -> None:
        self.is_ready = threading.Event()

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:  # noqa: ARG002
        self.is_ready.set()


@contextlib.contextmanager
def sweeping(stomp: StompSettings, **storage: Any) -> Generator[None]:
    """A sweeper that is at work while the context lasts."""
    config = Config(stomp=stomp, storage={"parvis.sweeper.deliveries": LIMIT} | storage)
    ready = Ready()
    with in_thread(Host(transport_for(stomp), [Sweeper(config)], observers=[ready])):
        assert ready.is_ready.wait(10)
        yield


def die_of(stomp: StompSettings, queue: str, prefetch: int) -> None:
    """Be a consumer that goes away without a word once it was handed `prefetch` messages."""
    taken: list[Message] = []
    consumer = transport_for(stomp)
    consumer.connect()
    consumer.subscribe(queue, taken.append, prefetch=prefetch)
    wait_until(lambda: len(taken) == prefetch, 10, "messages to die of")
    consumer.disconnect()


def test_poison_of_a_workflows_service_is_set_aside(stomp: StompSettings, transport: StompTransport):
    results = Listener(transport, "results")
    dead = Listener(transport, f"DLQ.{stomp.prefix}.site.fragile")
    innocents = [recipe_message("site.fragile", {"number": number}) for number in range(20)]
    poison = recipe_message("site.fragile", {"die": True})
    transport.send(*innocents[:5], poison, *innocents[5:])
    peer = subprocess.Popen([sys.executable, "-c", RUN_FRAGILE, *login(stomp)], start_new_session=True)
    try:
        with sweeping(stomp):
            (letter,) = dead.wait_for(1, timeout=60)
            results.wait_for(20, timeout=60)
            transport.send(recipe_message("site.fragile", {"number": 20}))  # the service is well again
            results.wait_for(21)
    finally:
        os.killpg(peer.pid, signal.SIGKILL)
        peer.wait()
    assert letter.body == poison.body
    assert len(dead.messages) == 1
    assert sorted(payload["number"] for payload in results.payloads()) == list(range(21))
    assert letter.headers["note"] == "kept"
    assert letter.headers["parvis-reason"].endswith("its consumers died, or went away without a word")
    assert letter.headers["parvis-result"] == "the process that handled it died, again and again"
    assert letter.headers["parvis-service"] == "Sweeper"
    assert int(letter.headers["parvis-tries"]) >= LIMIT
    assert letter.headers["original-destination"] == f"/queue/{stomp.prefix}.site.fragile"
    assert {"parvis-host", "parvis-time", "parvis-id", "parvis-route"} <= letter.headers.keys()


def login(stomp: StompSettings) -> list[str]:
    return [stomp.host, str(stomp.port), stomp.username, stomp.password, stomp.prefix]


# As `zocalo.service --restart` runs a service; like all of them it is handed 1000 messages in advance.
RUN_FRAGILE = """
import sys
from workflows.frontend import Frontend
from workflows.transport.stomp_transport import StompTransport
from workflows_services import Fragile
for name, value in zip(("host", "port", "user", "pass", "prfx"), sys.argv[1:], strict=True):
    StompTransport.defaults[f"--stomp-{name}"] = int(value) if name == "port" else value
Frontend(transport=StompTransport, service=Fragile, restart_service=True, environment={}).run()
"""


def test_innocents_that_were_lost_with_it_are_handled(stomp: StompSettings, transport: StompTransport):
    for number in range(5):
        transport.send(Send("work", str(number).encode(), {"parvis-id": f"message-{number}"}))
    for _ in range(LIMIT):
        die_of(stomp, "work", 5)
    with sweeping(stomp):
        work = Listener(transport, "work")
        assert [message.body for message in work.wait_for(5)] == [b"4", b"3", b"2", b"1", b"0"]
    assert [message.headers["parvis-id"] for message in work.messages] == [
        f"message-{number}" for number in (4, 3, 2, 1, 0)
    ]
    assert not any(message.redelivered for message in work.messages)


def test_those_lost_together_come_together_though_others_wait(
    stomp: StompSettings, transport: StompTransport
):
    transport.send(Send("work", b"0"), Send("work", b"1"))
    for _ in range(LIMIT - 1):
        die_of(stomp, "work", 2)
    with sweeping(stomp), contextlib.ExitStack() as stack:
        taken: list[Message] = []
        dying = transport_for(stomp)
        dying.connect()
        stack.callback(dying.disconnect)
        dying.subscribe("work", taken.append, prefetch=2)
        wait_until(lambda: len(taken) == 2, 10, "messages to die of")
        work = Listener(transport, "work")
        dying.disconnect()
        work.wait_for(2)
    assert all("parvis_renewed" in message.headers for message in work.messages)


def test_what_is_handed_out_seldom_enough_is_left_alone(stomp: StompSettings, transport: StompTransport):
    transport.send(Send("work", b"redelivered"), Send("work", b"new"))
    die_of(stomp, "work", 1)
    with sweeping(stomp):
        dead = Listener(transport, f"DLQ.{stomp.prefix}.other")
        transport.send(Send("other", b"poison"))
        for _ in range(LIMIT):
            die_of(stomp, "other", 1)
        dead.wait_for(1)  # so the sweeper is at work
        work = Listener(transport, "work")
        assert [message.body for message in work.wait_for(2)] == [b"redelivered", b"new"]
    assert work.messages[0].redelivered


def raw(stomp: StompSettings) -> RawClient:
    """A client that may send anywhere."""
    if not stomp.username:
        return RawClient(stomp.port)
    return RawClient(stomp.port, login=stomp.username, passcode=stomp.password)


def test_queue_with_a_strange_name_does_not_stop_it(stomp: StompSettings, transport: StompTransport):
    strange, plain = f"/queue/{stomp.prefix}.strange name", f"/queue/{stomp.prefix}.plain"
    with raw(stomp) as client:
        for queue in (strange, plain):
            client.send(queue, b"poison", persistent="true")
    for _ in range(LIMIT):
        with raw(stomp) as client:
            client.subscribe(strange, "client", "1")
            client.subscribe(plain, "client", "2")
            client.message()
            client.message()
    with sweeping(stomp), raw(stomp) as client:
        client.subscribe(f"/queue/DLQ.{stomp.prefix}.strange name")
        assert client.message().body == b"poison"
        work = Listener(transport, "plain")
        (message,) = work.wait_for(1)
    assert "parvis_renewed" in message.headers


def test_message_that_the_broker_takes_from_nobody_does_not_stop_it(
    stomp: StompSettings, transport: StompTransport, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("parvis_services.operate.sweeper._PAUSE", 0.1)
    crowded = {f"header-{number}": "" for number in range(396)}  # four more, and embedded takes it no longer
    with raw(stomp) as client:
        client.send(f"/queue/{stomp.prefix}.crowded", b"poison", **crowded)
    for _ in range(LIMIT):
        die_of(stomp, "crowded", 1)
    letters = Listener(transport, f"DLQ.{stomp.prefix}.crowded")
    with sweeping(stomp):
        letters.wait_for(1)


def test_only_the_queues_that_are_named_are_swept(stomp: StompSettings, transport: StompTransport):
    for queue in ("ours.work", "theirs.work"):
        transport.send(Send(queue, b"poison"))
        for _ in range(LIMIT):
            die_of(stomp, queue, 1)
    ours = Listener(transport, f"DLQ.{stomp.prefix}.ours.work")
    theirs = Listener(transport, f"DLQ.{stomp.prefix}.theirs.work")
    with sweeping(stomp, **{"parvis.sweeper.queues": ["ours.>"]}):
        ours.wait_for(1)
        left = Listener(transport, "theirs.work")
        left.wait_for(1)
    assert theirs.messages == []


def delivery(body: str, **headers: str) -> Message:
    return Message("work", body.encode(), headers, body, 1, redelivered=True)


def test_what_is_set_aside_is_reported(stomp: StompSettings, transport: StompTransport):
    reports = Listener(transport, QUEUE)
    transport.send(recipe_message("site.fragile", {}))
    for _ in range(LIMIT):
        die_of(stomp, "site.fragile", 1)
    with sweeping(stomp, **{"parvis.records.hops": True}):
        (report,) = reports.wait_for(1)
    (hop,) = read_hops(report.body).hops
    assert (hop.recipe_id, hop.node, hop.result, hop.service) == ("test-recipe", 1, "crash", "Sweeper")
    assert [sent.kind for sent in hop.sent] == ["dead_letter"]
    assert f"delivered {LIMIT} times" in hop.reason or f"at least {LIMIT} times" in hop.reason


def test_what_comes_alone_is_guilty():
    judge, message = Judge(), delivery("a")
    assert judge.guilty([message], 1000) is message
    assert judge.guilty([replace(message, destination="elsewhere")], 1001) is not None


def test_what_comes_together_gets_a_new_start_and_what_then_comes_again_is_guilty():
    judge = Judge()
    assert judge.guilty([delivery("a"), delivery("b")], 1000) is None
    again = delivery("b", parvis_renewed="6")
    assert judge.guilty([delivery("c"), again], 1005) is again


def test_what_comes_soon_after_gets_a_new_start():
    judge = Judge()
    judge.guilty([delivery("a")], 1000)
    assert judge.guilty([delivery("b")], 1300) is None
    assert judge.guilty([delivery("c")], 1901) is not None


def test_sweeper_takes_no_messages_itself(stomp: StompSettings, transport: StompTransport):
    dead = Listener(transport, f"DLQ.{stomp.prefix}.sweeper")
    with sweeping(stomp):
        transport.send(Send("sweeper", b"{}"))
        (letter,) = dead.wait_for(1)
    assert (
        letter.headers["parvis-reason"]
        == "the sweeper takes no messages; it looks after those in other queues"
    )


@pytest.mark.real("rabbitmq")
def test_on_rabbitmq_there_is_nothing_to_do(vhost: VirtualHost, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    sweeper = Sweeper(Config.load(overrides=vhost.environment()))
    sweeper.start()
    sweeper.stop()
    assert caplog.messages == [
        "nothing to do: this broker sets aside by itself what it has delivered too often"
    ]


@pytest.mark.parametrize(
    ("storage", "problem"),
    [
        ({"parvis.sweeper.queues": "all"}, r"parvis\.sweeper\.queues must be a list"),
        ({"parvis.sweeper.queues": []}, r"parvis\.sweeper\.queues must be a list"),
        ({"parvis.sweeper.queues": ["a b"]}, r"parvis\.sweeper\.queues: 'a b' cannot name a queue"),
        ({"parvis.sweeper.deliveries": 2}, r"must be a number from 3 to 1000, it is '2'"),
        ({"parvis.sweeper.deliveries": "many"}, r"must be a number from 3 to 1000, it is 'many'"),
    ],
)
def test_wrong_settings_are_told(storage: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        Sweeper(Config(storage=storage))


def test_it_can_be_run_by_name():
    assert load_service("Sweeper") is Sweeper
