"""Which outputs an image goes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis_services.watch.selection import is_selected, outputs_for


def selected(count: int, total: int) -> list[int]:
    return [number for number in range(1, total + 1) if is_selected(number, total, count)]


def test_a_selection_is_the_one_that_recipes_have_always_had() -> None:
    assert selected(3, 10) == [1, 6, 10]
    assert selected(30, 200)[:5] == [1, 7, 14, 21, 28]
    assert selected(30, 200)[-2:] == [194, 200]
    assert selected(250, 3600)[:4] == [1, 15, 29, 44]
    assert selected(250, 3600)[-2:] == [3586, 3600]


def test_a_selection_of_one_is_the_first_image() -> None:
    assert selected(1, 5) == [1]


def test_all_images_are_selected_if_there_are_no_more_than_asked_for() -> None:
    assert selected(10, 4) == [1, 2, 3, 4]


@given(st.integers(2, 300), st.integers(1, 2000))
def test_a_selection_has_the_size_asked_for_and_holds_first_and_last(count: int, total: int) -> None:
    numbers = selected(count, total)
    assert len(numbers) == min(count, total)
    assert {1, total} <= set(numbers)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, ["first", "every", "every-3", "select-2"]),
        (4, ["every", "every-3"]),
        (5, ["every", "5"]),
        (7, ["every", "every-3", "last", "select-2"]),
    ],
)
def test_an_image_goes_to_all_outputs_it_belongs_to(number: int, expected: list[str]) -> None:
    outputs = ["first", "every", "every-3", "5", "last", "select-2"]
    assert set(outputs_for(number, 7, outputs)) == set(expected)


@pytest.mark.parametrize(
    "output", ["every-0", "select-0", "select-x", "-3", "0", "every-", "finally", "every-³"]
)
def test_other_outputs_get_no_images(output: str) -> None:
    assert not any(outputs_for(number, 5, [output]) for number in range(1, 6))
