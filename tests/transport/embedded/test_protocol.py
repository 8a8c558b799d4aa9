"""What the protocol asks of a broker, said over raw sockets; and what hostile clients get."""

from __future__ import annotations

import time

import pytest

from parvis.transport.embedded import Broker, BrokerError, BrokerThread, Settings
from raw_stomp import Connect, RawClient
from waiting import wait_until


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_a_message_travels_in_every_version(connect: Connect, version: str) -> None:
    client = connect(version)
    assert client.connected.headers["version"] == version
    client.subscribe("/queue/a", "client-individual")
    client.send("/queue/a", b"\0\xffbody", reply="a:b", persistent="true", correlation__id="7")
    message = client.message()
    assert message.body == b"\0\xffbody"
    said = message.headers
    assert (said["destination"], said["subscription"], said["reply"]) == ("/queue/a", "1", "a:b")
    assert (said["persistent"], said["correlation-id"], said["priority"]) == ("true", "7", "4")
    assert (said["expires"], said["content-length"]) == ("0", "6")
    assert abs(int(said["timestamp"]) / 1000 - time.time()) < 60
    assert ("ack" in said) is (version == "1.2")
    assert "redelivered" not in said
    client.ack(message)
    client.confirm("DISCONNECT")
    with pytest.raises(ConnectionError):
        client.receive()


def test_headers_cross_versions_with_their_escapes(connect: Connect) -> None:
    sender, old = connect("1.2"), connect("1.0")
    receiver = connect("1.1")
    for client in (old, receiver):
        client.subscribe("/topic/a")
    sender.send("/topic/a", b"", **{"odd:name": "a:b\\c\nd\re"})
    assert receiver.message().headers["odd:name"] == "a:b\\c\nd e"
    assert old.message().headers["odd name"] == "a:b\\c d e"


def test_a_sender_cannot_write_the_brokers_headers(connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/a")
    forged = {"message-id": "x", "subscription": "9", "redelivered": "true", "JMSXDeliveryCount": "9"}
    client.confirm("SEND", {"destination": "/queue/a", "timestamp": "1", "passcode": "secret", **forged})
    said = client.message().headers
    assert said["message-id"] != "x"
    assert said["subscription"] == "1"
    assert not {"redelivered", "JMSXDeliveryCount", "passcode", "receipt"} & set(said)
    assert said["timestamp"] != "1"


def test_1_0_needs_no_subscription_id_and_unsubscribes_by_destination(connect: Connect) -> None:
    client = connect("1.0")
    client.confirm("SUBSCRIBE", {"destination": "/queue/a", "ack": "client"})
    client.send("/queue/a", "1")
    message = client.message()
    assert "subscription" not in message.headers
    client.confirm("ACK", {"message-id": message.headers["message-id"]})
    client.confirm("UNSUBSCRIBE", {"destination": "/queue/a"})
    client.send("/queue/a", "2")
    assert client.nothing()


def test_receipts_come_for_every_frame_in_order(connect: Connect) -> None:
    client = connect()
    frames = [
        ("SUBSCRIBE", {"destination": "/queue/a", "id": "1"}),
        ("SEND", {"destination": "/queue/b"}),
        ("BEGIN", {"transaction": "t"}),
        ("SEND", {"destination": "/queue/b", "transaction": "t"}),
        ("COMMIT", {"transaction": "t"}),
        ("BEGIN", {"transaction": "t"}),
        ("ABORT", {"transaction": "t"}),
        ("UNSUBSCRIBE", {"id": "1"}),
        ("DISCONNECT", {}),
    ]
    for number, (command, headers) in enumerate(frames):
        client.say(command, {**headers, "receipt": f"r:{number}"})
    got = [client.expect("RECEIPT").headers["receipt-id"] for _ in frames]
    assert got == [f"r:{number}" for number in range(len(frames))]


def test_a_refused_login_is_logged_without_what_was_given(caplog: pytest.LogCaptureFixture) -> None:
    with BrokerThread(settings=Settings(login="parvis", passcode="x-1")) as broker:
        with RawClient(broker.port, login="parvis", passcode="x-1"):
            assert "refused" not in caplog.text
        with RawClient(broker.port, connect=False) as client:
            client.say("CONNECT", {"accept-version": "1.2", "login": "guess-41", "passcode": "guess-42"})
            client.expect("ERROR")
    (record,) = [record for record in caplog.records if "log-in refused" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert "guess" not in caplog.text


def test_login_is_asked_for_and_never_repeated() -> None:
    with BrokerThread(settings=Settings(login="parvis", passcode="Ünique")) as broker:
        with RawClient(broker.port, login="parvis", passcode="Ünique") as client:
            client.send("/queue/a")
        for wrong in ({"login": "parvis", "passcode": "guess-42"}, {"login": "guess-42"}, {}):
            with RawClient(broker.port, connect=False) as client:
                client.say("CONNECT", {"accept-version": "1.2", **wrong})
                frame = client.expect("ERROR")
                assert "login failed" in frame.headers["message"]
                assert b"guess-42" not in frame.body


SUBSCRIBE = ("SUBSCRIBE", {"destination": "/queue/a", "id": "1"})
WRONG: list[tuple[str, list[tuple[str, dict[str, str]]]]] = [
    ("RECEIPT is nothing a client may say", [("RECEIPT", {})]),
    ("CONNECT is nothing a client may say", [("CONNECT", {})]),
    ("does not begin with /queue/", [("SEND", {"destination": "a"})]),
    ("does not begin with /queue/", [("SEND", {})]),
    ("is not one", [("SEND", {"destination": "/queue/" + "x" * 501})]),
    ("is not one", [("SEND", {"destination": "/queue/a\nb"})]),
    ("is not one", [("SEND", {"destination": "/queue/a,b"})]),
    ("has wildcards", [("SEND", {"destination": "/queue/a.>"})]),
    ("priority is no whole number", [("SEND", {"destination": "/queue/a", "priority": "high"})]),
    ("expires is no whole number", [("SEND", {"destination": "/queue/a", "expires": "9" * 99})]),
    (
        "AMQ_SCHEDULED_DELAY is no whole number",
        [("SEND", {"destination": "/queue/a", "AMQ_SCHEDULED_DELAY": "²"})],
    ),
    ("is not supported", [("SEND", {"destination": "/queue/a", "AMQ_SCHEDULED_CRON": "* * * * *"})]),
    ("no transaction 't'", [("SEND", {"destination": "/queue/a", "transaction": "t"})]),
    ("no transaction 't'", [("COMMIT", {"transaction": "t"})]),
    ("no transaction 't'", [("ABORT", {"transaction": "t"})]),
    ("without a transaction", [("BEGIN", {})]),
    ("a transaction 't' already", [("BEGIN", {"transaction": "t"})] * 2),
    ("without an id", [("SUBSCRIBE", {"destination": "/queue/a"})]),
    ("a subscription '1' on this connection already", [SUBSCRIBE, SUBSCRIBE]),
    ("none of auto, client", [("SUBSCRIBE", {"destination": "/queue/a", "id": "1", "ack": "maybe"})]),
    ("less than 1", [("SUBSCRIBE", {"destination": "/queue/a", "id": "1", "activemq.prefetchSize": "0"})]),
    ("selector: ", [("SUBSCRIBE", {"destination": "/queue/a", "id": "1", "selector": "a >"})]),
    (
        "belongs to another connection",
        [("SUBSCRIBE", {"destination": "/remote-temp-queue/x", "id": "1"})],
    ),
    ("no subscription '2'", [SUBSCRIBE, ("UNSUBSCRIBE", {"id": "2"})]),
    ("no subscription ''", [("UNSUBSCRIBE", {})]),
    ("which is not known here", [("ACK", {"id": "1.x"})]),
    ("which is not known here", [("ACK", {"id": "99999999999999999999.x"})]),
    ("which is not known here", [("NACK", {})]),
    ("which is not known here", [("ACK", {"message-id": "x"})]),
    ("which is not known here", [("ACK", {"message-id": "x", "subscription": "7"})]),
    ("not waiting for it", [SUBSCRIBE, ("ACK", {"message-id": "x", "subscription": "1"})]),
    ("needs a reply-to", [("SEND", {"destination": "/queue/ActiveMQ.Statistics.Broker"})]),
]


@pytest.mark.parametrize(("says", "frames"), WRONG)
def test_what_cannot_be_obeyed_gives_an_error_and_ends_that_connection_only(
    connect: Connect, says: str, frames: list[tuple[str, dict[str, str]]]
) -> None:
    bystander, client = connect(), connect()
    for command, headers in frames[:-1]:
        client.confirm(command, headers)
    command, headers = frames[-1]
    client.say(command, {**headers, "receipt": "the-last"})
    frame = client.expect("ERROR")
    assert says in frame.headers["message"]
    assert frame.headers["receipt-id"] == "the-last"
    assert f"The frame was {command}".encode() in frame.body
    with pytest.raises(ConnectionError):
        client.receive()
    bystander.subscribe("/queue/alive")
    bystander.send("/queue/alive", "still")
    assert bystander.bodies(1) == ["still"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "unknown command"),
        (b"\x16\x03\x01\x02\x00\x01\n\n", "unknown command"),
        (b"SEND\ndestination:/queue/a\n\nx\0", "SEND before CONNECT"),
        (b"CONNECT\naccept-version:9.9\n\n\0", "no version in common"),
        (b"CONNECT\nheart-beat:soon\n\n\0", "not two whole numbers"),
        (b"CONNECT\n\n\0SEND\ncontent-length:999999999999\n\n", "999999999999 bytes"),
        (b"CONNECT\n\n\0SEND\ndestination:" + b"x" * 200_000, "longer than"),
        (b"CONNECT\n\n\0SEND\n" + b"a:b\n" * 2000 + b"\n\0", "headers"),
        (b"CONNECT\n\n\0SEND\ndestination:/queue/a\ncontent-length:1\n\nxyz\0", "no NUL"),
    ],
)
def test_hostile_bytes_give_an_error_frame(connect: Connect, data: bytes, says: str) -> None:
    client = connect(connect=False)
    client.socket.sendall(data)
    last = client.rest()[-1]
    assert last.command == "ERROR"
    assert says in last.headers["message"]


def test_what_came_before_hostile_bytes_was_done(connect: Connect) -> None:
    client, reader = connect(), connect()
    client.socket.sendall(b"SEND\ndestination:/queue/a\n\nfirst\0NONSENSE\n\n\0")
    assert "unknown command" in client.error()
    reader.subscribe("/queue/a")
    assert reader.bodies(1) == ["first"]


def test_the_error_frame_arrives_though_the_client_goes_on_sending(connect: Connect) -> None:
    client = connect()
    more = b"SEND\ndestination:/queue/a\n\n" + b"x" * 30_000 + b"\0"
    client.socket.sendall(b"COMMIT\ntransaction:none\n\n\0" + more * 30)
    assert "no transaction" in client.error()


def test_double_acknowledgement_is_an_error(connect: Connect) -> None:
    client = connect()
    client.subscribe("/queue/a", "client-individual")
    client.send("/queue/a", "1")
    message = client.message()
    client.ack(message)
    client.say("ACK", {"id": message.headers["ack"]})
    assert "not waiting for it" in client.error()


def test_a_silent_client_is_dropped_and_its_message_given_to_another(connect: Connect) -> None:
    silent = connect(heart_beat="100,0")
    silent.subscribe("/queue/a", "client")
    silent.send("/queue/a", "1")
    silent.message()
    other = connect()
    other.subscribe("/queue/a", "client")
    message = other.message()
    assert (message.body, message.headers["redelivered"]) == (b"1", "true")


def test_heart_beats_keep_a_connection_and_are_sent(broker: BrokerThread, connect: Connect) -> None:
    client = connect(heart_beat="100,100")
    assert client.connected.headers["heart-beat"] == "100,100"
    start = time.monotonic()

    def beat() -> bool:
        client.socket.sendall(b"\n")
        with pytest.raises(TimeoutError):
            client.receive(0.05)
        return time.monotonic() - start > 1.2

    wait_until(beat, 10, "one second of heart-beats")
    assert client.heartbeats >= 8
    client.send("/queue/a")


def test_bytes_in_the_smallest_pieces(connect: Connect) -> None:
    client = connect(connect=False)
    for (
        byte
    ) in b"\nSTOMP\r\naccept-version:1.2\r\nhost:x\r\n\r\n\0\nSEND\ndestination:/queue/a\nreceipt:1\n\nx\0":
        client.socket.sendall(bytes([byte]))
    client.expect("CONNECTED")
    client.expect("RECEIPT")


def test_other_addresses_are_refused_unless_allowed() -> None:
    elsewhere = "192.0.2.1"  # set aside for documentation: no machine has it
    with pytest.raises(BrokerError, match="can be reached from other machines"):
        BrokerThread(settings=Settings(host=elsewhere)).start()
    with pytest.raises(BrokerError, match=r"Cannot listen at 192\.0\.2\.1"):
        BrokerThread(settings=Settings(host=elsewhere, allow_remote=True)).start()
    with pytest.raises(BrokerError, match=r"Cannot listen at 'no\.\.address'"):
        BrokerThread(settings=Settings(host="no..address")).start()


def test_a_port_in_use_is_told(broker: BrokerThread) -> None:
    with pytest.raises(BrokerError, match=rf"Cannot listen at 127.0.0.1:{broker.port}.*Is a broker running"):
        BrokerThread(broker.port).start()


def test_stopping_ends_connections_and_frees_the_port() -> None:
    with BrokerThread() as broker:
        client = RawClient(broker.port)
    with pytest.raises(ConnectionError):
        client.receive()
    with BrokerThread(broker.port) as again, RawClient(again.port) as other:
        other.send("/queue/a")


def test_it_says_that_it_is_for_one_machine(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "parvis.transport.embedded.server"), BrokerThread():
        pass
    assert "It is for one machine" in caplog.text


def test_only_so_many_connections(broker: BrokerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parvis.transport.embedded.server._MAX_CONNECTIONS", 2)
    clients = [RawClient(broker.port) for _ in range(2)]
    third = RawClient(broker.port, connect=False)
    assert "connections already" in third.error()
    for client in clients:
        client.send("/queue/a")
        client.close()


def test_settings_do_not_show_the_passcode() -> None:
    assert "hidden-word" not in repr(Broker(Settings(passcode="hidden-word")).settings)
