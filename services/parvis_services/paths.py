"""Which paths a message may name."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SETTING = "parvis.allowed_directories"

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class PathNotAllowed(ValueError):
    """A message names a path that the site does not allow."""


class PathRule:
    """Which paths messages may name.

    They must be absolute, without `..`, and, where the site's configuration lists directories under
    `parvis.allowed_directories`, lie in one of them when links are followed.

    Args:
        storage: Plugin `storage` of the configuration.
    """

    def __init__(self, storage: Mapping[str, Any]) -> None:
        self._directories = [_real(str(directory)) for directory in storage.get(SETTING) or []]

    @property
    def predicate(self) -> Callable[[Path], bool] | None:
        """Says whether a file that another one links to may be opened; None if all may."""
        return (lambda path: self._is_inside(_real(str(path)))) if self._directories else None

    def path(self, name: str) -> Path:
        """Return the path that `name` stands for, links followed where the site lists directories.

        Raises:
            PathNotAllowed: A message may not name it.
        """
        if not name.startswith("/") or not _can_be_a_name(name):
            raise PathNotAllowed(f"{name[:200]!r} is not an absolute path")
        if ".." in name.split("/"):
            raise PathNotAllowed(f"{name[:200]!r} holds '..': write the path out")
        if not self._directories:
            return Path(name)
        path = _real(name)
        if not self._is_inside(path):
            raise PathNotAllowed(
                f"{name[:200]!r} lies outside the directories that the site allows ({SETTING})"
            )
        return path

    def _is_inside(self, path: Path) -> bool:
        return any(path.is_relative_to(directory) for directory in self._directories)


def allowed_path(name: str, storage: Mapping[str, Any]) -> Path:
    """Return the path that `name` stands for, if a message may name it (see `PathRule`).

    Raises:
        PathNotAllowed: It may not.
    """
    return PathRule(storage).path(name)


def special_kind(path: Path) -> str | None:
    """Return what a path is, such as `a FIFO`, if it is no regular file: to open that may wait for ever.

    Raises:
        OSError: It cannot be looked at, or is not there.
    """
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def _can_be_a_name(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _real(name: str) -> Path:
    # Unlike Path.resolve this takes names in its stride that no file can have: too long, links in a circle.
    return Path(os.path.realpath(name))
