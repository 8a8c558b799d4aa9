"""The host: what becomes of messages, on a real connection to the embedded broker."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path

import orjson
import pytest

from parvis.service.status import host_id
from parvis.transport.base import Send
from parvis.transport.embedded.thread import BrokerThread
from parvis.transport.stomp import StompTransport
from real.daemon import free_ports
from running import Listener, connected, hosted, process_of, recipe_message
from sample_services import Gatherer, Multiplier, Sleeper
from waiting import wait_until


def test_what_a_service_sends_goes_on_along_the_recipe(
    broker: BrokerThread, transport: StompTransport
) -> None:
    results = Listener(transport, "results")
    with hosted(broker.port, Multiplier):
        transport.send(recipe_message("multiply", {"number": 21}, parameters={"multiply-by": 2}))
        (message,) = results.wait_for(1)
    body = orjson.loads(message.body)
    assert body["payload"] == {"number": 42}
    assert body["recipe-pointer"] == 2
    assert body["recipe-path"] == [1]
    assert body["environment"] == {"ID": "test-recipe", "seen": 21}
    assert message.headers["workflows-recipe"] == "True"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"number": 13}, "13 is no good"),
        ({"number": "many"}, "payload: number 'many'"),
        ({}, "payload: number: field required"),
        ([1, 2], "payload"),
        ("text", "payload"),
    ],
)
def test_bad_input_is_a_dead_letter_that_says_why(
    broker: BrokerThread, transport: StompTransport, payload: object, reason: str
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    sent = recipe_message("multiply", payload)
    with hosted(broker.port, Multiplier):
        transport.send(sent)
        (letter,) = letters.wait_for(1)
    assert reason in letter.headers["parvis-reason"]
    assert letter.headers["parvis-service"] == "Multiplier"
    assert letter.headers["note"] == "kept"
    assert letter.headers["original-destination"] == "/queue/test.multiply"
    assert letter.body == sent.body


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"{nonsense", {"workflows-recipe": "True"}, "not JSON"),
        (b"[1, 2]", {"workflows-recipe": "True"}, "JSON object"),
        (b"{}", {"workflows-recipe": "True"}, "recipe must be"),
        (b'{"recipe": {"1": {}}, "recipe-pointer": 7}', {"workflows-recipe": "True"}, "no such node"),
        (b'{"number": 1}', {}, "recipe messages only"),
        (b"\xff\xfe\x00", {"workflows-recipe": "True"}, "not JSON"),
    ],
)
def test_a_message_nobody_can_read_is_set_aside_whole(
    broker: BrokerThread, transport: StompTransport, body: bytes, headers: dict[str, str], reason: str
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    results = Listener(transport, "results")
    with hosted(broker.port, Multiplier):
        transport.send(Send("multiply", body, headers))
        (letter,) = letters.wait_for(1)
        transport.send(recipe_message("multiply", {"number": 1}))
        results.wait_for(1)
    assert reason in letter.headers["parvis-reason"]
    assert letter.body == body


def test_an_unforeseen_exception_is_tried_again_and_then_a_dead_letter_with_its_traceback(
    broker: BrokerThread, transport: StompTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parvis.service.settling._FIRST_DELAY", 0.01)
    letters = Listener(transport, "DLQ.test.multiply")
    with hosted(broker.port, Multiplier):
        transport.send(recipe_message("multiply", {"number": 15}))
        (letter,) = letters.wait_for(1)
    assert letter.headers["parvis-reason"] == "ZeroDivisionError: 15 is a surprise"
    assert "sample_services.py" in letter.headers["parvis-traceback"]
    assert letter.headers["parvis-tries"] == "2"


def test_a_retry_comes_back_until_there_have_been_enough(
    broker: BrokerThread, transport: StompTransport
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    with hosted(broker.port, Multiplier):
        transport.send(recipe_message("multiply", {"number": 14}))
        (letter,) = letters.wait_for(1)
    assert letter.headers["parvis-reason"] == "14 is not ready"
    assert letter.headers["parvis-tries"] == "4"
    # Whoever sends it in again begins anew.
    assert "parvis-retries" not in letter.headers


def test_a_batch_is_handled_in_one_go(broker: BrokerThread, transport: StompTransport) -> None:
    results = Listener(transport, "results")
    transport.send(*[recipe_message("gather", {"number": number}) for number in range(5)])
    transport.send(*[recipe_message("gather", {"number": number}) for number in (7, 99, 8)])
    with hosted(broker.port, Gatherer):
        results.wait_for(3)
    assert [payload["numbers"] for payload in results.payloads()] == [[0, 1, 2, 3, 4], [7, 99], [8]]


def test_what_spoils_a_batch_is_found_and_the_rest_goes_on(
    broker: BrokerThread, transport: StompTransport
) -> None:
    results = Listener(transport, "results")
    letters = Listener(transport, "DLQ.test.gather")
    numbers: list[object] = [1, 15, "none", 4, 5]
    transport.send(*[recipe_message("gather", {"number": number}) for number in numbers])
    with hosted(broker.port, Gatherer):
        results.wait_for(2)
        letters.wait_for(2)
    assert [payload["numbers"] for payload in results.payloads()] == [[1], [4, 5]]
    assert {letter.headers["parvis-reason"].split(":")[0] for letter in letters.messages} == {
        "ZeroDivisionError",
        "payload",
    }


def test_a_message_that_kills_costs_one_instance_and_then_only_children(
    broker: BrokerThread, transport: StompTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    results = Listener(transport, "results")
    transport.send(recipe_message("multiply", {"number": 666}))
    with process_of(Multiplier, broker.port) as first:
        assert first.wait(timeout=30) == -signal.SIGKILL
    with process_of(Multiplier, broker.port) as second:
        transport.send(recipe_message("multiply", {"number": 4}))
        (letter,) = letters.wait_for(1, timeout=40)
        results.wait_for(1)
        assert second.poll() is None
    assert "SIGKILL" in letter.headers["parvis-reason"]
    assert results.payloads() == [{"number": 8}]


def test_a_message_whose_handler_was_killed_is_handled_by_another(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    results = Listener(transport, "results")
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    transport.send(recipe_message("sleep", {"started": str(started), "go-on": str(go_on)}))
    with process_of(Sleeper, broker.port) as first:
        wait_until(started.exists, 20, "the message to be in hand")
        first.kill()
    go_on.touch()
    with process_of(Sleeper, broker.port):
        results.wait_for(1, timeout=30)
    assert results.payloads() == [{"slept": True}]


def test_on_sigterm_the_message_in_hand_is_finished(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    results = Listener(transport, "results")
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    transport.send(recipe_message("sleep", {"started": str(started), "go-on": str(go_on)}))
    with process_of(Sleeper, broker.port) as process:
        wait_until(started.exists, 20, "the message to be in hand")
        process.terminate()
        go_on.touch()
        assert process.wait(timeout=20) == 0
    results.wait_for(1)


@pytest.mark.parametrize(
    "address", [{"service": "Multiplier"}, {"host": host_id()}, {"host": host_id(), "service": "Multiplier"}]
)
def test_a_shutdown_command_ends_those_it_is_for(
    broker: BrokerThread,
    transport: StompTransport,
    address: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    status = Listener(transport)
    transport.subscribe_broadcast("transient.status", status.messages.append)

    def post(command: object) -> None:
        transport.send(Send("command", orjson.dumps(command), kind="topic"))

    with hosted(broker.port, Multiplier):
        wait_until(lambda: _has_status(status, 2), 10, "the service to be idle")
        for ignored in ({"command": "shutdown"}, {"command": "dance"} | address, [1], "shutdown"):
            post(ignored)
        post({"command": "shutdown", "host": "elsewhere.1", "service": "Multiplier"})
        post({"command": "shutdown", "service": ["Multiplier"]})
        assert not _has_status(status, 5)
        post({"command": "shutdown"} | address)
        wait_until(lambda: _has_status(status, 6), 10, "the service to end")
    assert "failed" not in caplog.text


def _has_status(listener: Listener, code: int) -> bool:
    return any(orjson.loads(message.body)["status"] == code for message in listener.messages)


def test_the_status_says_who_is_there_and_what_they_do(
    broker: BrokerThread, transport: StompTransport
) -> None:
    status = Listener(transport)
    transport.subscribe_broadcast("transient.status", status.messages.append)
    with hosted(broker.port, Multiplier):
        wait_until(lambda: _has_status(status, 2), 10, "the service to be idle")
    card = orjson.loads(next(m for m in status.messages if orjson.loads(m.body)["status"] == 2).body)
    assert card["host"] == host_id()
    assert card["statustext"] == "idle"
    assert card["service"] == card["serviceclass"] == "Multiplier"
    assert sum(card["utilization"].values()) == pytest.approx(1)
    assert [part.isdecimal() for part in card["workflows"].split(".")] == [True, True]
    assert "expires" in status.messages[0].headers


def test_services_survive_a_restart_of_the_broker(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with BrokerThread(port=port):
        first_host = hosted(port, Multiplier)
        first_host.__enter__()
        with connected(port) as transport:
            results = Listener(transport, "results")
            transport.send(recipe_message("multiply", {"number": 1}))
            results.wait_for(1)
    with BrokerThread(port=port), connected(port) as transport:
        results = Listener(transport, "results")
        transport.send(recipe_message("multiply", {"number": 2}))
        results.wait_for(1)
        first_host.__exit__(None, None, None)
    assert results.payloads() == [{"number": 4}]


def message_with(body: dict[str, object], **headers: str) -> Send:
    return Send("multiply", json.dumps(body).encode(), {"workflows-recipe": "True", **headers})


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


NODE = {"queue": "multiply", "output": 2}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"recipe": {"1": NODE}, "recipe-pointer": 1, "environment": {"ID": nested(900)}}, "recipe ID"),
        ({"recipe": {"1": NODE}, "recipe-pointer": 1, "environment": {"ID": "x" * 500}}, "recipe ID"),
        ({"recipe": {"1": NODE}, "recipe-pointer": "1" * 5000}, "recipe-pointer"),
        ({"recipe": {"1": NODE}, "recipe-pointer": 1, "payload": {"number": nested(900)}}, "number"),
        (
            {
                "recipe": {"1": NODE, "2": {"queue": "q", "transport-delay": "Infinity"}},
                "recipe-pointer": 1,
                "payload": {"number": 1},
            },
            "delay",
        ),
        (
            {"recipe": {"1": NODE, "2": {"queue": "a b"}}, "recipe-pointer": 1, "payload": {"number": 1}},
            "a b",
        ),
        ({"recipe": {"1": NODE}, "recipe-pointer": 1, "payload": {"number": 1}}, "node 2"),
    ],
)
def test_a_message_made_to_break_its_reader_is_a_dead_letter(
    broker: BrokerThread, transport: StompTransport, body: dict[str, object], reason: str
) -> None:
    letters = Listener(transport, "DLQ.test.multiply")
    results = Listener(transport, "results")
    with hosted(broker.port, Multiplier):
        transport.send(message_with(body))
        transport.send(recipe_message("multiply", {"number": 4}))
        results.wait_for(1)
        (letter,) = letters.wait_for(1)
    assert reason in letter.headers["parvis-reason"]


def test_numbers_that_json_does_not_have_are_taken_for_nothing(
    broker: BrokerThread, transport: StompTransport
) -> None:
    results = Listener(transport, "results")
    sent = recipe_message("multiply", {"number": 4})
    body = sent.body.replace(b'"number":4', b'"number":4,"resolution":NaN')
    assert body != sent.body
    with hosted(broker.port, Multiplier):
        transport.send(Send(sent.destination, body, sent.headers))
        results.wait_for(1)


def test_a_dead_letter_that_the_broker_refuses_goes_with_fewer_headers(
    broker: BrokerThread, transport: StompTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parvis.service.host._LONGEST_PAUSE", 0.01)
    letters = Listener(transport, "DLQ.test.multiply")
    results = Listener(transport, "results")
    large = {f"h{number}": "x" * 6900 for number in range(7)}
    with hosted(broker.port, Multiplier):
        transport.send(message_with({"recipe": {"1": NODE}, "recipe-pointer": 1}, **large, more="y" * 600))
        transport.send(recipe_message("multiply", {"number": 4}))
        (letter,) = letters.wait_for(1, timeout=30)
        results.wait_for(1)
    assert "the broker refused" in letter.headers["parvis-reason"]
    assert "h1" not in letter.headers


def test_a_batch_that_the_broker_refuses_costs_only_the_message_at_fault(
    broker: BrokerThread, transport: StompTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parvis.service.host._LONGEST_PAUSE", 0.01)
    letters = Listener(transport, "DLQ.test.gather")
    results = Listener(transport, "results")
    large = {f"h{number}": "x" * 6900 for number in range(7)}
    bad = recipe_message("gather", {"number": "none"})
    transport.send(recipe_message("gather", {"number": 1}))
    transport.send(Send(bad.destination, bad.body, {**bad.headers, **large, "more": "y" * 600}))
    transport.send(recipe_message("gather", {"number": 2}))
    with hosted(broker.port, Gatherer):
        letters.wait_for(1, timeout=30)
        wait_until(lambda: sum(map(len, numbers_in(results))) >= 2, 30, "the other two")
    assert sorted(itertools.chain(*numbers_in(results))) == [1, 2]
    assert len(letters.messages) == 1


def numbers_in(results: Listener) -> list[list[int]]:
    return [payload["numbers"] for payload in results.payloads()]
