"""A bar on standard error for the commands of `parvis store`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

#: Called with how many are done, and how many there will be, if that is known.
Moved: TypeAlias = Callable[[int, int | None], None]


@contextlib.contextmanager
def progress_bar(label: str, *, wanted: bool = True) -> Iterator[Moved]:
    """A bar, if standard error is a terminal, with how many are done a second.

    Args:
        label: What is counted: `images stored`.
        wanted: Whether to show it at all.
    """
    if not wanted or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        # What is printed goes above the bar, but not to the terminal if it is meant for a file.
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task(label, total=None)
        begun = time.monotonic()

        def moved(done: int, total: int | None) -> None:
            rate = done / max(time.monotonic() - begun, 1e-9)
            bar.update(task, description=f"{label}, {rate:.0f}/s", completed=done, total=total)

        yield moved
