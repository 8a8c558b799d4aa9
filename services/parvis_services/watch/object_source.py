"""Stored images whose keys hold a number, as listings of their store show them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from parvis_services.stores.store import ImageStore, ObjectInfo
from parvis_services.stores.url import ObjectUrl, check_key

# Only with zeros in front the order of the keys is that of the numbers.
_PATTERN: Final = re.compile(r"([^%]*)%0([1-9])d([^%]*)", re.ASCII)
_LONGEST_PAGE: Final = 1000


def highest_number(pattern: str) -> int:
    """Return the highest number that there is room for in the names of images: 999999 for `%06d`.

    Raises:
        ValueError: The pattern does not hold one number with zeros in front, or makes no names of objects.
    """
    _, width, _ = _parts(pattern)
    check_key(pattern % 1)
    return 10**width - 1


@dataclass(frozen=True)
class StoredImages:
    """Images of one store whose keys begin alike and hold a number.

    Args:
        store: Where they are; must be allowed to list.
        place: What their keys begin with, without a slash at its end.
        pattern: How the rest of a key comes of a number: `%06d`.

    Raises:
        ValueError: The pattern is none.
    """

    store: ImageStore
    place: ObjectUrl
    pattern: str

    def __post_init__(self) -> None:
        highest_number(self.pattern)

    def key(self, number: int) -> str:
        """The key of an image."""
        return f"{self._directory}{self.pattern % number}"

    def url(self, number: int) -> ObjectUrl:
        """The address of an image."""
        return self.store.url(self.place.bucket, self.key(number))

    def between(self, first: int, last: int, page: int = _LONGEST_PAGE) -> Iterator[tuple[int, ObjectInfo]]:
        """Yield each image that is stored from number `first` (above 0) to `last`, in order.

        The store is asked for one page of a listing at a time, as the images are asked for.

        Args:
            first, last: Their numbers.
            page: How many keys to ask for at once.

        Raises:
            NoSuchObject: There is no such bucket.
            StoreError: The store cannot say.
        """
        before, _, behind = _parts(self.pattern)
        begin = f"{self._directory}{before}"
        numbered = re.compile(rf"{re.escape(begin)}([0-9]+){re.escape(behind)}", re.ASCII)
        after, end = self.key(first - 1), self.key(last)
        limit = min(page, _LONGEST_PAGE, last - first + 1)
        while listed := self.store.list_after(self.place.bucket, begin, after, limit):
            for info in listed:
                if info.key > end:
                    return
                match = numbered.fullmatch(info.key)
                if match is not None and self.key(int(match[1])) == info.key:
                    yield int(match[1]), info
            if len(listed) < limit:
                return
            after = listed[-1].key

    @property
    def _directory(self) -> str:
        return f"{self.place.key}/" if self.place.key else ""


def _parts(pattern: str) -> tuple[str, int, str]:
    """What stands before the number of a pattern, how many digits it has, and what stands behind it."""
    match = _PATTERN.fullmatch(pattern)
    if match is None:
        raise ValueError(f"pattern {pattern[:200]!r} must hold exactly one number, such as %06d")
    return match[1], int(match[2]), match[3]
