"""How a file comes to be where others look for it: at once, or slowly, as from a detector."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Slowly:
    """Write in place, in ``pieces`` parts with ``pause`` s between them; the file is incomplete meanwhile."""

    pieces: int = 4
    pause: float = 0.005


def place(path: Path, data: bytes, slowly: Slowly | None = None) -> None:
    """Put a file there: complete from the first moment anybody sees it, or slowly.

    Raises:
        FileExistsError: there is one already; nothing a beamline has collected is ever overwritten.
    """
    if slowly is None:
        _place_at_once(path, data)
        return
    step = -(-len(data) // max(1, slowly.pieces)) or 1
    with path.open("xb", buffering=0) as file:
        for start in range(0, len(data), step):
            if start:
                time.sleep(slowly.pause)
            file.write(data[start : start + step])


def _place_at_once(path: Path, data: bytes) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists, and what is collected is never overwritten")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
