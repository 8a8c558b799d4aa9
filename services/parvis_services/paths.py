"""Which paths a message may name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SETTING = "parvis.allowed_directories"


class PathNotAllowed(ValueError):
    """A message names a path that the site does not allow."""


def allowed_path(name: str, storage: Mapping[str, Any]) -> Path:
    """Return the path that `name` stands for, links followed, if a message may name it.

    It must be absolute and, where the site's configuration lists directories under
    `parvis.allowed_directories`, lie in one of them.

    Raises:
        PathNotAllowed: It may not.
    """
    if "\0" in name or not name.startswith("/"):
        raise PathNotAllowed(f"{name[:200]!r} is not an absolute path")
    path = Path(name).resolve()
    directories = [Path(str(directory)).resolve() for directory in storage.get(SETTING) or []]
    if directories and not any(path.is_relative_to(directory) for directory in directories):
        raise PathNotAllowed(f"{name[:200]!r} lies outside the directories that the site allows ({SETTING})")
    return path
