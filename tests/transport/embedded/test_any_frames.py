"""Clients that say anything in any order: never an internal error, and nothing of them remains."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from parvis.transport.embedded.clock import Clock
from parvis.transport.embedded.destinations import Destinations
from parvis.transport.embedded.session import Session
from parvis.transport.embedded.settings import Settings
from parvis.transport.embedded.statistics import statistics
from parvis.transport.stomp_frames import Frame, Parser

NAMES = ["/queue/a", "/queue/b.c", "/queue/>", "/queue/b.*", "/topic/a", "/topic/>", "/temp-queue/x"]
ODD_NAMES = ["/temp-topic/y", "/remote-temp-queue/z", "/queue/", "/queue/.", "/queue/DLQ.a", "/", "", "queue"]
REQUESTS = ["/queue/ActiveMQ.Statistics.Destination.>", "/topic/ActiveMQ.Statistics.Broker"]
VALUES = {
    "ack": ["auto", "client", "client-individual", "perhaps"],
    "transaction": ["t", "t", "u", ""],
    "receipt": ["r", ""],
    "message-id": ["x"],
    "subscription": ["1", "2"],
    "selector": ["", "a = 1", "a", "JMSXDeliveryCount > 1", "NOT a LIKE '%'", "("],
    "browser": ["true"],
    "priority": ["0", "9", "-5", "100", "x"],
    "expires": ["0", "1", "-1", "99999999999999"],
    "AMQ_SCHEDULED_DELAY": ["0", "1", "-1", "999999999999999999"],
    "reply-to": ["/temp-queue/x", "/queue/a", "junk", "/temp-queue/"],
    "activemq.prefetchSize": ["1", "2", "100", "0"],
    "prefetch-count": ["0", "-1", "3"],
    "activemq.exclusive": ["true"],
    "activemq.priority": ["-3", "5"],
    "activemq.retroactive": ["true"],
}
COMMANDS = [
    "SEND",
    "SEND",
    "SEND",
    "SUBSCRIBE",
    "SUBSCRIBE",
    "ACK",
    "ACK",
    "NACK",
    "BEGIN",
    "COMMIT",
    "ABORT",
]
HEADERS = st.fixed_dictionaries(
    {
        "destination": st.sampled_from([*NAMES * 3, *ODD_NAMES, *REQUESTS]),
        "id": st.sampled_from(["1", "2", "3", "1", "2", "3", "1.x", "", "3.", "."]),
    },
    optional={name: st.sampled_from(values) for name, values in VALUES.items()},
)
STEPS = st.tuples(
    st.integers(0, 1),
    st.sampled_from([*COMMANDS, "UNSUBSCRIBE", "DISCONNECT", "CONNECT", "MESSAGE"]),
    HEADERS,
    st.integers(0, 20),
    st.sampled_from([0, 0, 0, 1, 5000]),
)


class Anybody:
    """A client that knows no manners, but acknowledges now and then what it has got."""

    def __init__(self, destinations: Destinations, version: str) -> None:
        self.written = bytearray()
        self.session = Session(destinations, self.written.extend)
        self.parser = Parser()
        self.got: list[dict[str, str]] = []
        self.session.receive(Frame("CONNECT", {"accept-version": version}))

    def say(self, command: str, headers: dict[str, str], which: int) -> None:
        if command in {"ACK", "NACK"} and self.got:
            known = self.got[which % len(self.got)]
            headers = known | {name: headers[name] for name in headers if name == "transaction"}
        self.session.receive(Frame(command, headers, b"x"))

    def listen(self) -> None:
        for frame in self.parser.feed(bytes(self.written)):
            assert isinstance(frame, Frame)
            if frame.command == "MESSAGE":
                headers = frame.headers
                self.got.append(
                    {"id": headers["ack"]} if "ack" in headers else {"message-id": headers["message-id"]}
                )
        self.written.clear()


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40), st.sampled_from(["1.0", "1.1", "1.2"]), st.integers(0, 1))
def test_nothing_remains_of_anybody(
    steps: list[tuple[int, str, dict[str, str], int, int]], version: str, limit: int
) -> None:
    now = [10**12]
    options = Settings(max_redeliveries=limit, nack_redeliveries=limit, prefetch=3)
    destinations = Destinations(options, None, Clock(lambda: now[0], lambda: now[0]))
    clients = [Anybody(destinations, version), Anybody(destinations, "1.2")]
    for who, command, headers, which, wait in steps:
        client = clients[who]
        client.say(command, headers, which)
        if client.session.closing:
            client.session.close()
            clients[who] = Anybody(destinations, version)
        now[0] += wait
        destinations.deliver_due()
        destinations.sweep()
        for listener in clients:
            listener.listen()
    for client in clients:
        client.session.close()
    for name in list(destinations.topics):
        destinations.send(destinations.message(name, {}, b"to nobody"))
    found = statistics(destinations)
    assert {(entry.in_flight, entry.consumers, entry.producers) for entry in found} <= {(0, 0, 0)}
    assert not [entry for entry in found if entry.name.startswith("/topic/") and entry.size]
    now[0] += 10**14
    destinations.deliver_due()
    assert destinations.memory.used == sum(entry.memory for entry in statistics(destinations))
