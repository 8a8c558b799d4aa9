"""Text and numbers that anybody may have sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis.observe.harmless import figure, figures, harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" PIA 1 ", "PIA 1"),
        ("é 中 ●", "é 中 ●"),
        ("a\x1b[2J\x07\x9b", "a?[2J??"),
        ("line\nline\ttab", "line?line?tab"),
        ("\u202eexe.gnp\u2066", "?exe.gnp?"),
        ("א ب", "? ?"),
        ("e\u0301 z" + 50 * "\u0300\u20dd", "é z"),
        ("\ud800", "?"),
        ("x" * 300, "x" * 200),
    ],
)
def test_text(text: str, shown: str) -> None:
    assert harmless(text) == shown


@given(st.text(), st.integers(0, 50))
def test_any_text_is_one_short_printable_line(text: str, limit: int) -> None:
    shown = harmless(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


@pytest.mark.parametrize("value", [None, 3, ["a"], {"a": 1}, b"a"])
def test_what_is_no_text(value: Any) -> None:
    assert harmless(value) == ""


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (0.5, 0.5), (True, None), ("3", None), (-1, None), (float("nan"), None), (10**400, None)],
)
def test_figure(value: Any, number: float | None) -> None:
    assert figure(value) == number


def test_figures() -> None:
    assert figures({"held": 2, "room": "much", "": 1, "\x1b": 3}) == {"held": 2.0, "?": 3.0}
    assert figures([1]) == {}
    assert len(figures({str(number): 1 for number in range(100)})) == 20
