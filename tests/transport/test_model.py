"""Transport and broker against a model, with real sockets: every message is in exactly one place.

Several clients send, take, acknowledge and vanish; connections are cut, also in the middle of a transaction,
and the broker is restarted and killed. A model says what must have become of every message. The embedded
broker keeps most of them in its journal only, as its memory is set small.

`PARVIS_MODEL=long pytest tests/transport/test_model.py` tries much more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parvis.transport.base import Disconnected, Message, Send
from parvis.transport.embedded import BrokerThread, Settings
from parvis.transport.stomp import StompTransport
from raw_stomp import RawClient
from tcp_proxy import TcpProxy
from waiting import wait_until

QUEUES = ["a", "b"]
PATIENCE = 8
PICK = st.integers(0, 1000)


@dataclass(eq=False)
class Item:
    """A message as the model knows it.

    Attributes:
        sure: it was seen with a consumer that did not acknowledge it: it must come marked.
        perhaps: it may have been on its way to one: it may come marked.
    """

    name: int
    queue: str
    priority: int
    persistent: bool
    holder: Subscription | None = None
    sure: bool = False
    perhaps: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """Its place in its queue."""
        return -self.priority, self.name

    @property
    def body(self) -> bytes:
        return f"{self.name} ".encode() * 300

    def send(self) -> Send:
        headers = {"name": str(self.name)}
        return Send(self.queue, self.body, headers, priority=self.priority, persistent=self.persistent)


@dataclass(eq=False)
class Subscription:
    queue: str
    prefetch: int
    number: int = 0
    active: bool = True
    held: list[tuple[Item, Message]] = field(default_factory=list[tuple[Item, Message]])


class Client:
    """A transport that reaches the broker through a proxy, which can be cut."""

    def __init__(self, port: int) -> None:
        self.proxy = TcpProxy(port)
        self.transport = StompTransport([("127.0.0.1", self.proxy.port)], "", "", "", heartbeat=0)
        self.transport.connect(PATIENCE)
        self.connection = self.transport.connection
        self.subscriptions: list[Subscription] = []
        self.arrived: list[tuple[Subscription, Message]] = []

    def subscribe(self, queue: str, prefetch: int) -> None:
        subscription = Subscription(queue, prefetch)
        self.subscriptions.append(subscription)
        take = partial(self._take, subscription)
        subscription.number = self.transport.subscribe(queue, take, prefetch=prefetch)

    def _take(self, subscription: Subscription, message: Message) -> None:
        self.arrived.append((subscription, message))

    def wait_for_connection(self) -> None:
        """Return when it has another connection, and its subscriptions on it."""
        there = lambda: self.transport.is_connected and self.transport.connection > self.connection  # noqa: E731
        wait_until(there, PATIENCE, "a new connection")
        self.transport.send(Send("barrier", b"", persistent=False))
        self.connection = self.transport.connection

    def close(self) -> None:
        self.transport.disconnect()
        self.proxy.close()


class Model(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.journals = 0
        self.items: dict[int, Item] = {}
        self.names = self.names_before = 0
        self.clients: list[Client] = []
        self.new: list[tuple[Subscription, Item]] = []
        self.broker = self.open()
        for _ in range(2):
            self.connect()
            self.clients[-1].subscribe(QUEUES[0], 2)

    def open(self, port: int = 0) -> BrokerThread:
        options = Settings(journal=self.journal, memory_limit=300_000)
        broker = BrokerThread(port, options)
        broker.start()
        return broker

    @property
    def journal(self) -> Path:
        return Path(self.directory.name) / f"{self.journals}.db"

    # What clients do

    @precondition(lambda self: len(self.clients) < 3)
    @rule()
    def connect(self) -> None:
        self.clients.append(Client(self.broker.port))

    @rule(who=PICK, queue=st.sampled_from(QUEUES), prefetch=st.integers(1, 3))
    def subscribe(self, who: int, queue: str, prefetch: int) -> None:
        client = self.client(who)
        if len(client.subscriptions) < 3:
            client.subscribe(queue, prefetch)

    @rule(who=PICK, which=PICK)
    def unsubscribe(self, who: int, which: int) -> None:
        client = self.client(who)
        if client.subscriptions:
            subscription = client.subscriptions.pop(which % len(client.subscriptions))
            subscription.active = False
            self.give_back(subscription)
            client.transport.unsubscribe(subscription.number)

    @rule(
        who=PICK,
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from([4, 4, 9]),
        persistent=st.sampled_from([True, True, True, False]),
        number=st.integers(1, 8),
    )
    def send(self, who: int, queue: str, priority: int, persistent: bool, number: int) -> None:
        items = [self.item(queue, priority, persistent) for _ in range(number)]
        self.client(who).transport.send(*(item.send() for item in items), timeout=PATIENCE)

    @precondition(lambda self: self.holders())
    @rule(who=PICK, number=st.integers(1, 3), sends=st.integers(0, 2), wait=st.booleans())
    def commit(self, who: int, number: int, sends: int, wait: bool) -> None:
        client, subscription = self.holder(who)
        messages = self.acknowledge(subscription, number)
        items = [self.item(QUEUES[who % 2]) for _ in range(sends)]
        pending = client.transport.begin(messages, [item.send() for item in items])
        if not wait:  # something else goes the same way meanwhile
            self.clients[0].transport.send(self.item(QUEUES[0]).send(), timeout=PATIENCE)
        pending.wait(PATIENCE)

    # What goes wrong

    @rule(who=PICK)
    def leave(self, who: int) -> None:
        if len(self.clients) > 1:
            client = self.clients.pop(who % len(self.clients))
            for subscription in client.subscriptions:
                subscription.active = False
                self.give_back(subscription)
            client.close()

    @rule(who=PICK)
    def cut(self, who: int) -> None:
        client = self.client(who)
        self.give_all_back(client)
        client.proxy.cut()
        client.wait_for_connection()

    @precondition(lambda self: self.holders())
    @rule(who=PICK, number=st.integers(1, 3))
    def cut_within_a_transaction(self, who: int, number: int) -> None:
        """It has happened whole, or not at all; and if it was confirmed, it has."""
        client, subscription = self.holder(who)
        acknowledged = [item for item, _ in subscription.held[:number]]
        messages = [message for _, message in subscription.held[:number]]
        sent = [self.item(queue) for queue in QUEUES]
        confirmed = False
        with suppress(Disconnected):
            pending = client.transport.begin(messages, [item.send() for item in sent])
            client.proxy.cut()
            pending.wait(PATIENCE)
            confirmed = True
        self.give_all_back(client)
        client.wait_for_connection()
        wanted = sum(len(one.subscriptions) for one in self.clients)
        wait_until(lambda: self.consumers() == wanted, PATIENCE, "the end of the old connection")
        there = self.names_in_the_broker()
        happened = sent[0].name in there
        assert happened or not confirmed, "it was confirmed, and has not happened"
        undone = acknowledged if happened else sent
        assert not there.intersection(item.name for item in undone), "half of a transaction has happened"
        for item in undone:
            del self.items[item.name]
        assert there == set(self.items)
        for item in self.items.values():
            item.perhaps = True

    @rule()
    def restart(self) -> None:
        port = self.broker.port
        self.broker.stop()
        self.start_again(port)

    @rule()
    def kill(self) -> None:
        """The files as they are now are what would be left of a broker killed now."""
        port = self.broker.port
        before = self.journal
        self.journals += 1
        for end in ("", "-wal"):
            shutil.copy(f"{before}{end}", f"{self.journal}{end}")
        self.broker.stop()
        for item in self.items.values():
            item.perhaps = True
        self.start_again(port)

    def start_again(self, port: int) -> None:
        for client in self.clients:
            self.give_all_back(client)
        for item in [item for item in self.items.values() if not item.persistent]:
            del self.items[item.name]
        self.broker = self.open(port)
        for client in self.clients:
            client.wait_for_connection()
        assert self.names_in_the_broker() == set(self.items)

    # The model

    def client(self, who: int) -> Client:
        return self.clients[who % len(self.clients)]

    def holders(self) -> list[tuple[Client, Subscription]]:
        return [(client, one) for client in self.clients for one in client.subscriptions if one.held]

    def holder(self, who: int) -> tuple[Client, Subscription]:
        holders = self.holders()
        return holders[who % len(holders)]

    def item(self, queue: str, priority: int = 4, persistent: bool = True) -> Item:
        self.names += 1
        item = self.items[self.names] = Item(self.names, queue, priority, persistent)
        return item

    def acknowledge(self, subscription: Subscription, number: int) -> list[Message]:
        """The oldest messages that it holds, which it holds no more."""
        taken, subscription.held = subscription.held[:number], subscription.held[number:]
        for item, _ in taken:
            del self.items[item.name]
        return [message for _, message in taken]

    def give_back(self, subscription: Subscription) -> None:
        for item, _ in subscription.held:
            item.holder = None
            item.sure = True
        subscription.held.clear()

    def give_all_back(self, client: Client) -> None:
        for subscription in client.subscriptions:
            self.give_back(subscription)

    def consumers(self) -> int:
        return sum(entry.consumers for entry in self.broker.statistics())

    def names_in_the_broker(self) -> set[int]:
        """The messages that there are, those in flight included, each in one place."""
        names: list[int] = []
        with RawClient(self.broker.port) as client:
            for queue in QUEUES:
                client.subscribe(f"/queue/{queue}", key=queue, more={"browser": "true"})
                while (message := client.message()).headers.get("browser") != "end":
                    names.append(int(message.headers["name"]))
        assert len(names) == len(set(names))
        return set(names)

    def arrive(self) -> None:
        """Look at what was delivered."""
        for client in self.clients:
            while client.arrived:
                subscription, message = client.arrived.pop(0)
                if subscription.active and message.connection == client.connection:
                    self.deliver(subscription, message)

    def deliver(self, subscription: Subscription, message: Message) -> None:
        item = self.items.get(int(message.headers["name"]))
        assert item is not None, f"{message.headers['name']} comes after it was acknowledged"
        assert item.holder is None, f"{item.name} comes to a second consumer"
        assert (message.destination, message.body) == (item.queue, item.body)
        assert message.redelivered or not item.sure, f"{item.name} comes again without a mark"
        assert item.sure or item.perhaps or not message.redelivered, f"{item.name} is marked, but new"
        item.holder, item.perhaps = subscription, True
        subscription.held.append((item, message))
        assert len(subscription.held) <= subscription.prefetch
        self.new.append((subscription, item))

    def is_quiet(self) -> bool:
        """Whether everybody has what must come: as much as there is, or as there is room for."""
        self.arrive()
        for queue in QUEUES:
            everybody = [one for client in self.clients for one in client.subscriptions if one.queue == queue]
            there = sum(item.queue == queue for item in self.items.values())
            wanted = min(there, sum(subscription.prefetch for subscription in everybody))
            if sum(len(subscription.held) for subscription in everybody) != wanted:
                return False
        return True

    def check_order(self) -> None:
        """What came was before what still waits, and each got it in order."""
        for subscription, item in self.new:
            for other in self.items.values():
                if other.queue == item.queue and other.holder is None:
                    old = other.name <= self.names_before
                    assert item.rank < other.rank or not (old or other.priority == item.priority)
            for later, other in self.new[self.new.index((subscription, item)) + 1 :]:
                if later is subscription and other.priority == item.priority:
                    assert item.name < other.name
        self.new.clear()
        self.names_before = self.names

    @invariant()
    def everything_is_in_one_place(self) -> None:
        wait_until(self.is_quiet, PATIENCE, "everything to come that must")
        self.check_order()
        sizes = {entry.name: entry.size for entry in self.broker.statistics()}
        for queue in QUEUES:
            there = sum(item.queue == queue for item in self.items.values())
            assert sizes.get(f"/queue/{queue}", 0) == there

    def teardown(self) -> None:
        for client in self.clients:
            client.close()
        try:
            if self.journal.exists():
                self.take_all()
        finally:
            self.broker.stop()
            self.directory.cleanup()

    def take_all(self) -> None:
        """What is left comes once, in order; then nothing is left, in memory neither."""
        wait_until(lambda: self.consumers() == 0, PATIENCE, "everybody to leave")
        with RawClient(self.broker.port) as client:
            for queue in QUEUES:
                ranks = sorted(item.rank for item in self.items.values() if item.queue == queue)
                client.subscribe(f"/queue/{queue}", "client", queue)
                messages = [client.message() for _ in ranks]
                assert [int(message.headers["name"]) for message in messages] == [name for _, name in ranks]
                if messages:
                    client.ack(messages[-1])
            client.subscribe("/queue/barrier")
            left = lambda: self.broker.broker.destinations.memory.used == 0  # noqa: E731
            wait_until(left, PATIENCE, "memory to be free")


# A failure is not made smaller in the short run: with real connections that takes minutes.
SHORT = {"max_examples": 20, "stateful_step_count": 25, "phases": [Phase.explicit, Phase.generate]}
LONG = {"max_examples": 1000, "stateful_step_count": 60}
CHOSEN: dict[str, Any] = LONG if os.environ.get("PARVIS_MODEL") == "long" else SHORT

Model.TestCase.settings = settings(**CHOSEN, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestModel = Model.TestCase
