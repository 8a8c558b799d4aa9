"""What dead letters say of themselves, whoever made them, and which of them somebody means."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from parvis.observe.dead_letter_search import Wanted, chosen, common_reason, grouped, numbered
from parvis.observe.dead_letters import DeadLetter, of_content, of_peeked, origin_of
from parvis.observe.queue_figures import PeekedMessage
from parvis.recipe.envelope import dump_json

RECIPE = {
    "1": {"queue": "watch", "output": 2},
    "2": {"queue": "analyse", "parameters": {"d_min": 2}},
    "start": [[1, []]],
}
BODY = dump_json(
    {
        "recipe": RECIPE,
        "recipe-pointer": 2,
        "recipe-path": [1],
        "environment": {"ID": "8e2e8e3c"},
        "payload": {"file": "a.cbf"},
    }
)
HEADERS = {
    "workflows-recipe": "True",
    "parvis-id": "0049d2c3c38837a5c11517b7",
    "parvis-reason": "not an image",
    "parvis-result": "failed 4 times",
    "parvis-traceback": "Traceback (most recent call last):\n...",
    "parvis-service": "Analysis",
    "parvis-host": "host.1",
    "parvis-time": "2026-11-20T17:24:47.269+00:00",
    "parvis-tries": "4",
    "original-destination": "/queue/zocalo.analyse",
    "destination": "/queue/DLQ.zocalo.analyse",
    "message-id": "ID:1",
}


def letter(body: bytes = BODY, **changes: str) -> DeadLetter:
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changes.items()}
    return of_content({name: value for name, value in headers.items() if value}, body)


def test_of_ours_everything_is_known() -> None:
    found = letter()
    assert (found.queue, found.origin, found.message_id) == ("DLQ.zocalo.analyse", "zocalo.analyse", "ID:1")
    assert (found.identity, found.reason, found.result) == (
        HEADERS["parvis-id"],
        "not an image",
        "failed 4 times",
    )
    assert (found.service, found.host, found.tries, found.died) == ("Analysis", "host.1", 4, 1795195487.269)
    assert (found.recipe_id, found.node, found.payload) == ("8e2e8e3c", 2, {"file": "a.cbf"})
    assert (found.parameters, found.route, found.reinjected) == ({"d_min": 2}, "1 watch > 2 analyse", 0)
    assert found.is_whole


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"dlqDeliveryFailureCause": "it is poison"}, "it is poison"),
        ({"x-first-death-reason": "delivery_limit"}, "handed out too often"),
        ({"x-first-death-reason": "expired"}, "nobody took it in its time"),
        ({"x-first-death-reason": "something new"}, "something new"),
        ({}, "nobody said why"),
    ],
)
def test_of_others_as_much_as_the_broker_says(headers: dict[str, str], reason: str) -> None:
    found = of_content({"x-first-death-queue": "work", "timestamp": "1700000000123", **headers}, b"text")
    assert reason in found.reason
    assert (found.origin, found.died, found.payload, found.node) == ("work", 1700000000.123, None, None)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b"\xff", b'{"recipe": {}, "recipe-pointer": 3}', b"null", b"1e999"]
)
def test_bodies_that_cannot_be_read(body: bytes) -> None:
    found = letter(body)
    assert (found.reason, found.node, found.recipe_id) == ("not an image", None, None)
    assert found.to_json()["reason"] == "not an image"


@pytest.mark.parametrize("time_text", ["", "soon", "9" * 400, "2026-13-01", "0001-01-01T00:00:00+23:59"])
def test_times_that_are_none(time_text: str) -> None:
    assert letter(parvis_time=time_text or "?", parvis_tries="-1").tries is None
    assert isinstance(letter(parvis_time=time_text or "?").died, float | None)


def test_a_name_is_the_same_at_every_look() -> None:
    message = PeekedMessage("dlq.work", 1, "", {}, b"body", 4)
    assert of_peeked(message).identity == of_peeked(replace(message, place=7)).identity
    assert of_peeked(message).identity != of_peeked(replace(message, body=b"other", size=5)).identity


@pytest.mark.parametrize(
    ("queue", "origin"), [("DLQ.zocalo.work", "zocalo.work"), ("dlq.work", "work"), ("ActiveMQ.DLQ", "")]
)
def test_queues_of_dead_letters(queue: str, origin: str) -> None:
    assert origin_of(queue) == origin


@pytest.mark.parametrize(
    ("namespace", "queues", "wanted"),
    [
        ("zocalo", (), True),
        ("", (), True),
        ("zocdev", (), False),
        ("zocalo", ("analyse",), True),
        ("zocalo", ("zocalo.analyse",), True),
        ("zocdev", ("DLQ.zocalo.analyse",), True),
        ("zocdev", ("analyse",), False),
        ("zocalo", ("analyse2", "watch"), False),
    ],
)
def test_queues_are_named_with_or_without_their_namespace(
    namespace: str, queues: tuple[str, ...], wanted: bool
) -> None:
    assert Wanted(namespace, queues).has_queue("DLQ.zocalo.analyse") is wanted


def test_one_queue_for_all_dead_letters_is_sorted_by_where_they_died() -> None:
    mine, other = (
        letter(destination="ActiveMQ.DLQ"),
        letter(destination="ActiveMQ.DLQ", original_destination="/queue/zocdev.x"),
    )
    assert Wanted("zocalo").has_queue("ActiveMQ.DLQ")
    assert [Wanted("zocalo").matches(one) for one in (mine, other)] == [True, False]


def test_letters_are_grouped_by_what_their_reasons_share() -> None:
    reasons = [
        "/data/1.cbf: not an image",
        "/data/2.cbf: not an image",
        "'x' is 3 too many",
        "'y' is 4 too many",
    ]
    letters = numbered(letter(parvis_reason=reason) for reason in [*reasons, reasons[0]])
    groups = grouped(letters)
    assert [(group.reason, len(group.letters)) for group in groups] == [
        ("… not an image", 3),
        ("… is … too many", 2),
    ]


def test_long_reasons_cost_no_time() -> None:
    begun = time.process_time()
    assert len(common_reason("'" * 10_000_000)) < 3000
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("2", 2),
        ("0049d2c3-b", 2),
        ("0049d2c3-a", 1),
        ("last", 3),
        ("0049", "means 2 dead letters (1, 2)"),
        ("9", "no dead letter '9'"),
        ("", "no dead letter ''"),
        ("00", "no dead letter '00'"),
        ("²", "no dead letter"),
    ],
)
def test_letters_are_named(name: str, found: Any) -> None:
    identities = ("0049d2c3-a", "0049d2c3-b", "ID:something:that-is-last")
    letters = numbered(letter(parvis_id=one) for one in identities)
    if isinstance(found, int):
        assert chosen(letters, name).number == found
    else:
        with pytest.raises(LookupError, match=found.replace("(", r"\(").replace(")", r"\)")):
            chosen(letters, name)
