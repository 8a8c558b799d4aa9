"""The files in which the centre of a crystal is told: JSON for programs, text for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    """Let the link `name` beside `directory` point to it, in place of any earlier link. Raises OSError."""
    temporary = directory.parent / f".{name}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(directory.name)
    temporary.replace(directory.parent / name)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
