"""Records on their way to Graylog, received by a real socket."""

import json
import logging
import socket
import zlib
from collections.abc import Iterator

import pytest

from parvis.config import GraylogSettings
from parvis.observe.gelf import gelf_handler


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


def logger_for(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("parvis.service.Test")
    logger.addHandler(handler)
    return logger


def test_udp_message_has_the_fields_that_searches_use(udp: socket.socket):
    handler = gelf_handler(GraylogSettings("localhost", udp.getsockname()[1], "UDP"))
    extra = {"recipe_ID": "abc", "workflows_service": "DLS Filewatcher", "n": 3, "odd key!": True, "id": "x"}
    try:
        raise KeyError("k")
    except KeyError:
        logger_for(handler).error("first\nsecond", exc_info=True, extra=extra)
    handler.close()
    message = json.loads(zlib.decompress(udp.recv(65536)))
    assert message["version"] == "1.1"
    assert message["host"] == socket.gethostname()
    assert message["short_message"] == "first"
    assert message["full_message"].startswith("first\nsecond\nTraceback")
    assert message["level"] == 3
    assert message["_facility"] == "parvis.service.Test"
    assert message["_recipe_ID"] == "abc"
    assert message["_workflows_service"] == "DLS Filewatcher"
    assert message["_n"] == 3
    assert message["_odd_key_"] == "True"
    assert "_id" not in message


@pytest.mark.parametrize(
    ("level", "severity"), [(10, 7), (20, 6), (25, 5), (30, 4), (40, 3), (50, 2), (60, 1)]
)
def test_levels_become_syslog_severities(udp: socket.socket, level: int, severity: int):
    handler = gelf_handler(GraylogSettings("127.0.0.1", udp.getsockname()[1], "udp"))
    logger_for(handler).log(level, "x")
    handler.close()
    message = json.loads(zlib.decompress(udp.recv(65536)))
    assert message["level"] == severity
    assert "full_message" not in message


def incompressible(length: int) -> str:
    import random

    return random.Random(1).randbytes(length // 2).hex()


def test_long_message_goes_in_chunks(udp: socket.socket):
    handler = gelf_handler(GraylogSettings("127.0.0.1", udp.getsockname()[1], "UDP"))
    text = incompressible(8000)
    logger_for(handler).warning("short\n%s", text)
    handler.close()
    first = udp.recv(65536)
    pieces = [first] + [udp.recv(65536) for _ in range(first[11] - 1)]
    assert len(pieces) > 2
    assert {piece[:10] for piece in pieces} == {first[:10]}
    assert first[:2] == b"\x1e\x0f"
    assert [piece[10] for piece in pieces] == list(range(len(pieces)))
    assert all(len(piece) <= 1420 for piece in pieces)
    message = json.loads(zlib.decompress(b"".join(piece[12:] for piece in pieces)))
    assert message["full_message"] == f"short\n{text}"


def test_endless_record_is_cut(udp: socket.socket):
    handler = gelf_handler(GraylogSettings("127.0.0.1", udp.getsockname()[1], "UDP"))
    fields = {f"field{number}": incompressible(60_000) for number in range(10)}
    logger_for(handler).warning("too much", extra=fields)
    handler.close()
    message = json.loads(zlib.decompress(udp.recv(65536)))
    assert message["short_message"] == "too much"


def test_tcp_messages_end_with_a_zero_byte():
    with socket.create_server(("127.0.0.1", 0)) as server:
        handler = gelf_handler(GraylogSettings("127.0.0.1", server.getsockname()[1], "TCP"))
        logger = logger_for(handler)
        logger.info("one")
        logger.info("two")
        handler.close()
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            received = stream.read()
    assert [json.loads(part)["short_message"] for part in received.split(b"\0")[:-1]] == ["one", "two"]


def test_absent_server_costs_nothing(capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    handler = gelf_handler(GraylogSettings("127.0.0.1", port, "TCP"))
    logger_for(handler).info("lost")
    handler.close()


def test_a_host_that_nobody_knows_costs_nothing(capsys: pytest.CaptureFixture[str]):
    handler = gelf_handler(GraylogSettings("no.such.host.invalid", 12201, "UDP"))
    logger_for(handler).info("lost")
    handler.close()
    assert capsys.readouterr().err == ""
