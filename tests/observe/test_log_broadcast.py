"""Log records on the topic `transient.log`: sent by a host, read by whoever looks."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbox import Inbox
from parvis.config import Config, ConfigError
from parvis.observe.log_broadcast import TOPIC, LoggedLine, broadcast_level, read_line
from parvis.service.host import Host
from parvis.service.status import host_id
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from real.rabbitmq.vhost import VirtualHost
from running import Listener, hosted, in_thread, recipe_message
from sample_services import Multiplier
from waiting import wait_until

log = logging.getLogger("parvis.service.Multiplier")


@pytest.fixture
def lines(transport: StompTransport, caplog: pytest.LogCaptureFixture) -> Inbox:
    """What is broadcast; the loggers of services are as loud as in a service."""
    caplog.set_level(logging.INFO, "parvis")
    heard = Inbox()
    transport.subscribe_broadcast(TOPIC, heard)
    return heard


def find(heard: Inbox, text: str) -> LoggedLine:
    """Return the first record that holds a text, once it is there."""

    def found() -> list[LoggedLine]:
        read = [read_line(message.body) for message in heard.messages]
        return [line for line in read if line is not None and text in line.message]

    wait_until(found, 20, f"a record that says {text!r}")
    return found()[0]


def test_a_record_tells_who_made_it_and_about_what(
    broker: BrokerThread, transport: StompTransport, lines: Inbox
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    with hosted(broker.port, Multiplier):
        transport.send(recipe_message("multiply", {"number": 13}))
        letters.wait_for(1)
        line = find(lines, "13 is no good")
    assert (line.host, line.recipe) == (host_id(), "test-recipe")
    assert line.level in {"WARNING", "ERROR"}
    assert line.time > 1.7e9
    assert all(message.headers.get("persistent", "false") == "false" for message in lines.messages)


def test_a_flood_is_cut_and_counted(broker: BrokerThread, lines: Inbox) -> None:
    with hosted(broker.port, Multiplier):
        find(lines, "ready")
        for number in range(1000):
            log.info("flood %d", number)
        cut = find(lines, "more log records are not shown here")
        assert 900 <= int(cut.message.split()[0]) < 1000
    assert len(lines.messages) < 60


def test_long_and_hostile_messages(broker: BrokerThread, lines: Inbox) -> None:
    with hosted(broker.port, Multiplier):
        find(lines, "ready")
        log.warning("%s", "long \x1b]0;title\x07 \u202e [red] " + "x" * 10_000_000)
        line = find(lines, "long")
    assert line.message.isprintable()
    assert len(line.message) <= 500


def test_a_host_that_ended_broadcasts_no_more(broker: BrokerThread, lines: Inbox) -> None:
    before = list(logging.getLogger().handlers)
    with hosted(broker.port, Multiplier):
        find(lines, "ready")
    assert logging.getLogger().handlers == before


@pytest.mark.parametrize(
    ("value", "level"), [("warning", logging.WARNING), ("DEBUG", logging.DEBUG), ("off", None), (False, None)]
)
def test_the_level_is_a_setting(value: object, level: int | None) -> None:
    assert broadcast_level(Config(storage={"parvis.log_broadcast": value})) == level


def test_no_level() -> None:
    assert broadcast_level(Config()) == logging.INFO
    with pytest.raises(ConfigError, match="must be one of DEBUG, INFO"):
        broadcast_level(Config(storage={"parvis.log_broadcast": "loud"}))


_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_KEYS = st.sampled_from(["time", "level", "service", "host", "recipe_ID", "message"])


@given(st.binary() | st.dictionaries(_KEYS, _PLAIN).map(lambda told: json.dumps(told).encode()))
def test_anything(body: bytes) -> None:
    line: Any = read_line(body)
    assert line is None or all(
        value.isprintable() for value in asdict(line).values() if isinstance(value, str)
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"time": 1, "message": "' + b"x" * 20_000 + b'"}'])
def test_what_is_no_record(body: bytes) -> None:
    assert read_line(body) is None


@pytest.mark.real("rabbitmq")
def test_on_rabbitmq(vhost: VirtualHost, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "parvis")
    with in_thread(Host(vhost.transport(), [Multiplier(Config())])):  # nobody hears what it says first
        heard, transport = Inbox(), vhost.transport()
        transport.connect()
        transport.subscribe_broadcast(TOPIC, heard)
        wait_until(lambda: "ready: Multiplier" in caplog.text, 20, "the service to be ready")
        log.warning("said on RabbitMQ")
        assert find(heard, "said on RabbitMQ").service == "Multiplier"
        transport.disconnect()
