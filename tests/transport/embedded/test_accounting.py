"""Whatever clients do, in whatever order: no message is lost, none is acknowledged twice, all sums are right.

A state machine of clients, their subscriptions, transactions and sudden ends, on the broker without its
sockets and with a clock of its own. A real journal goes along.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parvis.transport.embedded.clock import Clock
from parvis.transport.embedded.destinations import Destinations
from parvis.transport.embedded.journal import Journal
from parvis.transport.embedded.session import Session
from parvis.transport.embedded.settings import Settings
from parvis.transport.stomp_frames import Frame, Parser

QUEUES = st.sampled_from(["/queue/a", "/queue/b"])
PICK = st.integers(0, 1000)


@dataclass(eq=False)
class Held:
    """A delivery in a client's hands; `number` counts all deliveries to it."""

    frame: Frame
    number: int
    accepted: bool = True

    @property
    def name(self) -> str:
        return self.frame.headers["name"]

    @property
    def key(self) -> str:
        return self.frame.headers["subscription"]


class Client:
    """A session, and what a careful client remembers."""

    def __init__(self, destinations: Destinations) -> None:
        self.written = bytearray()
        self.session = Session(destinations, self.written.extend)
        self.parser = Parser()
        self.modes: dict[str, str] = {}
        self.held: list[Held] = []  # not acknowledged, in order
        self.deliveries = 0
        self.transaction: list[Held] | None = None  # acknowledged or refused in it
        self.sent_in_transaction: list[str] = []
        self.say("CONNECT", {"accept-version": "1.2"})

    def say(self, command: str, headers: dict[str, str]) -> None:
        self.session.receive(Frame(command, headers))
        self.listen()

    def listen(self) -> None:
        data = bytes(self.written)
        self.written.clear()
        for frame in self.parser.feed(data):
            assert isinstance(frame, Frame)
            assert frame.command in {"CONNECTED", "MESSAGE"}, frame
            if frame.command == "MESSAGE":
                self.deliveries += 1
                self.held.append(Held(frame, self.deliveries))

    def let_go(self, delivery: Held) -> list[Held]:
        """Take out what an acknowledgement of this delivery acknowledges."""
        if self.modes[delivery.key] == "client-individual":
            meant = [delivery]
        else:
            meant = [held for held in self.held if held.key == delivery.key]
            meant = meant[: meant.index(delivery) + 1]
        self.held = [held for held in self.held if held not in meant]
        return meant

    def take_again(self, deliveries: list[Held]) -> None:
        """After an abort it has them again, but for those of subscriptions that have ended."""
        alive = [held for held in deliveries if held.key in self.modes]
        self.held = sorted(self.held + alive, key=lambda held: held.number)


class Accounting(RuleBasedStateMachine):
    @initialize(deaths=st.sampled_from([0, 2]), nacks=st.sampled_from([0, 1]))
    def start(self, deaths: int, nacks: int) -> None:
        self.time = 1_000_000
        self.directory = tempfile.TemporaryDirectory()
        self.journal = Journal(Path(self.directory.name) / "messages.db")
        options = Settings(max_redeliveries=deaths, nack_redeliveries=nacks, redelivery_delay=0.005)
        self.destinations = Destinations(options, self.journal, Clock(lambda: self.time, lambda: self.time))
        self.clients: list[Client] = []
        self.sent: list[str] = []
        self.acknowledged: list[str] = []
        self.number = 0
        self.connect()

    @rule()
    def connect(self) -> None:
        self.clients.append(Client(self.destinations))

    @rule(
        who=PICK,
        queue=QUEUES,
        priority=st.integers(3, 5),
        delay=st.sampled_from([0, 0, 10]),
        life=st.sampled_from([0, 0, 7]),
        persistent=st.booleans(),
        inside=st.booleans(),
    )
    def send(
        self, who: int, queue: str, priority: int, delay: int, life: int, persistent: bool, inside: bool
    ) -> None:
        client = self.client(who)
        self.number += 1
        name = str(self.number)
        headers = {"destination": queue, "name": name, "priority": str(priority)}
        if delay:
            headers["AMQ_SCHEDULED_DELAY"] = str(delay)
        if life:
            headers["expires"] = str(self.time + life)
        if persistent:
            headers["persistent"] = "true"
        if inside and client.transaction is not None:
            headers["transaction"] = "t"
            client.sent_in_transaction.append(name)
        else:
            self.sent.append(name)
        client.say("SEND", headers)

    @rule(
        who=PICK,
        queue=st.sampled_from(["/queue/a", "/queue/b", "/queue/*", "/queue/DLQ.>"]),
        mode=st.sampled_from(["client", "client-individual"]),
        prefetch=st.sampled_from(["1", "2", "100"]),
        selector=st.sampled_from(["", "", "JMSPriority > 3", "JMSRedelivered = TRUE"]),
        exclusive=st.sampled_from(["false", "false", "true"]),
        rank=st.sampled_from(["0", "0", "3"]),
    )
    def subscribe(
        self, who: int, queue: str, mode: str, prefetch: str, selector: str, exclusive: str, rank: str
    ) -> None:
        client = self.client(who)
        self.number += 1
        key = f"s{self.number}"
        client.modes[key] = mode
        headers = {"destination": queue, "id": key, "ack": mode, "activemq.prefetchSize": prefetch}
        headers |= {"selector": selector, "activemq.exclusive": exclusive, "activemq.priority": rank}
        client.say("SUBSCRIBE", headers)

    @precondition(lambda self: any(client.held for client in self.clients))
    @rule(who=PICK, which=PICK, accept=st.integers(0, 3), inside=st.booleans())
    def acknowledge(self, who: int, which: int, accept: int, inside: bool) -> None:
        holders = [client for client in self.clients if client.held]
        client = holders[who % len(holders)]
        delivery = client.held[which % len(client.held)]
        headers = {"id": delivery.frame.headers["ack"]}
        meant = client.let_go(delivery)
        if inside and client.transaction is not None:
            headers["transaction"] = "t"
            for held in meant:
                held.accepted = accept > 0
            client.transaction += meant
        elif accept:
            self.acknowledged += [held.name for held in meant]
        client.say("ACK" if accept else "NACK", headers)

    @rule(who=PICK)
    def begin(self, who: int) -> None:
        client = self.client(who)
        if client.transaction is None:
            client.transaction, client.sent_in_transaction = [], []
            client.say("BEGIN", {"transaction": "t"})

    @rule(who=PICK, commit=st.booleans())
    def end(self, who: int, commit: bool) -> None:
        client = self.client(who)
        if client.transaction is None:
            return
        if commit:
            self.sent += client.sent_in_transaction
            self.acknowledged += [held.name for held in client.transaction if held.accepted]
        else:
            client.take_again(client.transaction)
        client.transaction = None
        client.say("COMMIT" if commit else "ABORT", {"transaction": "t"})

    @rule(who=PICK, which=PICK)
    def unsubscribe(self, who: int, which: int) -> None:
        client = self.client(who)
        if client.modes:
            key = sorted(client.modes)[which % len(client.modes)]
            del client.modes[key]
            client.held = [held for held in client.held if held.key != key]
            client.say("UNSUBSCRIBE", {"id": key})

    @precondition(lambda self: len(self.clients) > 1)
    @rule(who=PICK)
    def vanish(self, who: int) -> None:
        client = self.client(who)
        self.clients.remove(client)
        client.session.close()
        self.all_listen()

    @rule(ms=st.integers(1, 20))
    def wait(self, ms: int) -> None:
        self.time += ms
        self.destinations.deliver_due()
        self.destinations.sweep()

    @rule(who=PICK)
    def block_and_unblock(self, who: int) -> None:
        client = self.client(who)
        client.session.block(True)
        client.session.block(False)

    def all_listen(self) -> None:
        for client in self.clients:
            client.listen()

    def client(self, who: int) -> Client:
        return self.clients[who % len(self.clients)]

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        self.all_listen()
        for queue in self.destinations.queues.values():
            assert 0 <= queue.in_flight <= queue.size
            pending = queue.messages()[len(queue.messages()) - (queue.size - queue.in_flight) :]
            free = [
                c for c in queue.consumers if c.has_room and not any(o.exclusive for o in queue.consumers)
            ]
            for consumer in free:
                assert not [m for m in pending if consumer.selector is None or consumer.selector.matches(m)]

    def teardown(self) -> None:
        while self.clients:
            self.vanish(0)
        kept = self.restored()
        collector = Client(self.destinations)
        collector.modes["all"] = "client"
        every = {"destination": "/queue/>", "id": "all", "ack": "client", "prefetch-count": "0"}
        collector.say("SUBSCRIBE", every)
        self.time += 1000
        self.destinations.deliver_due()
        self.destinations.sweep()
        collector.listen()
        rest = [held.name for held in collector.held]
        assert sorted(self.acknowledged + rest, key=int) == sorted(self.sent, key=int)
        persistent = [held.name for held in collector.held if "persistent" in held.frame.headers]
        assert sorted(kept) == sorted(persistent)
        if collector.held:
            collector.say("ACK", {"id": collector.held[-1].frame.headers["ack"]})
        assert self.destinations.memory.used == 0
        assert not self.restored()
        self.journal.close()
        self.directory.cleanup()

    def restored(self) -> list[str]:
        """Names of the messages that a broker would have after a restart now."""
        batch = self.journal.take()
        self.journal.write(batch)
        self.journal.written(batch)
        texts = [self.journal.text(message) for message in self.journal.load()]
        return [text[0]["name"] for text in texts if text]


Accounting.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAccounting = Accounting.TestCase
