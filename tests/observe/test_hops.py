"""Hops: what services report of what they handle, on a real broker, and how reports are read."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from parvis.config import Config, ConfigError
from parvis.observe.hop_recorder import READY, HopRecorder, Place, place_of
from parvis.observe.hops import (
    QUEUE,
    REQUEST,
    Hop,
    Sent,
    Started,
    hops_body,
    read_hops,
    report,
    reports_hops,
    stuck_after,
)
from parvis.observe.storyteller import story_of
from parvis.recipe.envelope import RECIPE_HEADER, Envelope, MalformedMessage, dump_json
from parvis.service.base import AnyService
from parvis.service.host import Host
from parvis.service.observer import Handled
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.dispatch.dispatcher import Dispatcher
from parvis_services.operate.join import Join
from running import Listener, hosted, in_thread, process_of, recipe_message, transport_to
from sample_services import Gatherer, Multiplier
from waiting import wait_until

HOP = Hop(
    "r1",
    2,
    "q",
    "id",
    "fail",
    "A",
    "host.1",
    1.5,
    2.5,
    0.25,
    2,
    1,
    (Sent(2, "q", 1, "again", 4.0),),
    "why",
    "tb",
)


class Reports(Listener):
    """Hears reports of hops."""

    def __init__(self, transport: StompTransport) -> None:
        super().__init__(transport, QUEUE)

    @property
    def hops(self) -> list[Hop]:
        return [hop for message in self.messages for hop in read_hops(message.body).hops]

    @property
    def started(self) -> list[Started]:
        return [one for message in self.messages for one in read_hops(message.body).started]

    def wait_for_hops(self, count: int) -> list[Hop]:
        wait_until(lambda: len(self.hops) >= count, 20, f"{count} hops; there are {len(self.hops)}")
        return self.hops


@pytest.fixture
def reports(transport: StompTransport) -> Reports:
    return Reports(transport)


def reporting(broker: BrokerThread, *services: type[AnyService]) -> Any:
    return hosted(broker.port, *services, observers=[HopRecorder()])


def test_a_hop_survives_its_way():
    started = Started("r1", "id", 3.5, "me", {"a": "b"}, {"x": [1]}, {"y": None}, {"1": {"queue": "q"}})
    read = read_hops(hops_body([HOP], [started]))
    assert read.hops == [HOP]
    assert read.started == [started]


def test_what_has_no_form_in_json_is_told_as_text():
    started = Started("r1", "id", 3.5, message={"path": Path("/tmp/x"), 5: 1})
    assert read_hops(hops_body([], [started])).started[0].message == {"path": "/tmp/x", "5": 1}


def test_of_a_very_large_start_less_is_told():
    started = Started("r1", "id", 3.5, message={"x": "y" * 9_000_000}, recipe={"1": {"queue": "q"}})
    read = read_hops(hops_body([], [started])).started[0]
    assert (read.message, read.recipe) == ({}, started.recipe)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b'"hops"',
        b'{"hops": 3}',
        b'{"hops": [3]}',
        b'{"hops": [{}]}',
        b'{"started": [{}]}',
        b"\xff\x00",
        dump_json({"hops": [{}] * 10_001}),
    ],
)
def test_what_is_no_report_is_refused(body: bytes):
    with pytest.raises(MalformedMessage):
        read_hops(body)


@pytest.mark.parametrize(
    "change",
    [
        {"recipe_id": ""},
        {"recipe_id": 7},
        {"node": -1},
        {"node": 1.5},
        {"node": True},
        {"node": 2**62},
        {"identity": None},
        {"result": "great"},
        {"begun": "now"},
        {"begun": -1},
        {"begun": 1e300},
        {"seconds": None},
        {"tries": "x"},
        {"sent": 3},
        {"sent": [[1, "q", 1, "message"]]},
        {"sent": [[1, "q", 1, "teleport", 0]]},
        {"sent": [[1, "q", -1, "message", 0]]},
        {"sent": [[1, "q", 1, "message", 0]] * 10_001},
        {"reason": ["x"]},
    ],
)
def test_a_malformed_hop_is_refused(change: dict[str, Any]):
    content = orjson.loads(hops_body([HOP]))
    content["hops"][0] |= change
    with pytest.raises(MalformedMessage):
        read_hops(orjson.dumps(content))


def test_long_texts_are_cut():
    content = orjson.loads(hops_body([HOP]))
    content["hops"][0] |= {"reason": "x" * 10**6, "trace": "y" * 10**6, "service": "z" * 10**6}
    (hop,) = read_hops(orjson.dumps(content)).hops
    assert max(map(len, (hop.reason, hop.trace, hop.service))) <= 8000


@pytest.mark.parametrize("path", [[], [1], [1, 22, 333], list(range(1, 2000))])
@pytest.mark.parametrize("recipe_id", ["a-b-c", 'with "quotes" and {', "ü", "7"])
def test_where_a_message_is_can_be_told_from_its_ends(path: list[int], recipe_id: str):
    recipe = {"5": {"queue": "x"}, "start": [[5, []]]}
    trap = '"recipe-path":[9],"recipe-pointer":9}'
    for payload in (None, {"recipe-pointer": 9}, [trap], {"environment": {"ID": "trap"}}):
        content = {
            "environment": {"ID": recipe_id, "more": 1},
            "payload": payload,
            "recipe": recipe,
            "recipe-path": path,
            "recipe-pointer": 5,
        }
        expected = Place(recipe_id, 5, path[-1] if path else None)
        assert place_of(dump_json(content)) == expected
        theirs = dict(reversed(content.items()))  # another order, and other spaces
        assert place_of(orjson.dumps(theirs, option=orjson.OPT_INDENT_2)) == expected


def test_a_message_of_ours_is_not_read_as_a_whole():
    broken = b'{"environment":{"ID":"r1"},"payload":THIS IS NO JSON,"recipe-path":[1],"recipe-pointer":2}'
    assert place_of(broken) == Place("r1", 2, 1)


def test_outcomes_as_they_are_reported(broker: BrokerThread, transport: StompTransport, reports: Reports):
    node = {"retry-delay": 0.01}
    with reporting(broker, Multiplier):
        for number in (1, 13, 14, 15):
            transport.send(recipe_message("multiply", {"number": number}, **node))
        reports.wait_for_hops(1 + 1 + 4 + 2)
    results = Counter((hop.result, hop.tries, tuple(sent.kind for sent in hop.sent)) for hop in reports.hops)
    assert results == {
        ("done", 1, ("message",)): 1,
        ("reject", 1, ("dead_letter",)): 1,
        ("retry", 1, ("again",)): 1,
        ("retry", 2, ("again",)): 1,
        ("retry", 3, ("again",)): 1,
        ("retry", 4, ("dead_letter",)): 1,
        ("fail", 1, ("again",)): 1,
        ("fail", 2, ("dead_letter",)): 1,
    }
    done = next(hop for hop in reports.hops if hop.result == "done")
    assert (done.recipe_id, done.node, done.queue, done.service) == (
        "test-recipe",
        1,
        "multiply",
        "Multiplier",
    )
    assert done.sent == (Sent(2, "results", 1, "message", 0.0),)
    assert abs(done.begun - time.time()) < 60
    assert done.sent_at <= done.begun
    failed = next(hop for hop in reports.hops if hop.result == "fail")
    assert failed.reason == "ZeroDivisionError: 15 is a surprise"
    assert "ZeroDivisionError" in failed.trace
    assert failed.sent[0].delay == 0.01
    assert len({hop.identity for hop in reports.hops}) == 4


def test_payloads_are_no_part_of_reports(broker: BrokerThread, transport: StompTransport, reports: Reports):
    with reporting(broker, Multiplier):
        transport.send(recipe_message("multiply", {"number": 1, "secret": "XYZZY"}))
        reports.wait_for_hops(1)
    assert all(b"XYZZY" not in message.body for message in reports.messages)


def test_one_report_a_transaction(broker: BrokerThread, transport: StompTransport, reports: Reports):
    transport.send(*(recipe_message("gather", {"number": number}) for number in (1, 2, 99)))
    with reporting(broker, Gatherer):
        hops = reports.wait_for_hops(3)
    with_hops = [message for message in reports.messages if read_hops(message.body).hops]
    assert len(with_hops) == 1
    assert [sum(sent.count for sent in hop.sent) for hop in hops] == [0, 0, 1]


def test_what_goes_to_error_nodes(broker: BrokerThread, transport: StompTransport, reports: Reports):
    with reporting(broker, Multiplier):
        transport.send(recipe_message("multiply", {"number": 13}, error=2))
        (hop,) = reports.wait_for_hops(1)
    assert hop.sent == (Sent(2, "results", 1, "error", 0.0),)


def test_how_long_a_message_was_queued_is_known_for_one_that_was_held_back(
    broker: BrokerThread, transport: StompTransport, reports: Reports
):
    with reporting(broker, Multiplier):
        transport.send(recipe_message("multiply", {"number": 14}, **{"retry-delay": 0.2, "retries": 1}))
        first, second = reports.wait_for_hops(2)
    assert second.sent_at == pytest.approx(first.ended + 0.2, abs=0.05)
    assert second.begun - second.sent_at < 0.15


def test_a_message_that_was_sent_in_again_is_known(
    broker: BrokerThread, transport: StompTransport, reports: Reports
):
    letters = Listener(transport, "DLQ.test.multiply")
    with reporting(broker, Multiplier):
        transport.send(recipe_message("multiply", {"number": 13}))
        (letter,) = letters.wait_for(1)
        mended = letter.body.replace(b'"number":13', b'"number":12')
        headers = {"parvis-id": letter.headers["parvis-id"], RECIPE_HEADER: "True", "dlq-reinjected": "True"}
        headers[READY] = letter.headers.get(READY, "")
        transport.send(Send("multiply", mended, headers))
        first, second = reports.wait_for_hops(2)
    assert first.identity == second.identity
    assert (first.reinjected, second.reinjected) == (0, 1)
    assert second.begun - second.sent_at < 5
    story = story_of([], reports.hops, time.time(), 300)
    assert (story.nodes[1].given_up, story.nodes[1].handled) == (0, 1)


def test_a_fan_out_is_told_in_few_words(broker: BrokerThread, transport: StompTransport, reports: Reports):
    with reporting(broker, Multiplier):
        targets = list(range(2, 102))
        nodes = {str(number): {"queue": "results"} for number in targets}
        message = recipe_message("multiply", {"number": 3}, output=targets)
        content = orjson.loads(message.body)
        content["recipe"] |= nodes
        transport.send(Send("multiply", dump_json(content), message.headers))
        (hop,) = reports.wait_for_hops(1)
    assert sum(sent.count for sent in hop.sent) == 100


def test_the_dispatcher_reports_what_it_starts(
    broker: BrokerThread, transport: StompTransport, reports: Reports, tmp_path: Path
):
    recipe = {
        "1": {"queue": "multiply", "parameters": {"multiply-by": "{factor}"}},
        "start": [[1, {"number": 2}]],
    }
    config = Config(storage={"parvis.records.hops": True, "parvis.state_directory": str(tmp_path)})
    request = {"custom_recipe": recipe, "parameters": {"factor": "7", "guid": "a-recipe"}}
    with running(broker, config, Dispatcher), reporting(broker, Multiplier):
        transport.send(Send("processing_recipe", dump_json(request), {"zocalo.go.user": "me"}))
        reports.wait_for_hops(2)
        wait_until(lambda: reports.started, 10, "the start")
    (started,) = reports.started
    assert (started.recipe_id, started.user) == ("a-recipe", "me")
    assert started.header["zocalo.go.user"] == "me"
    assert started.message["parameters"] == request["parameters"]
    assert started.parameters["parameters"]["factor"] == "7"
    assert started.recipe["1"]["parameters"] == {"multiply-by": "7"}
    start = next(hop for hop in reports.hops if hop.node == REQUEST)
    assert (start.recipe_id, start.service, start.came_from) == ("a-recipe", "Dispatcher", None)
    assert start.sent == (Sent(1, "multiply", 1, "message", 0.0),)
    assert start.identity == started.identity
    assert story_of(reports.started, reports.hops, time.time(), 300).state == "finished"


def test_a_join_is_finished_although_its_time_out_is_still_to_come(
    broker: BrokerThread, transport: StompTransport, reports: Reports, tmp_path: Path
):
    recipe = {
        "1": {"queue": "multiply", "output": 3},
        "2": {"queue": "multiply", "output": 3},
        "3": {"queue": "join", "parameters": {"wait-for": [1, 2]}, "output": 4},
        "4": {"queue": "multiply"},
        "start": [[1, {"number": 2}], [2, {"number": 3}]],
    }
    config = Config(storage={"parvis.records.hops": True, "parvis.state_directory": str(tmp_path)})
    envelope = Envelope(recipe=recipe, pointer=0, payload=None, environment={"ID": "joined"})
    started = Started("joined", "x", time.time(), recipe=recipe)

    def state() -> str:
        return story_of([started], reports.hops, time.time(), 300).state

    with running(broker, config, Join), reporting(broker, Multiplier):
        first, second = envelope.start()
        transport.send(first)
        wait_until(lambda: any(hop.node == 3 for hop in reports.hops), 20, "the first half")
        kinds = [sent.kind for hop in reports.hops if hop.node == 3 for sent in hop.sent]
        assert kinds == ["reminder"]
        transport.send(second)
        wait_until(lambda: state() in ("finished", "failed"), 20, "the end")


def test_nothing_is_lost_or_doubled_when_a_service_is_killed(
    broker: BrokerThread, transport: StompTransport, reports: Reports
):
    results = Listener(transport, "results")
    count = 800  # a listener holds no more than a thousand
    transport.send(*(recipe_message("multiply", {"number": 1000 + number}) for number in range(count)))
    environment = {"PARVIS_RECORDS_HOPS": "true"}
    with process_of(Multiplier, broker.port, environment) as first:
        wait_until(lambda: reports.hops, 30, "the first hops")
        first.send_signal(signal.SIGKILL)
        first.wait()
    with process_of(Multiplier, broker.port, environment):
        wait_until(lambda: len(_identities(results)) == count, 30, "all results")
        wait_until(lambda: len({hop.identity for hop in reports.hops}) == count, 30, "all hops")
    recipe = orjson.loads(recipe_message("multiply", {}).body)["recipe"]
    story = story_of([Started("test-recipe", "x", 1.0, recipe=recipe)], reports.hops, time.time(), 300)
    assert story.nodes[1].handled == count
    assert story.nodes[2].sent == count


def test_a_report_that_nobody_takes_in_time_is_no_dead_letter(
    broker: BrokerThread, transport: StompTransport
):
    letters = Listener(transport, f"DLQ.test.{QUEUE}", "DLQ.test.other")
    body = report([HOP])
    transport.send(Send(body.destination, body.body, body.headers, expiration=0.05))
    transport.send(Send("other", b"{}", expiration=0.05))
    letters.wait_for(1)
    assert [message.destination for message in letters.messages] == ["DLQ.test.other"]


@pytest.mark.parametrize(("value", "wanted"), [(True, True), ("true", True), ("0", False), (None, False)])
def test_whether_hops_are_reported_is_configured(value: Any, wanted: bool):
    storage = {} if value is None else {"parvis.records.hops": value}
    assert reports_hops(Config(storage=storage)) is wanted


def test_nonsense_in_the_configuration_is_named():
    with pytest.raises(ConfigError, match=r"parvis\.records\.hops"):
        reports_hops(Config(storage={"parvis.records.hops": "perhaps"}))
    with pytest.raises(ConfigError, match="stuck_after"):
        stuck_after(Config(storage={"parvis.records.stuck_after": "soon"}))


def _identities(results: Listener) -> set[str]:
    return {message.headers["parvis-id"] for message in results.messages}


def running(broker: BrokerThread, config: Config, service: type[AnyService]) -> Any:
    """A service with a configuration, in a thread of this process."""
    return in_thread(Host(transport_to(broker.port), [service(config)]))


def test_a_dead_letter_that_lost_its_headers_is_reported_all_the_same(
    broker: BrokerThread, transport: StompTransport, reports: Reports, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("parvis.service.host._LONGEST_PAUSE", 0.01)
    letters = Listener(transport, "DLQ.test.multiply")
    sent = recipe_message("multiply", {"number": "none"})
    large = {f"h{number}": "x" * 6900 for number in range(7)} | {"more": "y" * 600}
    with reporting(broker, Multiplier):
        transport.send(replace(sent, headers={**sent.headers, **large}))
        letters.wait_for(1)
        (hop,) = reports.wait_for_hops(1)
    assert [sent.kind for sent in hop.sent] == ["dead_letter"]
    assert "the broker refused" in hop.reason


class _Failing(HopRecorder):
    """An observer of transactions that fails."""

    def closing(self, handled: Sequence[Handled]) -> Sequence[Send]:
        raise ZeroDivisionError(handled)


def test_an_observer_of_transactions_that_fails_stops_nothing(
    broker: BrokerThread, transport: StompTransport, reports: Reports
):
    results = Listener(transport, "results")
    with hosted(broker.port, Multiplier, observers=[_Failing(), HopRecorder()]):
        transport.send(recipe_message("multiply", {"number": 1}))
        results.wait_for(1)
        reports.wait_for_hops(1)
