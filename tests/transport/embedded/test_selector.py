"""Selectors: what they accept, what they choose, and that they cannot be used to stop the broker."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parvis.transport.embedded.message import Message
from parvis.transport.embedded.selector import Selector, SelectorError


def message(redeliveries: int = 0, **headers: str) -> Message:
    return Message(1, "id-1", "/queue/a", headers, b"", 1000, priority=7, redeliveries=redeliveries)


RED = message(
    colour="red", n="5", ratio="0.5", big="9007199254740993", flag="true", type="scan", quote="it's"
)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("colour = 'red'", True),
        ("colour <> 'red'", False),
        ("quote = 'it''s'", True),
        ("n > 4 AND n >= 5 AND n < 6 AND n <= 5", True),
        ("n = 5.0", True),
        ("n = '5'", True),
        ("5 = n", True),
        ("n > -1e3", True),
        ("ratio < .6", True),
        ("big = 9007199254740993", True),
        ("big = 9007199254740992", False),
        ("colour > 4", False),
        ("NOT colour > 4", False),
        ("colour < 'z'", False),
        ("NOT colour = 'blue'", True),
        ("not not colour = 'red'", True),
        ("missing = 'x'", False),
        ("NOT missing = 'x'", False),
        ("missing = 'x' OR colour = 'red'", True),
        ("missing = 'x' AND colour = 'red'", False),
        ("NOT (missing = 'x' AND colour = 'blue')", True),
        ("missing IS NULL AND colour IS NOT NULL", True),
        ("colour = 'blue' AND n = 5 OR flag", True),
        ("colour = 'blue' AND (n = 5 OR flag)", False),
        ("flag = TRUE AND NOT flag = false", True),
        ("colour", False),
        ("colour LIKE 'r_d'", True),
        ("colour LIKE '%'", True),
        ("colour LIKE 'r%d%'", True),
        ("colour LIKE 'r%e'", False),
        ("colour NOT LIKE 'b%'", True),
        ("colour LIKE 'red_'", False),
        ("missing LIKE '%'", False),
        ("missing NOT LIKE '%'", False),
        ("colour IN ('blue', 'red')", True),
        ("colour NOT IN ('blue')", True),
        ("missing NOT IN ('blue')", False),
        ("n BETWEEN 5 AND 6 AND n NOT BETWEEN 6 AND 7", True),
        ("missing NOT BETWEEN 1 AND 2", False),
        ("JMSPriority = 7 AND JMSTimestamp = 1000 AND JMSMessageID = 'id-1'", True),
        ("JMSType = 'scan' AND JMSDeliveryMode = 'NON_PERSISTENT'", True),
        ("JMSXDeliveryCount > 1 OR JMSRedelivered", False),
        ("JMSExpiration = 0 AND JMSCorrelationID IS NULL", True),
    ],
)
def test_what_is_chosen(text: str, chosen: bool) -> None:
    assert Selector(text).matches(RED) is chosen


def test_the_delivery_count_is_that_of_the_next_delivery() -> None:
    selector = Selector("JMSXDeliveryCount > 5")
    assert [selector.matches(message(redeliveries)) for redeliveries in (0, 4, 5, 6)] == [
        False,
        False,
        True,
        True,
    ]


def test_an_escape_makes_wildcards_ordinary() -> None:
    selector = Selector(r"a LIKE '10\%\_%' ESCAPE '\'")
    assert selector.matches(message(a="10%_x"))
    assert not selector.matches(message(a="100_x"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a name, text or number expected at character 0, found the end"),
        ("a =", "expected at character 3, found the end"),
        ("a = = 1", "expected at character 4, found '='"),
        ("a = 1 b", "the end expected at character 6, found 'b'"),
        ("(a = 1", "')' expected"),
        ("a IN (1)", "text in single quotes expected"),
        ("a IN ('x'", "')' expected"),
        ("a BETWEEN 1 OR 2", "'AND' expected"),
        ("a NOT = 1", "LIKE, IN or BETWEEN expected"),
        ("a IS 5", "'NULL' expected"),
        ("a = 'open", 'unexpected "\'" at character 3'),
        ("a; DROP TABLE x", "unexpected ';'"),
        ("__import__('os')", "the end expected"),
        ("(" * 51 + "a = 1" + ")" * 51, "nested deeper than 50"),
        ("a = 1 OR " * 1000 + "a = 1", "longer than 4096"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(SelectorError) as caught:
        Selector(text)
    assert says in str(caught.value)


def like(pattern: str, text: str) -> bool:
    """The definition: slow, but plain."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(like(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in {"_", text[0]} and like(pattern[1:], text[1:])


@given(st.text("ab%_", max_size=8), st.text("ab", max_size=8))
@example("%a%b", "aabab")
def test_like_is_what_it_is_defined_to_be(pattern: str, text: str) -> None:
    assert Selector(f"a LIKE '{pattern}'").matches(message(a=text)) is like(pattern, text)


def test_a_hostile_pattern_does_not_take_long() -> None:
    """With backtracking over every %, this would take longer than the universe is old."""
    selector = Selector(f"a LIKE '{'%a' * 30}%b'")
    assert not selector.matches(message(a="a" * 1000))


@given(st.text("a1'()=<>% NOTANDORLIKEIN,.", max_size=40))
def test_any_text_is_a_selector_or_an_error(text: str) -> None:
    try:
        selector = Selector(text)
    except SelectorError:
        return
    assert selector.matches(RED) in {True, False}
