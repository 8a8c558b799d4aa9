"""Observers of a host: they are told what happens, and cannot stop it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import replace

import pytest

from parvis.config import Config
from parvis.observe.recent import Recent
from parvis.service.base import AnyService
from parvis.service.figures import OwnFigures
from parvis.service.flow import FlowControl
from parvis.service.observer import Handled, Observer
from parvis.service.observers import default_observers
from parvis.transport.base import Message, Send, Transport
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, hosted, recipe_message
from sample_services import Gatherer, Multiplier
from waiting import wait_until


class Notes(Observer):
    """Writes down what it is told, and puts a header on what is sent."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:
        assert transport.is_connected
        self.notes.append(f"started {services[0].name}")

    @contextlib.contextmanager
    def handling(self, service: AnyService, messages: Sequence[Message]) -> Generator[None]:
        self.notes.append(f"handling {len(messages)} for {service.name}")
        yield
        self.notes.append("handled")

    def sending(self, handled: Handled, sends: Sequence[Send]) -> Sequence[Send]:
        self.notes.append(f"{handled.outcome.result} sends {len(sends)}")
        return [replace(send, headers={**send.headers, "seen": "yes"}) for send in sends]

    def committed(self, handled: Sequence[Handled]) -> None:
        assert all(one.seconds >= 0 for one in handled)
        self.notes.append(f"committed {len(handled)}")

    def uncommitted(self, handled: Sequence[Handled], reason: str) -> None:
        self.notes.append(f"uncommitted {len(handled)}: {reason}")

    def stopped(self) -> None:
        self.notes.append("stopped")


class Failing(Observer):
    """Fails wherever it can."""

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:
        raise ZeroDivisionError(transport, services)

    def handling(
        self, service: AnyService, messages: Sequence[Message]
    ) -> contextlib.AbstractContextManager[None]:
        raise ZeroDivisionError(service, messages)

    def sending(self, handled: Handled, sends: Sequence[Send]) -> Sequence[Send]:
        raise ZeroDivisionError(handled, sends)

    def committed(self, handled: Sequence[Handled]) -> None:
        raise ZeroDivisionError(handled)

    def stopped(self) -> None:
        raise ZeroDivisionError


def test_an_observer_is_told_what_happens(broker: BrokerThread, transport: StompTransport) -> None:
    notes, results = Notes(), Listener(transport, "results", "DLQ.test.multiply")
    with hosted(broker.port, Multiplier, observers=[notes]):
        transport.send(recipe_message("multiply", {"number": 1}))
        results.wait_for(1)
        wait_until(lambda: "committed 1" in notes.notes, 10, "the commit to be told of")
        transport.send(recipe_message("multiply", {"number": 13}))
        results.wait_for(2)
    assert [message.headers["seen"] for message in results.messages] == ["yes", "yes"]
    handling = ["handling 1 for Multiplier", "handled"]
    assert notes.notes == [
        "started Multiplier",
        *[*handling, "done sends 1", "committed 1"],
        *[*handling, "reject sends 1", "committed 1"],
        "stopped",
    ]


def test_a_batch_is_told_of_as_one(broker: BrokerThread, transport: StompTransport) -> None:
    notes, results = Notes(), Listener(transport, "results")
    transport.send(*[recipe_message("gather", {"number": number}) for number in range(5)])
    with hosted(broker.port, Gatherer, observers=[notes]):
        results.wait_for(1)
    assert "handling 5 for Gatherer" in notes.notes
    assert "committed 5" in notes.notes


def test_a_transaction_that_the_broker_refuses_is_told_of(
    broker: BrokerThread, transport: StompTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parvis.service.host._LONGEST_PAUSE", 0.01)
    notes, letters = Notes(), Listener(transport, "DLQ.test.multiply")
    sent = recipe_message("multiply", {"number": "none"})
    large = {f"h{number}": "x" * 6900 for number in range(7)} | {"more": "y" * 600}
    with hosted(broker.port, Multiplier, observers=[notes]):
        transport.send(replace(sent, headers={**sent.headers, **large}))
        letters.wait_for(1, timeout=30)
    assert any(note.startswith("uncommitted 1: the broker refused") for note in notes.notes)


def test_an_observer_that_fails_stops_nothing(
    broker: BrokerThread, transport: StompTransport, caplog: pytest.LogCaptureFixture
) -> None:
    notes, results = Notes(), Listener(transport, "results")
    with hosted(broker.port, Multiplier, observers=[Failing(), notes]):
        transport.send(recipe_message("multiply", {"number": 1}))
        results.wait_for(1)
    assert results.messages[0].headers["seen"] == "yes"
    assert "committed 1" in notes.notes
    assert "Failing failed" in caplog.text


def test_nobody_watches_who_was_not_asked_to() -> None:
    config = Config(storage={"parvis.log_broadcast": "off"})
    assert [type(observer) for observer in default_observers(config)] == [FlowControl, Recent, OwnFigures]
