"""Drop files: requests that the broker did not take, kept for a pickup service to send later."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MODE = 0o644  # whoever picks it up is somebody else


def drop_file(location: Path) -> Path:
    """Return the name of a new drop file."""
    return location / str(uuid.uuid4())


def store(file: Path, headers: Mapping[str, str], message: Mapping[str, Any]) -> None:
    """Write a drop file: all of it is there, on the disk, or there is no file.

    Raises:
        OSError: It cannot be written.
    """
    content = json.dumps({"headers": headers, "message": message}, indent=2) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    # The dot keeps it from being picked up half written.
    unfinished = file.with_name(f".{file.name}.part")
    try:
        with unfinished.open("x", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), _MODE)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some network file systems have no directories to sync
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
