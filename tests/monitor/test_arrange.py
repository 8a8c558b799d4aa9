"""Which instances the monitor shows, in which order, and who runs an old version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parvis.monitor.arrange import Order, grouped, is_outdated, matching, newest, ordered
from parvis.observe.cards import Card, CardBoard


def cards(*told: dict[str, Any]) -> list[Card]:
    """Cards that came at time 0, but for those that say `seen`."""
    board = CardBoard()
    for number, one in enumerate(told):
        seen = one.pop("seen", 0.0)
        board.put(json.dumps({"host": f"vm.{number}", "status": 2, **one}).encode(), seen)
    return board.cards(0)


def three() -> list[Card]:
    return cards(
        {"host": "uk.b.1", "service": "PIA", "status": 4, "utilization": {"4": 0.9}, "parvis": "0.2.0"},
        {"host": "uk.a.2", "service": "Dispatcher", "status": 7, "tag": "blue", "parvis": "0.10.0"},
        {"host": "uk.c.3", "service": "PIA", "status": 2, "seen": -20.0, "parvis-recipe": "3f2a"},
    )


@pytest.mark.parametrize(
    ("order", "hosts"),
    [
        (Order.SERVICE, ["uk.a.2", "uk.b.1", "uk.c.3"]),
        (Order.HOST, ["uk.a.2", "uk.b.1", "uk.c.3"]),
        (Order.STATE, ["uk.a.2", "uk.c.3", "uk.b.1"]),
        (Order.UTILISATION, ["uk.b.1", "uk.a.2", "uk.c.3"]),
        (Order.LAST_SEEN, ["uk.c.3", "uk.a.2", "uk.b.1"]),
    ],
)
def test_order(order: Order, hosts: list[str]) -> None:
    assert [card.host for card in ordered(three(), order, 0)] == hosts


@pytest.mark.parametrize(
    ("order", "services"),
    [
        (Order.SERVICE, ["Dispatcher", "PIA"]),
        (Order.HOST, ["PIA", "Dispatcher"]),
        (Order.STATE, ["Dispatcher", "PIA"]),
        (Order.UTILISATION, ["PIA", "Dispatcher"]),
        (Order.LAST_SEEN, ["PIA", "Dispatcher"]),
    ],
)
def test_order_of_services(order: Order, services: list[str]) -> None:
    assert [group.service for group in grouped(three(), order, 0)] == services


@pytest.mark.parametrize(
    ("words", "hosts"),
    [
        ("", ["uk.a.2", "uk.b.1", "uk.c.3"]),
        ("pia", ["uk.b.1", "uk.c.3"]),
        ("PIA idle", ["uk.c.3"]),
        ("blue", ["uk.a.2"]),
        ("3f2a", ["uk.c.3"]),
        ("0.10", ["uk.a.2"]),
        ("nobody", []),
    ],
)
def test_words(words: str, hosts: list[str]) -> None:
    assert [card.host for card in matching(three(), words)] == hosts


def test_an_old_version_is_one_of_which_a_newer_runs() -> None:
    old, new, other = cards({"parvis": "0.2.0"}, {"parvis": "0.10.0"}, {"zocalo": "0.1"})
    known = newest([old, new, other])
    assert [is_outdated(card, known) for card in (old, new, other)] == [True, False, False]


def test_versions_that_are_none() -> None:
    odd = cards({"parvis": "9" * 300}, {"parvis": "master"}, {"parvis": "1.0"}, {})
    known = newest(odd)
    assert [is_outdated(card, known) for card in odd] == [True, True, False, False]
