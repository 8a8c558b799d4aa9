"""Join: complete exactly once, whatever is killed, delivered twice or late."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from join_desk import Desk, arrival, body, recipe
from parvis.config import Config, ConfigError
from parvis.recipe.envelope import RECIPE_HEADER, Envelope
from parvis.service.handling import handle
from parvis.transport.base import Message
from parvis_services.operate.join import Join
from waiting import wait_until


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


ALL = [arrival("a", 2, {"n": 1}), arrival("b", 3, {"n": 2}), arrival("c", 3, {"n": 3})]
COMPLETE = {"arrived": {"2": [{"n": 1}], "3": [{"n": 2}, {"n": 3}]}}


def test_it_runs_when_all_has_come_and_not_before(desk: Desk) -> None:
    desk.queue = ALL[:2]
    desk.drain()
    assert desk.sent == []
    desk.queue = ALL[2:]
    desk.drain()
    assert desk.payloads("complete") == [COMPLETE]
    envelope = Envelope.parse(desk.sent[0].body)
    assert envelope.path == [1, 3, 4]
    desk.time_passes()
    assert len(desk.sent) == 1
    assert desk.rejected == []
    with contextlib.closing(sqlite3.connect(desk.directory / "joins.sqlite")) as database:
        held = database.execute("SELECT payload, environment FROM arrivals").fetchall()
    assert held == [(None, None)] * 3


def test_what_has_come_outlives_the_process(desk: Desk) -> None:
    desk.queue = ALL[:2]
    desk.drain()
    desk.join.stop()
    desk.join = desk.service()
    desk.queue = ALL[2:]
    desk.drain()
    assert desk.payloads("complete") == [COMPLETE]


def test_copies_count_once(desk: Desk) -> None:
    copies = [replace(message, message_id=f"copy of {message.message_id}") for message in ALL]
    desk.queue = [ALL[1], copies[1], copies[1], ALL[0], copies[0]]
    desk.drain()
    assert desk.sent == []
    desk.queue = [ALL[2], copies[2], *copies]
    desk.drain()
    assert desk.payloads("complete") == [COMPLETE]
    assert desk.payloads("late") == []


def test_without_an_identity_the_broker_s_identifier_tells_messages_apart(desk: Desk) -> None:
    desk.queue = [
        replace(message, headers={RECIPE_HEADER: "True"}, message_id=f"ID:{number}")
        for number, message in enumerate([ALL[0], ALL[1], ALL[1]])
    ]
    desk.drain()
    assert desk.payloads("complete") == [{"arrived": {"2": [{"n": 1}], "3": [{"n": 2}, {"n": 2}]}}]


@pytest.mark.parametrize("killed_at", range(3))
def test_a_process_killed_before_the_confirmation_completes_once_all_the_same(
    desk: Desk, killed_at: int
) -> None:
    desk.queue = list(ALL)
    for number in range(3):
        for _ in range(2 if number == killed_at else 0):
            desk.take(killed=True)
        assert desk.take().result == "done"
    desk.drain()
    assert desk.payloads("complete") == [COMPLETE]
    desk.time_passes()
    assert len(desk.sent) == 1


def test_a_message_that_is_sent_in_again_completes_what_it_could_not(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.queue = ALL[:2]
    desk.drain()
    handle(desk.join, ALL[2])  # and what came of it could not be sent
    desk.queue = [replace(ALL[2], message_id="sent in again")]
    assert desk.take().result == "retry"
    monkeypatch.setattr("parvis_services.operate.join._UNCONFIRMED", -1.0)
    desk.drain()
    assert desk.payloads("complete") == [COMPLETE]


def test_environments_travel_on_as_one_in_the_order_of_nodes(desk: Desk) -> None:
    desk.queue = [
        arrival("c", 3, {}, environment={"ID": "r1", "a": "of 3", "d": 4}),
        arrival("b", 3, {}, environment={"ID": "r1", "a": "of the second of 3", "c": 3}),
        arrival("a", 2, {}, environment={"ID": "r1", "a": "of 2", "b": 2}),
    ]
    desk.drain()
    (sent,) = desk.sent
    expected = {"ID": "r1", "a": "of the second of 3", "b": 2, "c": 3, "d": 4}
    assert Envelope.parse(sent.body).environment == expected


def test_each_recipe_and_each_node_waits_for_its_own(desk: Desk) -> None:
    other = [
        arrival(f"other {number}", source, environment={"ID": "r2"})
        for number, source in enumerate([2, 3, 3])
    ]
    desk.queue = [*ALL[:2], *other[:2]]
    desk.drain()
    assert desk.sent == []
    desk.queue = [ALL[2], other[2]]
    desk.drain()
    assert len(desk.payloads("complete")) == 2


@pytest.mark.parametrize("payload", [None, [], "text", 3, [1, {"a": None}], {"parameters": "not ours"}])
def test_payloads_may_be_whatever_json_knows(desk: Desk, payload: Any) -> None:
    content = recipe(parameters={"wait-for": [2]})
    desk.queue = [arrival("a", 2, payload, content=content)]
    desk.drain()
    assert desk.payloads("complete") == [{"arrived": {"2": [payload]}}]


def test_time_out_sends_what_has_come_and_what_has_not(desk: Desk) -> None:
    desk.queue = ALL[:2]
    desk.drain()
    (timer,) = desk.delayed
    desk.time_passes()
    expected = {"arrived": {"2": [{"n": 1}], "3": [{"n": 2}]}, "missing": {"3": 1}}
    assert desk.payloads("timeout") == [expected]
    desk.queue = [replace(timer, message_id="a copy"), ALL[2], ALL[0]]
    desk.drain()
    assert len(desk.payloads("timeout")) == 1
    assert desk.payloads("late") == [{"n": 3}]
    assert desk.payloads("complete") == []


def test_time_out_survives_a_killed_process(desk: Desk) -> None:
    desk.queue = [ALL[0]]
    desk.take(killed=True)
    desk.drain()
    assert len(desk.delayed) == 1
    desk.queue, desk.delayed = desk.delayed, []
    desk.take(killed=True)
    desk.drain()
    assert len(desk.payloads("timeout")) == 1


def test_a_time_out_that_leads_nowhere_is_a_dead_letter_with_what_has_come(desk: Desk) -> None:
    desk.queue = [arrival("a", 2, {"n": 1}, content=recipe(output={"complete": 5}))]
    desk.drain()
    desk.time_passes()
    ((letter, reason),) = desk.rejected
    assert reason == "waited 60 s; 1 of 1 messages of node 2, 0 of 2 messages of node 3 came"
    assert orjson.loads(letter.body)["payload"]["arrived"] == {"2": [{"n": 1}], "3": []}


def test_late_ones_are_dropped_with_a_warning_if_nobody_takes_them(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    content = recipe(output=5)
    last = arrival("d", 3, {"n": 4}, content=content)
    desk.queue = [replace(message, body=body(*_parts(message), content)) for message in ALL] + [last]
    desk.drain()
    assert desk.payloads("complete") == [COMPLETE]
    assert "node 4 had ended when this message of node 3 came; it is dropped" in caplog.text


def _parts(message: Message) -> tuple[int, Any, dict[str, Any]]:
    content = orjson.loads(message.body)
    return content["recipe-path"][-1], content["payload"], content["environment"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (arrival("a", 2, environment={}), "it has no recipe ID"),
        (arrival("a", 1), "it came from node 1, and node 4 waits for messages of 2, 3"),
        (arrival("a", 0), "it came from no node, and node 4 waits for messages of 2, 3"),
        (arrival("a", 2, content=recipe(parameters={})), "wait-for: field required"),
        (arrival("a", 2, content=recipe(parameters={"wait-for": []})), "at least 1 item"),
        (arrival("a", 2, content=recipe(parameters={"wait-for": [2, 2]})), "names node 2 twice"),
        (
            arrival("a", 2, content=recipe(parameters={"wait-for": 2})),
            "must be a list of nodes, or an object",
        ),
        (arrival("a", 2, content=recipe(parameters={"wait-for": {"2": "{n}"}})), "valid integer"),
        (arrival("a", 2, content=recipe(parameters={"wait-for": {"2": 0}})), "greater than or equal to 1"),
        (arrival("a", 2, "x" * 9 * 2**20), "takes more than 8388608 bytes"),
    ],
)
def test_what_makes_no_sense_is_rejected(desk: Desk, message: Message, reason: str) -> None:
    desk.queue = [message]
    desk.drain()
    assert reason in desk.rejected[0][1]
    desk.queue = list(ALL)
    desk.drain()
    assert desk.payloads("complete") == [COMPLETE]


def test_a_list_of_many_nodes_is_refused_in_time(desk: Desk) -> None:
    """To count each of them in the whole list would take half an hour."""
    desk.queue = [arrival("a", 2, content=recipe(parameters={"wait-for": list(range(1, 300_000))}))]
    desk.drain()
    assert "at most 1000 items" in desk.rejected[0][1]


def test_a_time_limit_that_strikes_while_it_waits_for_the_file_costs_that_message_alone(desk: Desk) -> None:
    content = recipe(timeout=0.3)
    desk.queue = [replace(message, body=body(*_parts(message), content)) for message in ALL]
    other = sqlite3.connect(desk.directory / "joins.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    def release_when_it_has_struck() -> None:
        wait_until(lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0, 10, "the handling to begin")
        wait_until(lambda: signal.getitimer(signal.ITIMER_REAL)[0] == 0, 10, "its time to be over")
        other.execute("COMMIT")

    release = threading.Thread(target=release_when_it_has_struck)
    release.start()
    assert handle(desk.join, desk.queue[0], hard=False).result == "timeout"
    release.join()
    desk.drain()
    assert desk.payloads("complete") == [COMPLETE]
    other.close()


def test_numbers_filled_in_from_placeholders_are_text(desk: Desk) -> None:
    content = recipe(parameters={"wait-for": {"2": "1", "3": "2"}, "timeout": "5"})
    desk.queue = [replace(message, body=body(*_parts(message), content)) for message in ALL]
    desk.drain()
    assert desk.payloads("complete") == [COMPLETE]


def test_a_lost_state_is_said(desk: Desk) -> None:
    desk.queue = [ALL[0]]
    desk.drain()
    desk.join.stop()
    for path in desk.directory.iterdir():
        path.unlink()
    desk.join = desk.service()
    desk.time_passes()
    assert "does not know what had come by then" in desk.rejected[0][1]


def test_what_is_old_is_let_go(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.queue = [*ALL, arrival("waiting", 2, environment={"ID": "r2"})]
    desk.drain()

    def rows(table: str) -> int:
        with contextlib.closing(sqlite3.connect(desk.directory / "joins.sqlite")) as database:
            return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - names of ours

    def later(days: float) -> None:
        now = time.time()
        monkeypatch.setattr("parvis_services.operate.join_state.time.time", lambda: now + days * 86400)
        desk.join.stop()
        desk.join = desk.service()
        desk.queue = [replace(ALL[0], message_id="a copy")]
        desk.drain()

    assert (rows("joins"), rows("arrivals")) == (2, 4)
    later(0.9)
    assert (rows("joins"), rows("arrivals")) == (2, 4)
    later(2)
    assert (rows("joins"), rows("arrivals")) == (2, 1)
    later(21)
    assert (rows("joins"), rows("arrivals")) == (1, 1), "of the message that came just now"
    assert len(desk.payloads("complete")) == 1


def test_what_looks_like_its_own_message_does_not_harm_a_join(desk: Desk) -> None:
    desk.queue = [*ALL[:2], arrival("x", 2, {"parvis-join": "ended"}), arrival("y", 2, {"parvis-join": []})]
    desk.drain()
    assert desk.sent == []
    desk.queue = ALL[2:]
    desk.drain()
    (payload,) = desk.payloads("complete")
    assert payload == {"arrived": {**COMPLETE["arrived"], "2": [{"n": 1}, {"parvis-join": []}]}}


def test_a_state_that_cannot_be_kept_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    join = Join(Config(storage={"parvis.state_directory": str(tmp_path / "file")}))
    with pytest.raises(ConfigError, match=r"parvis\.state_directory: cannot keep joins in"):
        join.start()


def test_a_state_of_another_version_is_left_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.join.stop()
    with sqlite3.connect(tmp_path / "joins.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ConfigError, match="another version"):
        desk.service()


@settings(max_examples=100, deadline=None)
@given(
    copies=st.lists(st.integers(0, 4), max_size=6),
    kills=st.lists(st.booleans(), max_size=30),
    seed=st.integers(0, 2**32),
)
def test_whatever_happens_it_completes_once_with_everything(
    copies: Sequence[int], kills: Sequence[bool], seed: int
) -> None:
    content = recipe(parameters={"wait-for": {"2": 2, "3": 3}})
    messages = [arrival(str(n), 2 if n < 2 else 3, n, content=content) for n in range(5)]
    messages += [replace(messages[n], message_id=f"copy {k}") for k, n in enumerate(copies)]
    random.Random(seed).shuffle(messages)
    with tempfile.TemporaryDirectory() as directory:
        desk = Desk(Path(directory), queue=messages)
        for killed in kills:
            if desk.queue:
                desk.take(killed=killed)
        desk.drain()
        desk.time_passes()
        desk.join.stop()
    assert [
        {node: sorted(payloads) for node, payloads in payload["arrived"].items()}
        for payload in desk.payloads("complete")
    ] == [{"2": [0, 1], "3": [2, 3, 4]}]
    assert len(desk.sent) == 1
    assert desk.rejected == []
