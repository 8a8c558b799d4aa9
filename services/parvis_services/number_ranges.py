"""Numbers of images, kept as ranges: a scan of a million images that are all there is one range."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import AfterValidator, PositiveInt


def _ordered(span: tuple[int, int]) -> tuple[int, int]:
    if span[1] < span[0]:
        raise ValueError("the last number of a range must not be smaller than the first")
    return span


Range = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_ordered)]
"""Numbers of images from the first to the last, both included; they count from 1."""


class NumberRanges:
    """A set of whole numbers that lie close together.

    Args:
        ranges: What is in it, each with its first and its last number; in any order, and they may overlap.

    Raises:
        ValueError: The last number of a range is smaller than its first.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._count = 0
        for first, last in sorted(ranges):
            if last < first:
                raise ValueError(f"{first} to {last} is no range of numbers")
            self._append(first, last)

    def __len__(self) -> int:
        """How many numbers are in it."""
        return self._count

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    @property
    def highest(self) -> int | None:
        """The highest number in it."""
        return self._lasts[-1] if self._lasts else None

    def ranges(self) -> list[tuple[int, int]]:
        """Return the ranges, in order; between two of them at least one number is missing."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def add(self, number: int) -> None:
        """Put a number in; nothing changes if it is there."""
        place = bisect_right(self._firsts, number)
        if place and number <= self._lasts[place - 1]:
            return
        self._count += 1
        joins_left = place > 0 and self._lasts[place - 1] == number - 1
        joins_right = place < len(self._firsts) and self._firsts[place] == number + 1
        if joins_left and joins_right:
            self._lasts[place - 1] = self._lasts.pop(place)
            del self._firsts[place]
        elif joins_left:
            self._lasts[place - 1] = number
        elif joins_right:
            self._firsts[place] = number
        else:
            self._firsts.insert(place, number)
            self._lasts.insert(place, number)

    def gaps(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of what is missing from `first` to `last`, in order."""
        place = max(0, bisect_right(self._firsts, first) - 1)
        for begin, end in zip(self._firsts[place:], self._lasts[place:], strict=True):
            if begin > last:
                break
            if begin > first:
                yield first, begin - 1
            first = max(first, end + 1)
        if first <= last:
            yield first, last

    def _append(self, first: int, last: int) -> None:
        """Put a range in that begins behind, or with, all there are."""
        if self._lasts and first <= self._lasts[-1] + 1:
            self._count += max(0, last - self._lasts[-1])
            self._lasts[-1] = max(self._lasts[-1], last)
        else:
            self._firsts.append(first)
            self._lasts.append(last)
            self._count += last - first + 1
