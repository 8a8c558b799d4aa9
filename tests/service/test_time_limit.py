"""Time limits: what takes too long is interrupted, and what cannot be interrupted is ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from parvis.config import Config, ConfigError
from parvis.service.handling import Batch, Outcome, handle, handle_batch, read
from parvis.service.isolated import IsolatedService
from parvis.transport.base import Message
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, hosted, process_of, recipe_message
from sample_services import Dawdler, DawdlingGatherer, Multiplier
from waiting import wait_until


def message(how: str, **node: object) -> Message:
    send = recipe_message("dawdle", {"how": how}, **node)
    return Message(send.destination, send.body, send.headers, "1", 1)


@pytest.fixture
def isolated() -> Iterator[IsolatedService]:
    service = IsolatedService(Dawdler(Config()))
    yield service
    service.close()


@pytest.mark.parametrize("how", ["asleep", "deaf to exceptions"])
def test_what_takes_too_long_is_interrupted(how: str) -> None:
    outcome = handle(Dawdler(Config()), message(how))
    assert (outcome.result, outcome.reason) == ("timeout", "it took longer than 0.2 s")
    assert "sample_services.py" in outcome.trace


def test_the_node_of_the_recipe_counts_more_than_the_service() -> None:
    outcome = handle(Dawdler(Config()), message("asleep", timeout=0.05))
    assert outcome.reason == "it took longer than 0.05 s"


@pytest.mark.parametrize("nonsense", [0, -1, "soon", True])
def test_a_limit_that_is_none_is_bad_input(nonsense: object) -> None:
    outcome = handle(Dawdler(Config()), message("quick", timeout=nonsense))
    assert outcome.result == "reject"
    assert "timeout" in outcome.reason


def test_what_is_in_time_is_left_alone_afterwards() -> None:
    assert handle(Dawdler(Config()), message("quick", timeout=0.1)).result == "done"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_batch_that_takes_too_long_is_handled_one_by_one() -> None:
    service = DawdlingGatherer(Config())
    sends = [recipe_message("gather", {"number": number}) for number in (1, 17, 2)]
    messages = [Message(send.destination, send.body, send.headers, "1", 1) for send in sends]
    outcomes = handle_batch(service, Batch(messages, [read(service, one) for one in messages]))
    assert [outcome.result for outcome in outcomes] == ["done", "timeout", "done"]


def results(isolated: IsolatedService, *hows: str) -> list[Outcome]:
    return [isolated.handle([message(how)])[0] for how in hows]


def test_in_a_child_it_is_interrupted_and_the_child_goes_on(isolated: IsolatedService) -> None:
    first, late, last = results(isolated, "quick", "asleep", "quick")
    assert (late.result, late.reason) == ("timeout", "it took longer than 0.2 s")
    assert first.sends[0].body == last.sends[0].body  # which names the process


def test_a_child_that_cannot_be_interrupted_is_killed(isolated: IsolatedService) -> None:
    late, last = results(isolated, "in C", "quick")
    assert (late.result, late.reason) == (
        "timeout",
        "it took longer than 0.2 s, and could not be interrupted",
    )
    assert last.result == "done"


def test_a_child_may_have_so_much_memory(isolated: IsolatedService) -> None:
    greedy, last = results(isolated, "greedy", "quick")
    assert greedy.result == "fail"
    assert greedy.reason.startswith("MemoryError")
    assert "400 MB" in greedy.reason
    assert last.result == "done"


def test_the_configuration_bounds_the_memory_of_a_child() -> None:
    isolated = IsolatedService(Dawdler(Config(storage={"parvis.isolated_memory": 300})))
    (greedy,) = results(isolated, "greedy")
    isolated.close()
    assert "300 MB" in greedy.reason
    with pytest.raises(ConfigError, match=r"parvis\.isolated_memory must be a number of megabytes"):
        IsolatedService(Multiplier(Config(storage={"parvis.isolated_memory": "lots"})))


def test_in_a_host_it_is_a_dead_letter_that_says_why(broker: BrokerThread, transport: StompTransport) -> None:
    letters = Listener(transport, "DLQ.test.dawdle")
    transport.send(recipe_message("dawdle", {"how": "asleep"}))
    with process_of(Dawdler, broker.port) as process:
        (letter,) = letters.wait_for(1)
        assert process.poll() is None
    assert letter.headers["parvis-reason"] == "it took longer than 0.2 s"


def test_a_process_that_cannot_be_interrupted_ends_and_the_message_costs_only_children_then(
    broker: BrokerThread, transport: StompTransport
) -> None:
    letters, answers = Listener(transport, "DLQ.test.dawdle"), Listener(transport, "results")
    transport.send(recipe_message("dawdle", {"how": "in C"}))
    with process_of(Dawdler, broker.port) as process:
        assert process.wait(timeout=20) == 1
    with hosted(broker.port, Dawdler):
        (letter,) = letters.wait_for(1, timeout=30)
        transport.send(recipe_message("dawdle", {"how": "quick"}))
        answers.wait_for(1)
    assert "took longer than 0.2 s" in letter.headers["parvis-reason"]


def test_a_host_beside_the_main_thread_handles_what_is_in_time(
    broker: BrokerThread, transport: StompTransport
) -> None:
    answers = Listener(transport, "results")
    with hosted(broker.port, Dawdler):
        for _ in range(3):
            transport.send(recipe_message("dawdle", {"how": "quick"}))
        answers.wait_for(3)
        # Beyond the time after which the process would have been ended, if it were still watched.
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > 1.3, 5, "the time to pass")
