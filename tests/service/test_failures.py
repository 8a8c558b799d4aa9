"""What becomes of messages that end for good: error nodes, dead letters, and how often they were tried."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis.recipe.envelope import RECIPE_HEADER, Envelope, dump_json
from parvis.recipe.policy import PolicyError, policy_of
from parvis.service import base
from parvis.service.base import Retry, Service, Step
from parvis.service.contract import Anything, Outputs
from parvis.service.failure import route
from parvis.transport.base import Message, Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from running import Listener, hosted, process_of
from sample_services import Dawdler, Multiplier
from waiting import wait_until

REJECTED, RETRIED, FAILING = 13, 14, 15


class ErrorDesk(Service[Anything, Anything]):
    """An error node; fails if it is told to."""

    name: ClassVar[str] = "ErrorDesk"
    queue: ClassVar[str] = "errors"
    outputs: ClassVar[Outputs] = {"seen": None}
    default_output: ClassVar[str | None] = "seen"

    def process(self, payload: Anything, step: Step[Anything]) -> None:
        if getattr(payload, "payload", {}).get("mend") == "never":
            raise ValueError("what is broken breaks me")
        step.send("seen", payload)


class Patient(Service[Anything, Anything]):
    """Asks for another try, with a delay that no test would wait for, and counts."""

    name: ClassVar[str] = "Patient"
    queue: ClassVar[str] = "patient"
    tries: ClassVar[list[str]] = []

    def process(self, payload: Anything, step: Step[Anything]) -> None:  # noqa: ARG002
        self.tries.append(step.identity)
        raise Retry("not yet", after=100)


def recipe(**changes: Any) -> dict[str, Any]:
    """1 multiplies, 2 gets the results; nothing leads to 3 but what a test makes of it."""
    nodes: dict[str, Any] = {
        "1": {"queue": "multiply", "output": 2, "retry-delay": 0, **changes.pop("n1", {})},
        "2": {"queue": "results"},
        "3": {"queue": "failed"},
        "start": [[1, {}]],
    }
    return nodes | {key.removeprefix("n"): value for key, value in changes.items()}


def message(number: int, content: dict[str, Any], node: int = 1, **more: Any) -> Send:
    body = {
        "recipe": content,
        "recipe-pointer": node,
        "recipe-path": more.pop("path", []),
        "environment": {"ID": "r1", "kept": True},
        "payload": {"number": number, **more},
    }
    headers = {RECIPE_HEADER: "True", "parvis-first-seen": "1234567890123"}
    return Send(content[str(node)]["queue"], dump_json(body), headers)


@pytest.mark.parametrize(
    ("number", "reason", "result", "tries"),
    [
        (REJECTED, "13 is no good", "rejected", 1),
        (RETRIED, "14 is not ready", "gave up after 3 retries", 4),
        (FAILING, "ZeroDivisionError: 15 is a surprise", "failed 2 times", 2),
    ],
)
def test_error_nodes_get_what_failed_instead_of_the_dead_letters(
    broker: BrokerThread, transport: StompTransport, number: int, reason: str, result: str, tries: int
) -> None:
    heard = Listener(transport, "failed", "DLQ.test.multiply")
    content = recipe(n1={"error": 3})
    with hosted(broker.port, Multiplier):
        transport.send(message(number, content), message(REJECTED, recipe()))
        heard.wait_for(2)
    (failed,) = [each for each in heard.messages if each.destination == "failed"]
    envelope = Envelope.parse(failed.body)
    error = envelope.payload["error"]
    assert envelope.payload["payload"] == {"number": number}
    assert (error["reason"], error["result"], error["tries"]) == (reason, result, tries)
    assert (error["service"], error["node"]) == ("Multiplier", 1)
    assert set(error) - {"traceback"} == {"reason", "result", "service", "host", "time", "node", "tries"}
    assert ("sample_services.py" in error.get("traceback", "")) == (number == FAILING)
    assert (envelope.pointer, envelope.path) == (3, [1])
    assert envelope.environment == {"ID": "r1", "kept": True}
    assert failed.headers["parvis-first-seen"] == "1234567890123"
    # Of the two, the one without error nodes is a dead letter, and the other is not.
    letters = [each for each in heard.messages if each.destination != "failed"]
    assert [orjson.loads(each.body)["recipe"] for each in letters] == [recipe()]


def test_a_crash_goes_to_the_error_nodes_too(broker: BrokerThread, transport: StompTransport) -> None:
    heard = Listener(transport, "failed")
    killed_once = message(666, recipe(n1={"error": [3], "retries": 0}))
    headers = {**killed_once.headers, "parvis-crashes": "1"}
    with hosted(broker.port, Multiplier):
        transport.send(Send(killed_once.destination, killed_once.body, headers))
        heard.wait_for(1)
    error = heard.payloads()[0]["error"]
    assert error["reason"] == "the process for it died of SIGKILL"
    assert error["tries"] == 3


def test_the_error_nodes_of_the_recipe_stand_in_for_those_of_a_node(
    broker: BrokerThread, transport: StompTransport
) -> None:
    own, common = Listener(transport, "own"), Listener(transport, "failed")
    with hosted(broker.port, Multiplier):
        transport.send(
            message(REJECTED, recipe(error=[3])),
            message(REJECTED, recipe(n1={"error": [4]}, n4={"queue": "own"}, error=[3])),
        )
        own.wait_for(1)
        common.wait_for(1)
    assert len(own.messages) == len(common.messages) == 1


def test_every_error_node_gets_it(broker: BrokerThread, transport: StompTransport) -> None:
    heard = Listener(transport, "failed", "own")
    with hosted(broker.port, Multiplier):
        transport.send(message(REJECTED, recipe(n1={"error": [3, 4]}, n4={"queue": "own"})))
        heard.wait_for(2)
    assert sorted(each.destination for each in heard.messages) == ["failed", "own"]


@pytest.mark.parametrize("target", [3, 4])
def test_what_fails_in_an_error_node_is_a_dead_letter_whatever_it_says(
    broker: BrokerThread, transport: StompTransport, target: int
) -> None:
    letters = Listener(transport, "DLQ.test.errors")
    content = recipe(error=[3], n3={"queue": "errors", "error": target, "retries": 0}, n4={"queue": "own"})
    with hosted(broker.port, Multiplier, ErrorDesk):
        transport.send(message(REJECTED, content, mend="never"))
        (letter,) = letters.wait_for(1)
    assert letter.headers["parvis-reason"] == "ValueError: what is broken breaks me"
    assert letter.headers["parvis-route"] == "1 multiply > 3 errors"
    assert orjson.loads(letter.body)["payload"]["error"]["reason"] == "13 is no good"


def test_what_fails_behind_an_error_node_does_not_go_round(
    broker: BrokerThread, transport: StompTransport
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    content = recipe(error=[3], n3={"queue": "errors", "output": 4}, n4={"queue": "multiply"})
    with hosted(broker.port, Multiplier, ErrorDesk):
        transport.send(message(REJECTED, content))
        (letter,) = letters.wait_for(1)
    assert letter.headers["parvis-route"] == "1 multiply > 3 errors > 4 multiply"
    assert letter.headers["parvis-first-seen"] == "1234567890123"


@pytest.mark.parametrize(
    "node",
    [
        {"queue": "no such/queue"},
        {"service": "without queue"},
        {"queue": "failed", "transport-delay": "long"},
        {"queue": "failed", "priority": 77},
        "nonsense",
        None,
    ],
)
def test_an_error_node_that_cannot_be_sent_to_leaves_a_dead_letter(
    broker: BrokerThread, transport: StompTransport, node: Any
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    with hosted(broker.port, Multiplier):
        transport.send(message(REJECTED, recipe(n1={"error": 3}, n3=node)))
        (letter,) = letters.wait_for(1)
    assert letter.headers["parvis-reason"] == "13 is no good"


def test_more_error_nodes_than_can_be_sent_to_leave_a_dead_letter(
    broker: BrokerThread, transport: StompTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MOST_MESSAGES", 100)
    heard = Listener(transport, "failed", "DLQ.test.multiply")
    many = {f"n{number}": {"queue": "failed"} for number in range(4, 200)}
    with hosted(broker.port, Multiplier):
        transport.send(message(REJECTED, recipe(error=list(range(3, 200)), **many)))
        (letter,) = heard.wait_for(1)
    assert letter.destination != "failed"
    assert letter.headers["parvis-reason"] == "13 is no good"


def test_what_breaks_its_reader_is_a_dead_letter_with_a_reason(
    broker: BrokerThread, transport: StompTransport
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    pointer = b'"recipe-pointer":'
    deep = message(1, recipe()).body.replace(pointer + b"1", pointer + b"[" * 990 + b"]" * 990)
    with hosted(broker.port, Multiplier):
        transport.send(Send("multiply", deep, {RECIPE_HEADER: "True"}))
        (letter,) = letters.wait_for(1)
    assert letter.headers["parvis-reason"] == "recipe-pointer must be the number of a node, it is a list"


def test_a_topic_does_not_stand_in_for_the_dead_letter(
    broker: BrokerThread, transport: StompTransport
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    heard: list[Message] = []
    transport.subscribe_broadcast("told", heard.append)
    with hosted(broker.port, Multiplier):
        transport.send(message(REJECTED, recipe(n1={"error": 3}, n3={"topic": "told"})))
        letters.wait_for(1)
        wait_until(lambda: heard, 10, "the broadcast")


def test_a_time_out_goes_to_the_error_nodes(broker: BrokerThread, transport: StompTransport) -> None:
    heard = Listener(transport, "failed")
    content = recipe(n2={"queue": "dawdle", "timeout": 0.1, "retries": 1, "retry-delay": 0, "error": 3})
    with process_of(Dawdler, broker.port):
        transport.send(message(1, content, node=2, how="asleep"))
        heard.wait_for(1)
    error = heard.payloads()[0]["error"]
    assert (error["result"], error["tries"]) == ("ran out of time 2 times", 2)
    assert error["reason"] == "it took longer than 0.1 s"


def test_when_the_first_message_was_sent_goes_along(broker: BrokerThread, transport: StompTransport) -> None:
    results = Listener(transport, "results")
    old, new = message(1, recipe()), message(2, recipe())
    now = time.time_ns() // 1_000_000
    with hosted(broker.port, Multiplier):
        transport.send(old, Send(new.destination, new.body, {RECIPE_HEADER: "True"}))
        transport.send(Send(new.destination, new.body, {RECIPE_HEADER: "True", "parvis-first-seen": "soon"}))
        results.wait_for(3)
    first, *others = [each.headers["parvis-first-seen"] for each in results.messages]
    assert first == "1234567890123"
    assert all(now - 60_000 < int(other) <= now + 60_000 for other in others)


def test_tries_of_a_node_count_whatever_a_message_failed_of(
    broker: BrokerThread, transport: StompTransport
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    send = message(RETRIED, recipe(n1={"retries": 2}))
    headers = {**send.headers, "parvis-attempts": "1", "parvis-crashes": "1"}
    with hosted(broker.port, Multiplier):
        transport.send(Send(send.destination, send.body, headers))
        (letter,) = letters.wait_for(1)
    assert letter.headers["parvis-tries"] == "3"


@pytest.mark.parametrize("retries", [0, 1, 3, "2"])
def test_the_recipe_says_how_often_and_how_soon(
    broker: BrokerThread, transport: StompTransport, retries: Any
) -> None:
    letters = Listener(transport, "DLQ.test.patient", "DLQ.test.multiply")
    Patient.tries.clear()
    content = recipe(n3={"queue": "patient", "retries": retries, "retry-delay": 0.001})
    with hosted(broker.port, Patient, Multiplier):
        transport.send(message(1, content, node=3))
        transport.send(message(FAILING, recipe(n1={"retries": retries})))
        letters.wait_for(2)
    assert len(Patient.tries) == int(retries) + 1
    assert len(set(Patient.tries)) == 1
    assert [letter.headers["parvis-tries"] for letter in letters.messages] == [str(int(retries) + 1)] * 2
    results = {letter.headers["parvis-result"] for letter in letters.messages}
    assert (
        results
        == {
            "0": {"gave up after 0 retries", "failed once"},
            "1": {"gave up after 1 retry", "failed 2 times"},
            "2": {"gave up after 2 retries", "failed 3 times"},
            "3": {"gave up after 3 retries", "failed 4 times"},
        }[str(retries)]
    )


def test_priority_is_that_of_the_node_or_else_of_the_recipe_environment() -> None:
    nodes = {"1": {"queue": "a", "output": [2, 3]}, "2": {"queue": "b", "priority": "7"}, "3": {"queue": "c"}}

    def priorities(environment: dict[str, Any]) -> list[int | None]:
        envelope = Envelope({**nodes, "start": [[1, {}]]}, 1, {}, environment=environment)
        return [send.priority for send in (*envelope.start(), *envelope.onward("o", "o", {}))]

    assert priorities({}) == [None, 7, None]
    assert priorities({"priority": 2}) == [2, 7, 2]
    assert priorities({"priority": "as another program means it"}) == [None, 7, None]


def test_messages_of_higher_priority_come_first(broker: BrokerThread, transport: StompTransport) -> None:
    content = recipe(
        n1={"output": [2, 4]}, n2={"queue": "gather.here"}, n4={"queue": "gather.here", "priority": 9}
    )
    done = Listener(transport, "none")
    with hosted(broker.port, Multiplier):
        transport.send(
            *[message(1, content) for _ in range(5)],
            message(REJECTED, recipe(n1={"error": 5}, n5={"queue": "none"})),
        )
        done.wait_for(1)
    results = Listener(transport, "gather.here")
    results.wait_for(10)
    assert [orjson.loads(each.body)["recipe-pointer"] for each in results.messages] == [4] * 5 + [2] * 5


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ({"retries": "many"}, 'its recipe node: retries must be a whole number from 0 to 1000, it is "many"'),
        ({"timeout": -1}, "its recipe node: timeout must be a number of seconds, above zero"),
        ({"priority": {}}, "its recipe node: priority must be a whole number from 0 to 9, it is an object"),
    ],
)
def test_nonsense_in_a_node_is_rejected_with_the_reason(
    broker: BrokerThread, transport: StompTransport, node: dict[str, Any], reason: str
) -> None:
    letters, results = Listener(transport, "DLQ.test.multiply"), Listener(transport, "results")
    with hosted(broker.port, Multiplier):
        transport.send(message(1, recipe(n1=node)), message(1, recipe()))
        (letter,) = letters.wait_for(1)
        results.wait_for(1)
    assert letter.headers["parvis-reason"].startswith(reason)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["retries", "retry-delay", "timeout", "priority"]), json_values))
def test_whatever_stands_there_is_read_or_refused(node: dict[str, Any]) -> None:
    try:
        policy = policy_of(node)
    except PolicyError:
        return
    assert policy.retries is None or 0 <= policy.retries <= 1000
    assert policy.retry_delay is None or 0 <= policy.retry_delay <= 864000
    assert policy.timeout is None or 0 < policy.timeout <= 864000
    assert policy.priority is None or 0 <= policy.priority <= 9


@given(error=json_values, own=json_values, path=st.lists(st.integers(1, 3), max_size=3))
def test_whatever_stands_under_error_is_followed_at_most_along_the_recipe(
    error: Any, own: Any, path: list[int]
) -> None:
    content = recipe(n1={"error": own}, error=error)
    envelope = Envelope(content, 1, {}, path, {"ID": "r1"})
    try:
        sends = list(envelope.failed({"error": {}, "payload": {}}))
    except ValueError:
        return
    assert {Envelope.parse(send.body).pointer for send in sends} <= {2, 3} - set(path)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (os.urandom(2**20), {RECIPE_HEADER: "True"}),
        (os.urandom(2**20), {}),
        (b"\0" * 2**20, {RECIPE_HEADER: "True"}),
        ("Grüße".encode("latin-1"), {RECIPE_HEADER: "True"}),
        ('{"payload": "Grüße"}'.encode("utf-16"), {RECIPE_HEADER: "True"}),
        (b"[" * 100_000, {RECIPE_HEADER: "True"}),
        (b'{"recipe": ' * 5000, {RECIPE_HEADER: "1"}),
        (b'{"recipe": {"1": {"error": 1}, "error": [1]}, "recipe-pointer": "1"}\r\n\0', {RECIPE_HEADER: "1"}),
        (b"", {RECIPE_HEADER: "True"}),
    ],
    ids=["random", "random, plain", "zeros", "Latin-1", "UTF-16", "deep", "deep object", "trailing", "empty"],
)
def test_what_nobody_can_parse_is_set_aside_byte_for_byte(
    broker: BrokerThread, transport: StompTransport, body: bytes, headers: dict[str, str]
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    with hosted(broker.port, Multiplier):
        transport.send(Send("multiply", body, headers))
        (letter,) = letters.wait_for(1)
    assert letter.body == body
    assert letter.headers["parvis-reason"]
    assert "parvis-route" not in letter.headers
    assert letter.headers["parvis-first-seen"].isdecimal()


def test_a_long_route_keeps_both_ends() -> None:
    nodes: dict[str, Any] = {str(number): {"queue": f"q{number}"} for number in range(1, 2001)}
    text = route(Envelope({**nodes, "start": []}, 2000, {}, list(range(1, 2000))))
    assert text.startswith("1 q1 > 2 q2 > ")
    assert text.endswith(" > 1999 q1999 > 2000 q2000")
    assert "[...]" in text
    assert len(text) <= 1000
