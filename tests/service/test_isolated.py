"""Handling in a child process: what is charged to the message, and what is not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from parvis.config import Config
from parvis.service.base import Service, Step
from parvis.service.contract import Anything
from parvis.service.handling import Outcome
from parvis.service.isolated import IsolatedService
from parvis.service.observers import Observers
from parvis.service.worker import Worker
from parvis.transport.base import Message
from parvis.transport.embedded.thread import BrokerThread
from running import connected, process_of, recipe_message
from sample_services import Multiplier, Sleeper
from waiting import wait_until


@pytest.fixture
def isolated() -> Iterator[IsolatedService]:
    service = IsolatedService(Multiplier(Config()))
    yield service
    service.close()


def message(number: int) -> Message:
    send = recipe_message("multiply", {"number": number})
    return Message(send.destination, send.body, send.headers, "1", 1, redelivered=True)


def handle(isolated: IsolatedService, *numbers: int) -> list[Outcome]:
    return isolated.handle([message(number) for number in numbers])


def children() -> list[psutil.Process]:
    """Our children that handle messages; test servers are children, too."""
    return [each for each in psutil.Process().children() if "parvis.service.isolated" in each.cmdline()]


def child() -> psutil.Process:
    (found,) = children()
    return found


def test_what_a_child_sends_is_what_the_service_sends(isolated: IsolatedService) -> None:
    (outcome,) = handle(isolated, 21)
    assert outcome.result == "done"
    assert b'"number":42' in outcome.sends[0].body


def test_a_message_that_kills_its_child_is_charged_for_it(isolated: IsolatedService) -> None:
    (outcome,) = handle(isolated, 666)
    assert (outcome.result, "SIGKILL" in outcome.reason) == ("crash", True)
    assert handle(isolated, 1)[0].result == "done"


def test_of_several_messages_only_the_one_that_kills_is_charged(isolated: IsolatedService) -> None:
    assert [outcome.result for outcome in handle(isolated, 1, 666, 2)] == ["done", "crash", "done"]


def test_a_child_that_dies_while_idle_is_replaced(isolated: IsolatedService) -> None:
    handle(isolated, 1)
    first = child()
    first.kill()
    wait_until(lambda: first.status() == psutil.STATUS_ZOMBIE, 10, "the end of the child")
    assert handle(isolated, 2)[0].result == "done"
    assert child().pid != first.pid


def test_a_signal_that_ends_the_whole_group_is_left_to_the_host(isolated: IsolatedService) -> None:
    handle(isolated, 1)
    before = child().pid
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(before, number)
    assert handle(isolated, 2)[0].result == "done"
    assert child().pid == before


class NotToBeFound(Service[Anything, Anything]):
    """A service whose module no other process can import."""

    name: ClassVar[str] = "NotToBeFound"
    queue: ClassVar[str] = "nowhere"

    def process(self, payload: Anything, step: Step[Anything]) -> None:
        """Nothing to do."""


def test_a_child_that_cannot_start_is_not_the_fault_of_the_message() -> None:
    isolated = IsolatedService(NotToBeFound(Config()))
    (outcome,) = isolated.handle([message(1)])
    isolated.close()
    assert outcome.result == "retry"
    assert "exit code 1" in outcome.reason


def test_nothing_is_left_when_it_is_closed(isolated: IsolatedService) -> None:
    handle(isolated, 1)
    isolated.close()
    assert children() == []


def test_a_child_does_not_outlive_a_host_that_is_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with BrokerThread(port=0) as broker, connected(broker.port) as transport:
        transport.send(recipe_message("sleep", {"started": str(started), "go-on": str(tmp_path / "never")}))
        with process_of(Sleeper, broker.port) as first:
            wait_until(started.exists, 20, "the message to be in hand")
            first.kill()
        started.unlink()
        with process_of(Sleeper, broker.port) as second:
            wait_until(started.exists, 20, "the message to be in hand again")
            (child,) = psutil.Process(second.pid).children()
            second.kill()
        wait_until(lambda: not child.is_running(), 10, "the end of the child")


class OnlyOne(Multiplier):
    """There can be only one of it."""

    isolates: ClassVar[bool] = False


@pytest.mark.parametrize(("service", "count"), [(Multiplier, 1), (OnlyOne, 0)])
def test_a_service_of_which_there_is_only_one_gets_no_second(service: type[Multiplier], count: int) -> None:
    worker = Worker(service(Config()), Observers(()), survived=())
    assert worker.handle(message(21)).outcome.result == "done"
    assert len(children()) == count
    worker.close()
