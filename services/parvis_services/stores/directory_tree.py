"""Files and directories below one that is open, reached without following links: no name leads out of it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator
from typing import Final

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How to open a directory that must be no link."""

_LEFT_BEHIND: Final = 86_400.0  # seconds after which nobody writes any more what lies there
_TRIES: Final = 5  # for a directory that is removed, being empty, while something is put into it
_PART: Final = re.compile(r"[A-Za-z0-9_.=+\-]+", re.ASCII)


@contextlib.contextmanager
def open_directory(top: int, parts: list[str], *, create: bool = False) -> Iterator[int]:
    """Open a directory below one that is open, following no links."""
    place = os.dup(top)
    try:
        for part in parts:
            below = _child(place, part, create)
            os.close(place)
            place = below
        yield place
    finally:
        os.close(place)


def _child(place: int, name: str, create: bool) -> int:
    for tries_left in reversed(range(_TRIES)):
        try:
            return os.open(name, DIRECTORY, dir_fd=place)
        except FileNotFoundError:
            if not create or not tries_left:
                raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=place)
    raise AssertionError("the last try returns or raises")


def link(temporary: str, name: str, incoming: int, place: int) -> None:
    try:
        os.link(temporary, name, src_dir_fd=incoming, dst_dir_fd=place, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.ENOTSUP, errno.ENOSYS, errno.EPERM}:
            reason = "the file system has no hard links, without which nothing is stored in one step"
            raise OSError(errno.ENOSYS, reason) from None
        raise


def files_in_order(place: int, above: str, prefix: str, after: str) -> Iterator[tuple[str, int, str]]:
    """Yield in the order of keys: the key of an object, its open directory, and its name there."""
    with os.scandir(place) as entries:
        # A directory stands where its objects do: its name goes on with a slash.
        names = [
            one.name + "/" if one.is_dir(follow_symlinks=False) else one.name
            for one in entries
            if not one.is_symlink() and _PART.fullmatch(one.name)
        ]
    wanted = [name for name in names if _may_hold(above + name, prefix, after)]
    for name in sorted(wanted):
        key = above + name
        if not name.endswith("/"):
            yield key, place, name
            continue
        try:
            below = os.open(name[:-1], DIRECTORY, dir_fd=place)
        except FileNotFoundError:
            continue
        try:
            yield from files_in_order(below, key, prefix, after)
        finally:
            os.close(below)


def _may_hold(key: str, prefix: str, after: str) -> bool:
    """Whether a key is wanted; or, if it ends with a slash, whether any that it begins may be."""
    if not key.endswith("/"):
        return key > after and key.startswith(prefix)
    return (key > after or after.startswith(key)) and (key.startswith(prefix) or prefix.startswith(key))


def remove(top: int, key: str) -> None:
    *parents, name = key.split("/")
    try:
        with open_directory(top, parents) as place:
            os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        return
    while parents:
        *above, last = parents
        try:
            with open_directory(top, above) as place:
                os.rmdir(last, dir_fd=place)
        except OSError:  # it is not empty, or gone, or somebody else's
            return
        parents = above


def remove_empty(place: int) -> None:
    """Remove directories that hold nothing, below one that is open."""
    with os.scandir(place) as entries:
        names = [one.name for one in entries if one.is_dir(follow_symlinks=False)]
    for name in names:
        with open_directory(place, [name]) as below:
            remove_empty(below)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=place)


def remove_left_behind(place: int) -> None:
    """Remove what was being written when a process was killed long ago."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for one in entries:
            if time.time() - one.stat(follow_symlinks=False).st_mtime > _LEFT_BEHIND:
                os.unlink(one.name, dir_fd=place)
