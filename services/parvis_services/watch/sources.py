"""What can be watched: numbered files, a list of files, the images of an HDF5 file that is being written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from parvis_services.xray.errors import BrokenImageError, ImageError

# printf with a single whole number: anything wider would let a message fill the memory.
_PATTERN = re.compile(r"(?:[^%]|%%)*%0?[0-9]{0,2}d(?:[^%]|%%)*")
_MOST_IMAGES = 10_000_000


def check_pattern(pattern: str) -> None:
    """Raise ValueError unless a pattern of file names holds exactly one number."""
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(f"pattern {pattern[:200]!r} must hold exactly one number, such as %05d")


def check_range(start: int, end: int) -> None:
    """Raise ValueError unless images can be numbered from `start` to `end`."""
    if not 0 <= start <= end or end - start >= _MOST_IMAGES:
        raise ValueError(f"pattern-start {start} to pattern-end {end} is no range of images")


def tidy(path: str) -> str:
    """Return a path without doubled slashes: recipes put directories, with and without one, before names."""
    return re.sub("/{2,}", "/", path)


class Source(Protocol):
    """Images that are expected, numbered from 1.

    Attributes:
        total: How many.
        noun: What the payloads call them: `files` or `images`.
    """

    total: int
    noun: str

    def is_there(self, number: int) -> bool:
        """Whether an image can be read."""
        ...

    def place(self, number: int) -> dict[str, Any]:
        """What the payloads say of where an image is."""
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


@dataclass
class NumberedFiles:
    """Files whose names hold a number: a pattern such as `grid_%05d.cbf`, from `start` to `end`.

    Raises:
        ValueError: The pattern does not hold exactly one number, or the range is no good.
    """

    pattern: str
    start: int
    end: int
    exists: Callable[[str], bool]
    noun: str = "files"

    def __post_init__(self) -> None:
        check_pattern(self.pattern)
        check_range(self.start, self.end)
        self.total = self.end - self.start + 1

    def is_there(self, number: int) -> bool:
        return self.exists(self._file(number))

    def place(self, number: int) -> dict[str, Any]:
        return {
            "file": self._file(number),
            "file-number": number,
            "file-pattern-index": self.start + number - 1,
        }

    def close(self) -> None:
        """Nothing is open."""

    def _file(self, number: int) -> str:
        return tidy(self.pattern % (self.start + number - 1))


@dataclass
class ListedFiles:
    """Files that are named one by one."""

    files: Sequence[str]
    exists: Callable[[str], bool]
    noun: str = "files"

    def __post_init__(self) -> None:
        self.total = len(self.files)

    def is_there(self, number: int) -> bool:
        return self.exists(tidy(self.files[number - 1]))

    def place(self, number: int) -> dict[str, Any]:
        return {"file": tidy(self.files[number - 1]), "file-list-index": number}

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Hdf5Images:
    """The images of an HDF5 master file whose data files are being written.

    Args:
        master: Its path.
        allowed: Whether a file that it links to may be opened; by default all may.

    Raises:
        UnfinishedImageError: It cannot be read yet.
        ImageError: It is no such file, or does not say how many images it is to have.
    """

    master: str
    allowed: Callable[[Path], bool] | None = None
    noun: str = "images"

    def __post_init__(self) -> None:
        from parvis_services.xray.frame_map import FrameMap
        from parvis_services.xray.hdf5 import Tree

        self.master = tidy(self.master)
        self._tree = Tree(Path(self.master), self.allowed)
        try:
            self._map = FrameMap(self._tree)
            if self._map.declared is None:
                raise BrokenImageError(self.master, "it has no dataset of all images that says how many")
        except ImageError:
            self._tree.close()
            raise
        self.total = self._map.declared

    def is_there(self, number: int) -> bool:
        return self._map.is_written(number - 1)

    def place(self, number: int) -> dict[str, Any]:
        return {
            "hdf5": self.master,
            "hdf5-index": number - 1,
            "file": self.master,
            "file-number": number,
            "parameters": {"scan_range": f"{number},{number}"},
        }

    def close(self) -> None:
        self._tree.close()
