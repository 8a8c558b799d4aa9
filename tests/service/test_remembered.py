"""Messages that come twice, where a service wants each of them handled once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from parvis.service.base import Step
from parvis.service.contract import Anything
from parvis.service.identity import IDENTITY
from parvis.service.observer import Handled, Observer
from parvis.service.remembered import Remembered
from parvis.transport.base import Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, hosted, process_of, recipe_message
from sample_services import Misspeaker, Number, Rememberer, RememberingGatherer
from waiting import wait_until


class Results(Observer):
    """Writes down what came of each message."""

    def __init__(self) -> None:
        self.results: list[str] = []

    def committed(self, handled: Sequence[Handled]) -> None:
        self.results += [one.outcome.result for one in handled]


def message(identity: str, number: int, queue: str = "multiply") -> Send:
    send = recipe_message(queue, {"number": number})
    return replace(send, headers={**send.headers, IDENTITY: identity})


def test_what_was_done_is_only_acknowledged_the_second_time(
    broker: BrokerThread, transport: StompTransport
) -> None:
    seen, results = Results(), Listener(transport, "results")
    with hosted(broker.port, Rememberer, observers=[seen]):
        transport.send(message("a", 1))
        results.wait_for(1)
        transport.send(message("a", 1), message("b", 2), message("b", 2), message("c", 3))
        wait_until(lambda: len(seen.results) == 5, 10, "all to be settled")
    assert [payload["number"] for payload in results.payloads()] == [2, 4, 6]
    assert seen.results == ["done", "duplicate", "done", "duplicate", "done"]


def test_a_retry_is_no_duplicate(broker: BrokerThread, transport: StompTransport) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    with hosted(broker.port, Rememberer):
        transport.send(message("a", 14))
        (letter,) = letters.wait_for(1)
    assert letter.headers["parvis-tries"] == "4"


def test_a_dead_letter_that_is_sent_in_again_counts(broker: BrokerThread, transport: StompTransport) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    with hosted(broker.port, Rememberer):
        transport.send(message("a", 13))
        letters.wait_for(1)
        transport.send(replace(message("a", 13), headers={**message("a", 13).headers, "note": "mended"}))
        letters.wait_for(2)


def test_duplicates_in_a_batch(broker: BrokerThread, transport: StompTransport) -> None:
    seen, results = Results(), Listener(transport, "results")
    with hosted(broker.port, RememberingGatherer, observers=[seen]):
        transport.send(*[message(f"{number}", number, "gather") for number in range(5)])
        results.wait_for(1)
        transport.send(*[message(f"{number}", number, "gather") for number in (0, 1, 6, 7, 8)])
        results.wait_for(2)
        wait_until(lambda: len(seen.results) == 10, 10, "all to be settled")
    assert [payload["numbers"] for payload in results.payloads()] == [[0, 1, 2, 3, 4], [6, 7, 8]]
    assert seen.results.count("duplicate") == 2


class ForgetfulMisspeaker(Misspeaker):
    """Wants to send what no transport takes where the number is 17; does each message once."""

    name: ClassVar[str] = "ForgetfulMisspeaker"
    remember: ClassVar[float] = 600


class MisspeakingGatherer(RememberingGatherer):
    """Sends the numbers of a batch together, and what no transport takes if there is a 17."""

    name: ClassVar[str] = "MisspeakingGatherer"

    def process_batch(self, batch: Sequence[tuple[Number, Step[Anything]]]) -> None:
        if any(payload.number == 17 for payload, _ in batch):
            batch[0][1].send_to_queue(Send("results", b"", {"receipt": "mine"}))
        super().process_batch(batch)


def test_what_could_not_be_sent_is_no_duplicate_when_it_comes_again(
    broker: BrokerThread, transport: StompTransport
) -> None:
    letters, results = Listener(transport, "DLQ.test.multiply"), Listener(transport, "results")
    with hosted(broker.port, ForgetfulMisspeaker):
        transport.send(message("a", 17))
        letters.wait_for(1)
        transport.send(message("a", 3))
        results.wait_for(1)


def test_a_batch_of_which_one_cannot_be_sent_is_no_duplicate(
    broker: BrokerThread, transport: StompTransport
) -> None:
    letters, results = Listener(transport, "DLQ.test.gather"), Listener(transport, "results")
    with hosted(broker.port, MisspeakingGatherer):
        transport.send(*[message(f"{number}", number, "gather") for number in (1, 2, 17, 3, 4)])
        letters.wait_for(1)
        results.wait_for(4)
    assert [payload["numbers"] for payload in results.payloads()] == [[1], [2], [3], [4]]


def test_two_copies_in_one_batch(broker: BrokerThread, transport: StompTransport) -> None:
    seen, results = Results(), Listener(transport, "results")
    with hosted(broker.port, RememberingGatherer, observers=[seen]):
        transport.send(*[message(f"{number}", number, "gather") for number in (1, 1, 2, 2, 99)])
        results.wait_for(1)
        wait_until(lambda: len(seen.results) == 5, 10, "all to be settled")
    assert [payload["numbers"] for payload in results.payloads()] == [[1, 2, 99]]
    assert seen.results == ["done", "duplicate", "done", "duplicate", "done"]


def test_with_a_state_directory_another_process_remembers(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    file = tmp_path / "zocalo.yml"
    file.write_text(
        f"version: 1\nstate:\n  plugin: storage\n  parvis.state_directory: {tmp_path}\n"
        "environments:\n  default: [state]\n"
    )
    environment = {"ZOCALO_CONFIG": str(file)}
    results = Listener(transport, "results")
    with process_of(Rememberer, broker.port, environment) as first:
        transport.send(message("a", 1))
        results.wait_for(1)
        first.terminate()
        assert first.wait(timeout=20) == 0
    with process_of(Rememberer, broker.port, environment):
        transport.send(message("a", 1), message("b", 2))
        results.wait_for(2)
    assert [payload["number"] for payload in results.payloads()] == [2, 4]
    assert (tmp_path / "handled" / "test.multiply.sqlite").exists()


def test_what_was_not_confirmed_is_not_remembered(tmp_path: Path) -> None:
    memory = Remembered(600, tmp_path / "file")
    memory.expect("a")
    assert memory.knows("a")  # as long as the transaction may still succeed
    memory.forget(["a"])
    assert not memory.knows("a")
    memory.record(["a"])
    assert memory.knows("a")
    memory.close()
    assert Remembered(600, tmp_path / "file").knows("a")


def test_it_is_forgotten_after_its_time(tmp_path: Path) -> None:
    for file in (None, tmp_path / "file"):
        memory = Remembered(0.05, file)
        memory.record(["a"])
        wait_until(lambda memory=memory: not memory.knows("a"), 5, "the time to pass")
        memory.close()


def test_messages_without_identity_are_never_the_same() -> None:
    memory = Remembered(600)
    memory.expect("")
    memory.record([""])
    assert not memory.knows("")


def test_a_file_that_cannot_be_used_costs_only_the_memory_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(os.urandom(4096))
    memory = Remembered(600, tmp_path / "file")
    memory.record(["a"])
    assert memory.knows("a")
    assert not memory.knows("b")
    assert "cannot be used" in caplog.text
