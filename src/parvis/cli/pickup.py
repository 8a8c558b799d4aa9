"""`parvis pickup`: send the requests that were stored while the broker was away."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parvis.cli.moments import FiniteRange
from parvis.cli.options import BROKER_PATIENCE, json_option, with_config
from parvis.cli.printing import print_json
from parvis.config import Config

if TYPE_CHECKING:
    from parvis.steer.drop_files import Broken, Request


@click.command(
    epilog="""\b
Examples:
  parvis pickup
  parvis pickup --wait 0 --delay 0
  parvis pickup --json | jq -r '.broken[].reason'
"""
)
@click.option(
    "-d",
    "--delay",
    type=FiniteRange(0, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Pause between two requests.",
)
@click.option(
    "-w",
    "--wait",
    "settle",
    type=FiniteRange(0, 86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait until nobody has written to a file for so long.",
)
@json_option
@with_config()
def pickup(delay: float, settle: float, as_json: bool, config: Config) -> None:
    """Send the requests that `go` stored while the broker was away, and delete their files.

    Each is deleted when the broker has confirmed it. The newest of each host is sent first. What is no
    request is moved to `broken/`, with the reason beside it. `parvis service -s Pickup` does the same all the
    time. Exit code: 0 if all there was is sent, 1 if something is broken or was refused.
    """
    from parvis.steer.drop_files import in_order, read_all, send_all, stored_files, time_to_settle

    directory = config.fallback_location
    teller = _Teller(as_json)
    files = stored_files(directory)
    teller.line(f"Found {len(files)} files")
    if not files:
        teller.end()
        return
    now = time.time()
    rest = max(time_to_settle(file, settle, now) for file in files)
    if rest > 0:
        teller.line(f"Waiting {rest:.0f} seconds, until the newest of them is {settle:g} seconds old")
        time.sleep(rest)
    transport = config.transport()
    transport.connect(BROKER_PATIENCE)
    try:
        requests = in_order(read_all(files, teller.broken))
        teller.count = len(requests)
        send_all(
            transport,
            requests,
            pause=delay,
            begins=teller.begins,
            done=teller.done,
            broken=teller.broken,
            failed=teller.failed,
            ended=_sleep,
        )
    finally:
        transport.disconnect()
        teller.end()
    if teller.problems:
        sys.exit(1)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


class _Teller:
    """Says what happens, in the lines that `zocalo.pickup` prints, or as JSON at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.count = 0
        self.problems = 0
        self._sent: list[str] = []
        self._broken: list[dict[str, str | None]] = []
        self._failed: list[dict[str, str | None]] = []

    def line(self, text: str) -> None:
        """Say something to people."""
        if not self._as_json:
            click.echo(text)

    def begins(self, request: Request) -> None:
        """A request is about to be sent."""
        names = ", ".join(_shown(name) for name in request.recipes)
        self.line(f"Sending {_shown(request.file)} from host {_shown(request.host)} with recipes {names}")

    def done(self, request: Request) -> None:
        """A request was sent, and its file is deleted."""
        self._sent.append(str(request.file))
        self.line(f"Done ({len(self._sent)} of {self.count})")

    def broken(self, broken: Broken) -> None:
        """A file is no request."""
        self.problems += 1
        place = None if broken.place is None else str(broken.place)
        self._broken.append({"file": str(broken.file), "place": place, "reason": broken.reason})
        where = "" if place is None else f"; it is now {_shown(place)}"
        click.echo(f"{_shown(broken.file)} is broken: {_shown(broken.reason)}{where}", err=True)

    def failed(self, request: Request, reason: str) -> None:
        """A request was refused, and stays."""
        self.problems += 1
        self._failed.append({"file": str(request.file), "reason": reason})
        click.echo(f"{_shown(request.file)} stays: {_shown(reason)}", err=True)

    def end(self) -> None:
        """Print what is printed at the end."""
        if self._as_json:
            content = {"sent": self._sent, "broken": self._broken, "failed": self._failed}
            print_json(content)


def _shown(text: str | Path) -> str:
    from parvis.recipe.problem import printable

    return printable(str(text).encode(errors="replace").decode(), 500)
