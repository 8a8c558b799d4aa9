"""Log records that come in by UDP, TCP and HTTP, from honest senders and from others."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import os
import resource
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parvis.config import GraylogSettings
from parvis.observe.gelf import GelfHttpHandler, chunks, gelf_handler
from parvis.observe.gelf_chunks import Chunks
from parvis.observe.gelf_inputs import GelfInputs
from parvis.observe.gelf_message import LARGEST, NotGelf, read_gelf, read_many
from parvis.observe.intake import Intake
from parvis.observe.log_record import LogRecord
from waiting import wait_until

pytest.importorskip("graypy")
from zocalo.configuration.plugin_logging import GraylogTCPHandler, GraylogUDPHandler


class Kept:
    """What an intake took, told to be safe at once."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self.is_safe = True
        self.intake = Intake(self._take)

    def _take(self) -> None:
        records, done = self.intake.take()
        self.records += records
        for one in done:
            one(self.is_safe)

    def wait_for(self, count: int) -> list[LogRecord]:
        wait_until(lambda: len(self.records) >= count, 10, f"{count} records, {len(self.records)} came")
        return self.records


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def inputs(kept: Kept) -> Iterator[GelfInputs]:
    with GelfInputs(kept.intake) as running:
        yield running


def message(text: str = "hello", **more: Any) -> bytes:
    return json.dumps({"version": "1.1", "host": "vm", "short_message": text, "level": 4, **more}).encode()


def send(inputs: GelfInputs, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, ("127.0.0.1", inputs.ports["udp"]))


def connect(inputs: GelfInputs) -> socket.socket:
    return socket.create_connection(("127.0.0.1", inputs.ports["tcp"]))


def post(
    inputs: GelfInputs, body: bytes | list[bytes], path: str = "/gelf", method: str = "POST", **headers: str
) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", inputs.ports["http"], timeout=20)
    try:
        connection.request(
            method,
            path,
            iter(body) if isinstance(body, list) else body,
            {name.replace("_", "-"): value for name, value in headers.items()},
            encode_chunked=isinstance(body, list),
        )
        return connection.getresponse().status
    finally:
        connection.close()


def handlers() -> dict[str, Callable[[GelfInputs], logging.Handler]]:
    def ours(kind: str) -> Callable[[GelfInputs], logging.Handler]:
        return lambda inputs: gelf_handler(GraylogSettings("127.0.0.1", inputs.ports[kind.lower()], kind))

    return {
        "zocalo-udp": lambda inputs: GraylogUDPHandler(host="127.0.0.1", port=inputs.ports["udp"]),
        "zocalo-tcp": lambda inputs: GraylogTCPHandler(host="127.0.0.1", port=inputs.ports["tcp"]),
        "udp": ours("UDP"),
        "tcp": ours("TCP"),
        "http": ours("HTTP"),
    }


@pytest.mark.parametrize("kind", list(handlers()))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_handlers_are_understood(inputs: GelfInputs, kept: Kept, kind: str) -> None:
    handler = handlers()[kind](inputs)
    logger = logging.Logger("dlstbx.services.xray")
    logger.addHandler(handler)
    extra = {"recipe_ID": "8e2e8e3c-1", "workflows_service": "DLS X-ray", "workflows_host": "uk.vm.1"}
    noise = os.urandom(20_000).hex()
    try:
        raise KeyError(noise)
    except KeyError:
        logger.error("image %d failed", 7, exc_info=True, extra=extra)
    logger.info("short")
    (one, two) = sorted(kept.wait_for(2), key=lambda record: record.level)
    handler.close()
    assert one.facility == "dlstbx.services.xray"
    assert (one.level_name, two.level_name) == ("error", "info")
    assert one.message == "image 7 failed"
    assert "Traceback" in one.full
    assert noise[:1000] in one.full
    assert (one.recipe_id, one.service) == ("8e2e8e3c-1", "DLS X-ray")
    assert one.fields["workflows_host"] == "uk.vm.1"
    assert one.time == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("pack", [bytes, zlib.compress, gzip.compress])
def test_datagrams_may_be_packed_and_come_in_chunks_in_any_order(
    inputs: GelfInputs, kept: Kept, pack: Callable[[bytes], bytes]
) -> None:
    text = os.urandom(6_000).hex()
    pieces = chunks(pack(message("long", full_message=text)))
    assert len(pieces) > 2
    send(inputs, *reversed(pieces), *pieces[:1], pack(message("short")))
    assert {record.message: record.full for record in kept.wait_for(2)} == {"long": text, "short": ""}


@pytest.mark.parametrize("end", [b"\0", b"\n", b"\r\n", b"\n\0"])
def test_frames_end_with_a_zero_or_a_newline(inputs: GelfInputs, kept: Kept, end: bytes) -> None:
    stream = b"".join(message(str(number)) + end for number in range(50)) + message("without end")
    with connect(inputs) as connection:
        for start in range(0, len(stream), 700):
            connection.sendall(stream[start : start + 700])
    assert [record.message for record in kept.wait_for(51)] == [*map(str, range(50)), "without end"]


def test_a_frame_that_ends_with_a_zero_may_have_several_lines(inputs: GelfInputs, kept: Kept) -> None:
    pretty = json.dumps(json.loads(message("pretty")), indent=2).encode()
    with connect(inputs) as connection:
        connection.sendall(pretty[:20])
        connection.sendall(pretty[20:] + b"\0" + pretty + b"\0")
    assert [record.message for record in kept.wait_for(2)] == ["pretty", "pretty"]


def test_http_takes_one_several_lines_and_chunks(inputs: GelfInputs, kept: Kept) -> None:
    one = message("one")
    assert post(inputs, one) == 202
    assert post(inputs, b"[" + one + b"," + one + b"]") == 202
    assert post(inputs, one + b"\n" + one + b"\n") == 202
    assert post(inputs, gzip.compress(one), Content_Encoding="gzip") == 202
    assert post(inputs, [one[:10], one[10:]]) == 202
    assert len(kept.records) == 7


def test_http_goes_on_on_one_connection(inputs: GelfInputs, kept: Kept) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", inputs.ports["http"], timeout=20)
    for _ in range(3):
        connection.request("POST", "/gelf", message())
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (202, b"")
    connection.close()
    assert len(kept.records) == 3


def test_http_does_not_accept_what_is_not_safe(inputs: GelfInputs, kept: Kept) -> None:
    kept.is_safe = False
    assert post(inputs, message()) == 503


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (400, {"body": b"{"}),
        (400, {"body": b"[1]"}),
        (400, {"body": b""}),
        (400, {"body": gzip.compress(b"x")[:-4]}),
        (400, {"body": b"[" + b",".join([message()] * 10_001) + b"]"}),
        (403, {"body": message(), "Origin": "http://evil.example"}),
        (404, {"body": message(), "path": "/other"}),
        (405, {"body": b"", "method": "GET"}),
        (413, {"body": b"", "Content_Length": str(LARGEST + 1)}),
        (413, {"body": [b"x" * LARGEST, b"x"]}),
        (400, {"body": b"", "Content_Length": "-1"}),
        (431, {"body": b"", "X": "y" * 20_000}),
    ],
)
def test_http_refuses_with_a_reason(
    inputs: GelfInputs, kept: Kept, status: int, asked: dict[str, Any]
) -> None:
    try:
        assert post(inputs, **asked) == status
    except (BrokenPipeError, ConnectionResetError):
        assert status == 413  # the answer came before all was sent
    assert kept.records == []
    assert post(inputs, message()) == 202


def raw(inputs: GelfInputs, kind: str, data: bytes) -> bytes:
    """What is answered to bytes on a connection that is then closed."""
    with socket.create_connection(("127.0.0.1", inputs.ports[kind]), timeout=20) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(1000)
        except OSError:  # it is closed already
            return b""


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
        b"POST /gelf HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /gelf HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
        b"POST /gelf HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /gelf HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 50,
        b"POST /gelf HTTP/1.1\r\nno colon\r\n\r\n",
        b"half a request",
        b"x" * 1_000_000,
    ],
)
def test_what_is_no_http_gets_an_answer_and_no_more(inputs: GelfInputs, data: bytes) -> None:
    assert raw(inputs, "http", data)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431", b"")
    assert post(inputs, message()) == 202


HOSTILE = {
    "bomb": zlib.compress(b'{"short_message": "' + b"x" * 100_000_000 + b'"}'),
    "deep": b'{"short_message": "x", "_a": ' + b"[" * 50_000,
    "not json": b"{" * 1000,
    "not packed": b"\x78\x9c" + os.urandom(500),
    "half packed": zlib.compress(message())[:-3],
    "empty": b"",
    "one byte": b"\x1e",
    "chunk without head": b"\x1e\x0f123",
    "chunk of none": b"\x1e\x0f12345678\x00\x00x",
    "chunk beyond": b"\x1e\x0f12345678\x05\x05x",
    "too many chunks": b"\x1e\x0f12345678\x00\xffx",
    "list": b"[]",
    "no message": b'{"version": "1.1"}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_datagram_costs_only_itself(inputs: GelfInputs, kept: Kept, name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in (chunks(HOSTILE[name]) if len(HOSTILE[name]) > 1408 else [HOSTILE[name]])[:128]:
            sender.sendto(datagram, ("127.0.0.1", inputs.ports["udp"]))
    send(inputs, message("after"))
    assert [record.message for record in kept.wait_for(1)] == ["after"]


def test_a_bomb_is_unpacked_no_further_than_it_may_go() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(NotGelf, match="larger than 4,000,000 bytes when unpacked"):
            read_gelf(HOSTILE["bomb"])
        assert tracemalloc.get_traced_memory()[1] < 5 * LARGEST
    finally:
        tracemalloc.stop()


def test_bad_signs_and_odd_values_are_kept_as_well_as_they_can_be() -> None:
    text = b'{"short_message": "caf\xe9 \\u0000 \x7f", "timestamp": "x", "level": 99, "_a": {"b": [1]}}'
    one = read_gelf(text)
    assert one.message == "caf\ufffd \0 \x7f"
    assert one.level == 7
    assert one.fields == {"a": '{"b":[1]}'}
    odd = {"level": -3, "timestamp": 1e300, "_n": 10**30, "_t": True, "host": ["x"], "_deep": [[[]]]}
    two = read_gelf(message(**odd), now=5.0)
    assert (two.level, two.time, two.host) == (0, 5.0, '["x"]')
    assert two.fields == {"n": "1e+30", "t": "true", "deep": "[[[]]]"}


def test_what_is_long_is_cut() -> None:
    many = {f"_field{number}": "y" * 5_000 for number in range(100)}
    one = read_gelf(message("x" * 100_000, full_message="z" * 100_000, **many))
    assert len(one.message) == len(one.full) == 65_536
    assert one.message.endswith("…")
    assert sum(map(len, one.fields.values())) <= 65_536
    with pytest.raises(NotGelf, match="larger than"):
        read_many(message("x" * 10_000_000))


def test_a_frame_that_does_not_end_is_given_up(
    inputs: GelfInputs, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        connect(inputs) as endless,
        connect(inputs) as honest,
        caplog.at_level("WARNING", "parvis.collector"),
    ):
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            endless.sendall(b"x" * 10 * LARGEST)
        honest.sendall(message("after") + b"\0")
        assert [record.message for record in kept.wait_for(1)] == ["after"]
    assert "larger than 4,000,000 bytes" in caplog.text


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for more open files than usual: both ends of connections are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_many_connections_that_say_nothing_do_not_keep_others_out(inputs: GelfInputs, kept: Kept) -> None:
    silent = [connect(inputs) for _ in range(520)]
    silent += [socket.create_connection(("127.0.0.1", inputs.ports["http"])) for _ in range(220)]
    for one in silent[-20:]:
        one.sendall(b"POST /gelf HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nhalf a body")
    try:
        with connect(inputs) as honest:
            honest.sendall(message("after") + b"\0")
        assert post(inputs, message()) == 202
        kept.wait_for(2)
    finally:
        for one in silent:
            one.close()


def test_messages_that_stay_half_hold_little_and_leave_others_room() -> None:
    known = Chunks()
    half = [b"\x1e\x0f" + number.to_bytes(8, "big") + b"\x00\x02" + b"x" * 1000 for number in range(5000)]
    first, second = (b"\x1e\x0f" + b"honest!!" + bytes((number, 2)) + b"y" for number in range(2))
    for datagram in half[:2500]:
        assert known.take("evil", datagram, now=0) is None
    assert known.take("honest", first, now=0) is None
    for datagram in half[2500:]:
        assert known.take("evil", datagram, now=0) is None
    assert len(known) <= 1000
    assert known.take("honest", second, now=1) == b"yy"
    known.forget_old(now=6)
    assert len(known) == 0


def test_a_late_chunk_does_not_complete_an_old_message() -> None:
    known = Chunks()
    first, second = (b"\x1e\x0f" + b"01234567" + bytes((number, 2)) + b"y" for number in range(2))
    assert known.take("a", first, now=0) is None
    assert known.take("a", second, now=5.1) is None
    assert known.take("a", first, now=5.2) == b"yy"
    assert known.take("a", first, now=6) is None
    with pytest.raises(NotGelf, match="differently"):
        known.take("a", first[:11] + b"\x03y", now=6)


def test_who_can_wait_does_when_there_is_no_room_and_nothing_is_lost() -> None:
    taken: list[LogRecord] = []
    intake = Intake(lambda: None)
    count = 60_000
    with GelfInputs(intake) as inputs:
        stream = message("x", full_message="y" * 400) + b"\0"

        def pour() -> None:
            with connect(inputs) as connection:
                for _ in range(count // 100):
                    connection.sendall(stream * 100)

        pouring = threading.Thread(target=pour)
        pouring.start()
        wait_until(lambda: intake.is_full, 30, "the intake to be full")
        sizes: list[int] = []

        def has_stopped() -> bool:
            sizes.append(len(intake))
            return len(sizes) > 15 and len(set(sizes[-10:])) == 1

        wait_until(has_stopped, 30, "whoever sends to wait")
        assert pouring.is_alive()
        assert inputs.account.dropped == {}

        def is_all_there() -> bool:
            taken.extend(intake.take()[0])
            return len(taken) >= count

        wait_until(is_all_there, 30, "all records")
        pouring.join()
        assert inputs.account.dropped == {}


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen at TCP port {port} of 127.0.0.1"):
            GelfInputs(Intake(lambda: None), tcp=port)


def test_the_http_handler_never_waits_and_counts_what_it_drops() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        handler = GelfHttpHandler(host="127.0.0.1", port=silent.getsockname()[1])
        logger = logging.Logger("x")
        logger.addHandler(handler)
        for number in range(3_000):
            logger.info("number %d", number)
        assert handler.dropped >= 1_900
        threading.Thread(target=handler.close, daemon=True).start()
