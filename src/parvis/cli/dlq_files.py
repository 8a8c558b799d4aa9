"""Dead letters from files, for `parvis dlq reinject`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parvis.cli.options import BROKER_PATIENCE

if TYPE_CHECKING:
    from parvis.cli.dlq_told import Teller
    from parvis.config import Config
    from parvis.steer.exported import Exported

_MOST_NAMES = 100_000


def as_files(names: Sequence[str], *, is_open: bool) -> list[Exported] | None:
    """Return the dead letters in the files that are named, or None if the names are of letters in queues.

    Args:
        names: Files; `-` for a list of files on the standard input, which is read too if there is no name.
        is_open: Nothing else says which letters are meant.

    Raises:
        ClickException: A file is no good; none of them is sent then.
    """
    from parvis.steer.exported import ExportError, read

    listed = "-" in names or (not names and is_open and not sys.stdin.isatty())
    given = [name for name in names if name != "-"] + (_from_stdin() if listed else [])
    files = [Path(name) for name in given]
    if not listed and not any("/" in name or file.exists() for name, file in zip(given, files, strict=True)):
        return None
    try:
        found = [read(file) for file in files]
    except ExportError as error:
        raise click.ClickException(str(error)) from None
    if not found:
        raise click.UsageError("Say which: by number or identity, by files, by options, or --all.")
    return found


def reinject_files(
    config: Config,
    files: Sequence[Exported],
    told: Teller,
    *,
    destination: str | None,
    remove: bool,
    pause: float,
) -> None:
    """Send the dead letters of files in again; delete each file, if wanted, once that is confirmed."""
    from parvis.steer.dead_letters import Done, renewed

    sends = [renewed(one.letter, destination) for one in files]
    transport = config.transport()
    transport.connect(BROKER_PATIENCE)
    try:
        for number, (one, send) in enumerate(zip(files, sends, strict=True)):
            if number:
                time.sleep(pause)
            transport.send(send)
            told(Done(one.letter, file=one.file, queue=send.destination))
            if remove:
                one.file.unlink(missing_ok=True)
    finally:
        transport.disconnect()
        told.end()


def _from_stdin() -> list[str]:
    names = [line.strip() for line in sys.stdin.read().splitlines()[:_MOST_NAMES]]
    return [name for name in names if name]
