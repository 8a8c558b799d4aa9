"""Questions to brokers that answer in ways real ones rarely do; those are in `test_queue_figures.py`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager

import pytest

from parvis.config import Config, StompSettings
from parvis.observe.queue_figures import NoFigures, open_queue_source
from parvis.transport.base import BrokerRefused, Disconnected, NoConnection, NotAdmitted
from parvis.transport.stomp_console import NoAnswer, StompConsole
from parvis.transport.stomp_frames import Frame, encode
from scripted_broker import Answer, ScriptedBroker, receipt

STATISTICS = "/topic/ActiveMQ.Statistics.Broker"


def activemq(frame: Frame) -> bytes:
    """An ActiveMQ that accepts everything, and answers no question."""
    if frame.command == "CONNECT":
        return encode(
            Frame("CONNECTED", {"version": "1.2", "server": "ActiveMQ/5.17.2", "heart-beat": "0,0"})
        )
    return receipt(frame)


def answering(body: bytes) -> Answer:
    """An ActiveMQ that answers every question with this."""

    def answer(frame: Frame) -> bytes:
        said = activemq(frame)
        if frame.command != "SEND":
            return said
        headers = {
            "subscription": "/temp-queue/answers",
            "message-id": "1",
            "destination": frame.headers["reply-to"],
            "correlation-id": frame.headers["correlation-id"],
        }
        return said + encode(Frame("MESSAGE", headers, body))

    return answer


@contextmanager
def console(answer: Answer) -> Generator[StompConsole]:
    broker = ScriptedBroker(answer)
    opened = StompConsole([("127.0.0.1", broker.port)], "user", "sesame")
    with closing(broker), closing(opened):
        yield opened


def test_a_single_entry_is_a_map_too() -> None:
    with console(answering(b'{"map":{"entry":{"string":"size","long":5}}}')) as asked:
        assert asked.ask([STATISTICS]) == [[{"size": 5}]]


@pytest.mark.parametrize(
    "body", [b"", b"\x00\x01", b"[]", b'{"map":""}', b'{"map":{"entry":[{"string":"x"}]}}']
)
def test_answers_that_cannot_be_read_say_what_the_broker_needs(body: bytes) -> None:
    with console(answering(body)) as asked, pytest.raises(BrokerRefused, match="jettison and xstream"):
        asked.ask([STATISTICS])


def test_a_broker_without_the_plug_in_does_not_answer() -> None:
    with console(activemq) as asked:
        with pytest.raises(NoAnswer):
            asked.ask([STATISTICS], 0.1)
        with pytest.raises(NoAnswer, match="does not show all that is in work"):
            list(asked.browse("work", 5, 0.1))


def test_then_one_line_says_what_to_enable() -> None:
    with closing(ScriptedBroker(activemq)) as broker:
        config = Config(stomp=StompSettings("127.0.0.1", broker.port, "", ""))
        with pytest.raises(NoFigures, match=r"ActiveMQ/5\.17\.2 at .*<statisticsBrokerPlugin/>.*plugin jmx"):
            open_queue_source(config)


def test_another_broker_is_not_asked_what_it_does_not_know() -> None:
    sent: list[str] = []

    def rabbit(frame: Frame) -> bytes:
        sent.append(frame.command)
        if frame.command == "CONNECT":
            return encode(Frame("CONNECTED", {"version": "1.2", "server": "RabbitMQ/3.10.8"}))
        return receipt(frame)

    with closing(ScriptedBroker(rabbit)) as broker:
        config = Config(stomp=StompSettings("127.0.0.1", broker.port, "", ""))
        with pytest.raises(NoFigures, match="plugin rabbitmqapi"):
            open_queue_source(config)
    assert "SEND" not in sent


def test_a_broker_that_hangs_up_or_refuses() -> None:
    with (
        console(lambda frame: activemq(frame) if frame.command == "CONNECT" else None) as asked,
        pytest.raises(Disconnected, match="closed the connection"),
    ):
        asked.ask([STATISTICS])
    refusal = encode(Frame("ERROR", {"message": "no user with password sesame"}))
    with console(lambda _: refusal) as asked, pytest.raises(NotAdmitted, match=r"password \*\*\*"):
        asked.ask([STATISTICS])
    with closing(StompConsole([("127.0.0.1", 1)], "", "")) as nobody, pytest.raises(NoConnection):
        nobody.ask([STATISTICS])
