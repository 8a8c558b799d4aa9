"""Reports on messages in flight: what is sent is what is read, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis.recipe.envelope import MalformedMessage, dump_json
from parvis.service.flow_account import Account
from parvis.service.flow_report import Key, Report, Sent, Served, State, Tally

KEY = Key.of("3f2a91c0-7490-49dc", "gda2@cm1234-5", "0badcafe")


def test_a_report_is_read_as_it_was_written() -> None:
    report = Report(
        "org.example.host.17",
        1.25,
        gone=True,
        queues={"work": Served(7, 2.5), "rest.>": Served(0, None)},
        tallies={("work", KEY): Tally(7, 2, -1, 3, 1)},
        sent={("work", KEY): Sent(9, 7, held=True)},
    )
    assert Report.parse(report.to_bytes()) == report


GOOD: dict[str, Any] = {"host": "a", "idle": 0, "gone": False, "queues": {}, "tallies": [], "sent": []}


@pytest.mark.parametrize(
    "wrong",
    [
        {"idle": "long"},
        {"idle": None},
        {"idle": "nan"},
        {"host": ["a"]},
        {"queues": {"work": [1, "inf"]}},
        {"queues": {"a queue": [1, None]}},
        {"sent": [["a queue", str(KEY), 1, 1, True]]},
        {"tallies": [["", str(KEY), 1, 1, 0, 0, 0]]},
        {"queues": []},
        {"queues": {"work": [1]}},
        {"queues": {"work": [-1, None]}},
        {"queues": {"work": [1, "fast"]}},
        {"tallies": [["work", str(KEY), 1]]},
        {"tallies": [["work", "not a key", 1, 1, 0, 0, 0]]},
        {"tallies": [["work", str(KEY), True, 1, 0, 0, 0]]},
        {"tallies": [["work", str(KEY), 10**18, 1, 0, 0, 0]]},
        {"sent": 5},
        {"sent": [["work", str(KEY), 1.5, 1, True]]},
    ],
)
def test_what_is_no_report_is_not_read(wrong: dict[str, Any]) -> None:
    Report.parse(dump_json(GOOD))
    with pytest.raises(MalformedMessage):
        Report.parse(dump_json(GOOD | wrong))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b'{"host": 1}',
        b" " * 2_000_000,
        b'{"host": "a", "idle": 1' + b"0" * 400 + b"}",
        b'{"host": ' + b"[" * 990 + b"]" * 990 + b"}",
        dump_json(GOOD | {"sent": [["SURROGATE", str(KEY), 1, 1, True]]}).replace(b"SURROGATE", b"\\ud800"),
    ],
)
def test_anything_else_is_no_report_either(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Report.parse(body)


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_key_of_any_names_can_be_a_header_and_is_read_again(recipe: str, user: str) -> None:
    key = Key.of(recipe, user, "0badcafe")
    assert Key.parse(str(key)) == key
    assert str(key).isascii()
    assert len(str(key)) <= 140


@pytest.mark.parametrize(
    "text", ["", "a|b", "a|b|c|d", "a\n|b|0f", "a|b|XY", "é|b|0f", "|b|0f", "a" * 65 + "||0f"]
)
def test_what_is_no_key_is_none(text: str) -> None:
    assert Key.parse(text) is None


def test_the_state_of_a_fan_out_is_read_as_it_was_written() -> None:
    state = State("0badcafe", {"work": (12, 5), "rest": (3, 3)})
    assert State.parse(state.to_header()) == state


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "x",
        "{}",
        '["0f"]',
        '["not hex", {}]',
        '["0f", {"q": [1]}]',
        '["0f", {"q": [-1, 0]}]',
        "[" * 20_000,
    ],
)
def test_a_state_that_cannot_be_read_is_none(header: str | None) -> None:
    assert State.parse(header) is None


class Clock:
    """Seconds that the test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def work(account: Account, clock: Clock, messages: int, seconds: float, pause: float = 0) -> None:
    for _ in range(messages):
        clock.now += pause
        with account:
            clock.now += seconds
        account.finish("work", 1)


def rate(account: Account) -> float:
    served = account.queues()["work"].rate
    assert served is not None
    return served


def test_the_rate_is_that_of_a_busy_host() -> None:
    clock = Clock()
    account = Account(clock)
    account.serve("work")
    assert account.queues() == {"work": Served(0, None)}
    work(account, clock, 100, seconds=0.05, pause=10)
    assert rate(account) == pytest.approx(20, rel=0.01)
    assert account.queues()["work"].handled == 100


def test_short_pauses_belong_to_the_work() -> None:
    clock = Clock()
    account = Account(clock)
    work(account, clock, 1000, seconds=0.005, pause=0.005)
    assert rate(account) == pytest.approx(100, rel=0.02)


def test_the_rate_follows_what_changes() -> None:
    clock = Clock()
    account = Account(clock)
    work(account, clock, 100, seconds=0.1)
    work(account, clock, 2000, seconds=0.01)
    assert rate(account) == pytest.approx(100, rel=0.05)


def test_a_host_is_idle_since_it_laid_down_its_work() -> None:
    clock = Clock()
    account = Account(clock)
    clock.now += 3
    assert account.idle() == 3
    with account:
        clock.now += 5
        assert account.idle() == 0
    clock.now += 2
    assert account.idle() == 2


def test_sums_are_told_once_and_now_and_then_again() -> None:
    clock = Clock()
    account = Account(clock)
    account.count("work", KEY, done=1, waiting=0)
    account.count("work", KEY, done=1, waiting=1)
    assert account.tell(everything=False) == {("work", KEY): Tally(2, 2, 1)}
    assert account.tell(everything=False) == {}
    assert account.tell(everything=True) == {("work", KEY): Tally(2, 0, 1)}
    clock.now += 100
    assert account.tell(everything=True) == {}
    account.count("work", KEY, done=1, waiting=-1)
    account.count("work", KEY, sent=4)
    assert account.tell(everything=False) == {("work", KEY): Tally(3, 1, 0, 4, 4)}


def test_the_sums_of_endless_keys_do_not_fill_the_memory() -> None:
    account = Account()
    for number in range(5000):
        account.count("work", Key.of("recipe", "", f"{number:x}"), done=1, waiting=0)
    told = account.tell(everything=True)
    assert len(told) == 2000
    assert ("work", Key.of("recipe", "", f"{4999:x}")) in told
