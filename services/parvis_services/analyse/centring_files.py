"""The files in which the centre of a crystal is told: JSON for programs, text for people."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step: a reader sees the whole of it or none. Raises OSError."""
    _write(path, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def write_log(path: Path, dcids: list[int], kind: str, results: list[Mapping[str, Any]]) -> None:
    """Write what was found as text for people. Raises OSError."""
    found = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    lines = [f"X-ray centring ({kind}) of data collection {', '.join(map(str, dcids))}, {found}"]
    if not results:
        lines += ["", "No diffraction found"]
    for number, result in enumerate(results, start=1):
        lines += ["", f"Result {number} of {len(results)}"]
        lines += [f"  {name:<26} {value}" for name, value in result.items() if name != "best_region"]
    _write(path, ("\n".join(lines) + "\n").encode())


def link_beside(directory: Path, name: str) -> None:
    """Let the link `name` beside `directory` point to it, in place of any earlier link.

    Raises:
        OSError: It cannot be made, or something that is not a link has that name.
    """
    link = directory.parent / name
    if os.path.lexists(link) and not link.is_symlink():
        raise FileExistsError(errno.EEXIST, "it is there and not a link", str(link))
    _put_in_place(link, lambda temporary: temporary.symlink_to(directory.name))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _put_in_place(path, lambda temporary: _create(temporary, content))


def _create(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)


def _put_in_place(path: Path, make: Callable[[Path], None]) -> None:
    """Have something made beside `path` and moved there; nothing is left behind if that fails."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        make(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
