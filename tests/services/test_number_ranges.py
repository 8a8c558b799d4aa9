"""Sets of image numbers that are kept as ranges."""

from __future__ import annotations

import random

import pytest

from parvis_services.number_ranges import NumberRanges


def test_what_is_added_in_any_order_ends_as_the_same_ranges() -> None:
    chance = random.Random(7)
    wanted = set(range(1, 400)) - {5, 17, 18, 200} - set(range(300, 320))
    numbers = [*wanted, *chance.sample(sorted(wanted), 50)]
    chance.shuffle(numbers)
    found = NumberRanges()
    for number in numbers:
        found.add(number)
    assert found.ranges() == [(1, 4), (6, 16), (19, 199), (201, 299), (320, 399)]
    assert len(found) == len(wanted)
    assert found.highest == 399
    assert all((number in found) == (number in wanted) for number in range(402))


def test_ranges_that_overlap_or_touch_become_one() -> None:
    found = NumberRanges([(8, 9), (1, 3), (2, 5), (6, 6), (3, 4)])
    assert found.ranges() == [(1, 6), (8, 9)]
    assert len(found) == 8
    with pytest.raises(ValueError, match="5 to 3"):
        NumberRanges([(5, 3)])


@pytest.mark.parametrize(
    ("first", "last", "gaps"),
    [
        (1, 12, [(1, 2), (6, 6), (10, 12)]),
        (4, 8, [(6, 6)]),
        (3, 5, []),
        (6, 6, [(6, 6)]),
        (20, 22, [(20, 22)]),
        (1, 1, [(1, 1)]),
        (5, 10, [(6, 6), (10, 10)]),
    ],
)
def test_gaps_are_what_is_missing_of_a_stretch(first: int, last: int, gaps: list[tuple[int, int]]) -> None:
    assert list(NumberRanges([(3, 5), (7, 9)]).gaps(first, last)) == gaps
    assert list(NumberRanges().gaps(first, last)) == [(first, last)]
