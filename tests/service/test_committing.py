"""Groups: what is committed together, and that what is wrong with one message costs the others nothing."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from parvis.recipe.envelope import RECIPE_HEADER
from parvis.service.base import AnyService, Retry, Step
from parvis.service.observer import Handled, Observer
from parvis.transport.base import Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, hosted, process_of, recipe_message
from sample_services import FactorParameters, Misspeaker, Multiplier, Number, OneByOne, Whereabouts
from tcp_proxy import TcpProxy
from waiting import wait_until


class Commits(Observer):
    """Writes down the sizes of transactions, in order; those that failed with a minus."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def committed(self, handled: Sequence[Handled]) -> None:
        self.sizes.append(len(handled))

    def uncommitted(self, handled: Sequence[Handled], reason: str) -> None:  # noqa: ARG002
        self.sizes.append(-len(handled))


def numbers(*values: int) -> list[Send]:
    return [recipe_message("multiply", {"number": value}) for value in values]


def results_of(listener: Listener) -> Counter[int]:
    return Counter(int(payload["number"]) for payload in listener.payloads())


def sizes_of(broker: BrokerThread, transport: StompTransport, service: type[AnyService]) -> list[int]:
    """Sizes of the transactions in which a backlog is handled."""
    commits, results = Commits(), Listener(transport, "results")
    transport.send(*numbers(*range(100, 200)))
    with hosted(broker.port, service, observers=[commits]):
        results.wait_for(100)
        wait_until(lambda: sum(commits.sizes) == 100, 10, "all commits to be told of")
    assert results_of(results) == Counter(range(200, 400, 2))
    return commits.sizes


def test_while_messages_are_waiting_several_are_committed_together(
    broker: BrokerThread, transport: StompTransport
) -> None:
    sizes = sizes_of(broker, transport, Multiplier)
    assert max(sizes) == Multiplier.prefetch // 2
    assert len(sizes) < 60


def test_a_service_may_ask_for_transactions_of_one(broker: BrokerThread, transport: StompTransport) -> None:
    assert set(sizes_of(broker, transport, OneByOne)) == {1}


def test_a_lone_message_waits_for_nothing(broker: BrokerThread, transport: StompTransport) -> None:
    commits, results = Commits(), Listener(transport, "results")
    with hosted(broker.port, Multiplier, observers=[commits]):
        for count in range(1, 4):
            transport.send(*numbers(100))
            results.wait_for(count)
        wait_until(lambda: commits.sizes == [1, 1, 1], 10, "three commits")


def test_retries_and_dead_letters_leave_in_the_same_transaction(
    broker: BrokerThread, transport: StompTransport
) -> None:
    commits, results = Commits(), Listener(transport, "results")
    letters = Listener(transport, "DLQ.test.multiply")
    transport.send(*numbers(100, 13, 101, 14, 102))
    with hosted(broker.port, Multiplier, observers=[commits]):
        results.wait_for(3)
        letters.wait_for(2)
    assert commits.sizes[0] > 1
    assert results_of(results) == Counter([200, 202, 204])
    assert [letter.headers["parvis-tries"] for letter in letters.messages] == ["1", "4"]


def test_what_cannot_be_sent_costs_only_the_message_that_wants_it(
    broker: BrokerThread, transport: StompTransport
) -> None:
    commits, results = Commits(), Listener(transport, "results")
    letters = Listener(transport, "DLQ.test.multiply")
    transport.send(*numbers(100, 101, 17, 102, 103, 104, 105))
    with hosted(broker.port, Misspeaker, observers=[commits]):
        results.wait_for(6)
        (letter,) = letters.wait_for(1)
        wait_until(lambda: sum(commits.sizes) == 7, 10, "all commits to be told of")
    assert results_of(results) == Counter([200, 202, 204, 206, 208, 210])
    assert "cannot be sent" in letter.headers["parvis-reason"]
    assert min(commits.sizes) > 0


class Confused(Multiplier):
    """Multiplies, and asks for a retry after what is no number of seconds where the number is 17."""

    def process(self, payload: Number, step: Step[FactorParameters]) -> None:
        if payload.number == 17:
            raise Retry("17 is not ready", after="soon")  # pyright: ignore[reportArgumentType] - on purpose
        super().process(payload, step)


def test_what_cannot_be_made_out_costs_only_the_message_that_is_at_fault(
    broker: BrokerThread, transport: StompTransport
) -> None:
    results, letters = Listener(transport, "results"), Listener(transport, "DLQ.test.multiply")
    transport.send(*numbers(100, 101, 17, 102, 103))
    with hosted(broker.port, Confused):
        results.wait_for(4)
        (letter,) = letters.wait_for(1)
    assert results_of(results) == Counter([200, 202, 204, 206])
    assert "cannot be sent" in letter.headers["parvis-reason"]


def test_a_node_whose_number_no_message_can_carry_costs_only_its_message(
    broker: BrokerThread, transport: StompTransport
) -> None:
    results, letters = Listener(transport, "results"), Listener(transport, "DLQ.test.multiply")
    huge = str(10**30)
    body = f'{{"recipe": {{"{huge}": {{}}}}, "recipe-pointer": {huge}, "payload": NaN}}'
    hostile = Send("multiply", body.encode(), {RECIPE_HEADER: "True"})
    transport.send(*numbers(100, 101), hostile, *numbers(102))
    with hosted(broker.port, Multiplier):
        results.wait_for(3)
        (letter,) = letters.wait_for(1)
    assert results_of(results) == Counter([200, 202, 204])
    assert "recipe-pointer must be the number of a node" in letter.headers["parvis-reason"]


class Unmentionable(Multiplier):
    """Listens to a queue of a name so long that its dead letters can have none."""

    name: ClassVar[str] = "Unmentionable"
    queue: ClassVar[str] = "m" * 250


def test_observers_hear_of_what_is_handed_back_for_good(
    broker: BrokerThread, transport: StompTransport
) -> None:
    """Else what they keep of a message that is under way would be kept for ever."""
    seen = Commits()
    with hosted(broker.port, Unmentionable, observers=[seen]):
        transport.send(recipe_message(Unmentionable.queue, {"number": 13}))
        wait_until(lambda: seen.sizes == [-1], 10, "the observer to be told")


def test_a_group_that_the_broker_refuses_costs_only_the_message_at_fault(
    broker: BrokerThread, transport: StompTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parvis.service.host._LONGEST_PAUSE", 0.01)
    commits, results = Commits(), Listener(transport, "results")
    letters = Listener(transport, "DLQ.test.multiply")
    (bad,) = numbers(13)
    large = {f"h{number}": "x" * 6900 for number in range(7)} | {"more": "y" * 600}
    too_large = Send(bad.destination, bad.body, {**bad.headers, **large})
    transport.send(*numbers(100, 101), too_large, *numbers(102, 103, 104))
    with hosted(broker.port, Multiplier, observers=[commits]):
        letters.wait_for(1, timeout=30)
        results.wait_for(5)
        wait_until(lambda: sum(size for size in commits.sizes if size > 0) == 6, 10, "all commits")
    assert results_of(results) == Counter([200, 202, 204, 206, 208])
    assert len(letters.messages) == 1
    assert min(commits.sizes) < -1


def test_a_message_that_kills_in_the_middle_of_a_group_costs_no_other(
    broker: BrokerThread, transport: StompTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parvis.service.settling._FIRST_DELAY", 0.01)
    results, letters = Listener(transport, "results"), Listener(transport, "DLQ.test.multiply")
    transport.send(*numbers(100, 101, 666, 102, 103, 104))
    with process_of(Multiplier, broker.port) as first:
        assert first.wait(timeout=20) == -9
    with hosted(broker.port, Multiplier):
        letters.wait_for(1, timeout=40)
        wait_until(lambda: len(results_of(results)) == 5, 20, "the others")
    assert set(results_of(results)) == {200, 202, 204, 206, 208}


def test_what_comes_again_to_the_process_that_had_it_needs_no_child(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    """The connection is lost, nobody died: the message is under no suspicion."""
    results, proxy = Listener(transport, "results"), TcpProxy(broker.port)
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    transport.send(recipe_message("sleep", {"started": str(started), "go-on": str(go_on)}))
    with contextlib.closing(proxy), hosted(proxy.port, Whereabouts):
        wait_until(started.exists, 20, "the message to be in hand")
        proxy.cut()
        wait_until(lambda: proxy.connections == 2, 20, "the connection to be made again")
        go_on.touch()
        results.wait_for(2)
    assert results.payloads()[-1] == {"process": os.getpid()}
