"""What the status card of a process says of what it did, and who reads it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inbox import Inbox
from parvis.observe.cards import Card, CardBoard
from parvis.observe.recent_messages import Doings, RecentMessage
from parvis.transport.base import Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from running import hosted, recipe_message
from sample_services import Multiplier, Sleeper
from waiting import wait_until

HOSTILE = "\x1b[31m\u202e[red]\u0000\\\"'" * 2000


def card_when(board: CardBoard, holds: Callable[[Card], object], what: str) -> Card:
    """Return the only card as soon as something holds for it."""
    wait_until(lambda: any(holds(card) for card in board.cards()), 20, what)
    (card,) = board.cards()
    return card


def test_a_card_names_the_last_messages_and_counts_errors(
    broker: BrokerThread, transport: StompTransport
) -> None:
    board, heard = CardBoard(), Inbox()
    transport.subscribe_broadcast("transient.status", board.take)
    transport.subscribe_broadcast("transient.status", heard)
    with hosted(broker.port, Multiplier):
        for number in (1, 2, 13, 3, 4, 5):
            transport.send(recipe_message("multiply", {"number": number}))
        transport.send(Send("multiply", b"nonsense"))
        card = card_when(board, lambda card: card.doings.handled == 7, "a card that knows of seven messages")
    results = [one.result for one in card.doings.last]
    assert results == ["reject", "done", "done", "done", "reject"]
    assert card.doings.errors == {"reject": 2}
    assert (card.doings.last[0].recipe, card.doings.last[0].node) == ("", "")
    last = card.doings.last[4]
    assert (last.recipe, last.node, last.reason) == ("test-recipe", "1", "13 is no good")
    assert 0 <= last.seconds < 5
    assert all(len(message.body) < 2500 for message in heard.messages)
    json.dumps(card.to_json())


def test_a_card_names_the_recipe_in_hand(
    broker: BrokerThread, transport: StompTransport, tmp_path: Path
) -> None:
    board = CardBoard()
    transport.subscribe_broadcast("transient.status", board.take)
    files = {"started": str(tmp_path / "started"), "go-on": str(tmp_path / "go-on")}
    with hosted(broker.port, Sleeper):
        transport.send(recipe_message("sleep", files))
        card = card_when(board, lambda card: card.recipe, "a card with a recipe")
        assert (card.recipe, card.state) == ("test-recipe", "processing")
        Path(files["go-on"]).touch()
        card_when(board, lambda card: card.doings.handled and not card.recipe, "a card without a recipe")


def test_hostile_names_stay_small_and_harmless() -> None:
    message = RecentMessage(1.0, HOSTILE, HOSTILE, "fail", 1.0, HOSTILE)
    content = Doings(7, {"fail": 7}, [message] * 5).to_json()
    assert len(json.dumps(content, ensure_ascii=False).encode()) < 1500
    (first, *_) = Doings.read(content).last
    assert (first.recipe + first.node + first.reason).isprintable()
    assert first.result == "fail"


_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_ANY = st.recursive(_PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
_ROW = st.lists(_PLAIN, min_size=6, max_size=6)


@settings(max_examples=60, deadline=None)
@given(_ANY | st.fixed_dictionaries({"handled": _PLAIN, "errors": _ANY, "last": st.lists(_ROW | _ANY)}))
def test_anything_on_a_card(told: Any) -> None:
    doings = Doings.read(told)
    assert len(doings.last) <= 5
    assert all(one.reason.isprintable() for one in doings.last)
    json.dumps(doings.to_json())


def test_a_job_of_a_cluster_is_on_the_card(
    broker: BrokerThread, transport: StompTransport, monkeypatch: Any
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    board, came = CardBoard(), threading.Event()
    transport.subscribe_broadcast("transient.status", lambda message: (board.take(message), came.set())[1])
    with hosted(broker.port, Multiplier):
        assert came.wait(10)
    assert board.cards()[0].job == "4711"
