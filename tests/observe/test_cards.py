"""Cards made of status broadcasts, whoever sends them and whatever they hold."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parvis.observe.cards import GONE, LATE, CardBoard

ZOCALO = {
    "host": "uk.example.vm.1229",
    "status": 2,
    "statustext": "idle",
    "service": "Dispatcher",
    "serviceclass": "Dispatcher",
    "utilization": {"2": 0.75, "3": 0.05, "4": 0.2},
    "workflows": "3.3",
    "zocalo": "1.5.0",
}
WRAPPER = {
    "host": "vm.7",
    "task": "xia2 (visit x)",
    "workflows": "3.3",
    "status": 4,
    "statustext": "processing",
}
OURS = {"host": "vm.8", "status": 4, "service": "PIA", "parvis": "0.1.0", "mem-uss": 81.5, "tag": "blue"}


def put(board: CardBoard, told: Any, now: float = 0.0) -> None:
    board.put(json.dumps(told).encode(), now)


def test_what_services_and_wrappers_say() -> None:
    board = CardBoard()
    for told in (ZOCALO, WRAPPER, OURS | {"parvis-flow": {"held": 2, "room": "much"}}):
        put(board, told)
    dispatcher, pia, wrapper = board.cards(1.0)
    assert (dispatcher.service, dispatcher.state, dispatcher.utilisation) == ("Dispatcher", "idle", 0.25)
    assert dispatcher.version == "zocalo 1.5.0"
    assert (pia.memory, pia.tag, pia.state, pia.version) == (81.5, "blue", "processing", "parvis 0.1.0")
    assert pia.flow == {"held": 2.0}
    assert (wrapper.service, wrapper.version) == ("xia2 (visit x)", "workflows 3.3")
    assert board.ignored == 0


def test_the_last_word_counts_and_silence_ends_it() -> None:
    board = CardBoard()
    put(board, ZOCALO, now=0)
    put(board, ZOCALO | {"status": 7}, now=5)
    (card,) = board.cards(5)
    assert card.state == "error"
    assert card.age(5 + LATE + 1) == LATE + 1
    assert board.cards(5 + GONE) == [card]
    assert board.cards(5 + GONE + 1) == []


@pytest.mark.parametrize("status", [6, -2])
def test_who_left_is_shown_for_a_moment(status: int) -> None:
    board = CardBoard()
    put(board, ZOCALO | {"status": status}, now=0)
    assert [card.state for card in board.cards(LATE)] == ["shutdown"]
    assert board.cards(LATE + 1) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"host": 3}',
        b'{"host": ""}',
        b'{"status": 2}',
        b'{"host": "x", "service": "' + b"x" * 70_000 + b'"}',
        b"[" * 100_000,
    ],
)
def test_no_status(body: bytes) -> None:
    board = CardBoard()
    board.put(body)
    assert board.ignored == 1
    assert board.cards() == []


def test_text_that_could_harm_a_terminal() -> None:
    board = CardBoard()
    put(board, {"host": "a\x1b[2J", "service": "b\u202e" + "c" * 500, "statustext": "\x07", "status": "9"})
    (card,) = board.cards(0)
    shown = card.host + card.service + card.state
    assert shown.isprintable()
    assert len(card.service) <= 200
    assert card.status is None


def test_a_status_that_json_cannot_carry() -> None:
    board = CardBoard()
    board.put(b'{"host": "a", "mem-uss": NaN, "status": 1' + 30 * b"0" + b"}")
    (card,) = board.cards()
    assert orjson.loads(orjson.dumps(card.to_json()))["status"] is None


def test_a_flood_does_not_take_all_memory() -> None:
    board = CardBoard()
    for number in range(10_010):
        put(board, {"host": f"flood.{number}"})
    assert len(board.cards(0)) == 10_000
    assert board.ignored == 10
    put(board, ZOCALO, now=GONE + 1)
    assert [card.host for card in board.cards(GONE + 1)] == [ZOCALO["host"]]


_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_JSON = _PLAIN | st.lists(_PLAIN, max_size=2) | st.dictionaries(st.text(max_size=3), _PLAIN, max_size=2)
_KEYS = [*ZOCALO, *OURS, "parvis-flow", "task"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(_KEYS), _JSON))
def test_anything(told: dict[str, Any]) -> None:
    board = CardBoard()
    put(board, told)
    for card in board.cards(0):
        json.dumps(card.to_json())
    assert len(board.cards(0)) + board.ignored == 1
