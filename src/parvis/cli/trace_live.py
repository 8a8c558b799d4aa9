"""`parvis trace --follow`: a recipe as it goes on, in one place of a terminal or line by line."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from parvis.cli.printing import print_json
from parvis.cli.trace_text import headline, hop_line, live_view
from parvis.observe.hops import Hop, hop_to_json
from parvis.observe.story import Story

_KEPT: Final = 100  # hops that may be shown


class Events:
    """Prints hops and changes of state as they come.

    Args:
        as_json: Print JSON objects, for programs.
    """

    is_live = False

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._state = ""

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, story: Story, hops: Sequence[Hop]) -> None:
        """Print what is new."""
        for hop in hops:
            if self._as_json:
                print_json({"event": "hop", **hop_to_json(hop)})
            else:
                click.echo(hop_line(hop).plain)
        if story.state != self._state:
            self._state = story.state
            if self._as_json:
                print_json({"event": "story", **story.to_json()})
            else:
                click.echo(headline(story).plain)


class Screen:
    """Shows a recipe, again and again, in the same place of a terminal."""

    is_live = True

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._hops: deque[Hop] = deque(maxlen=_KEPT)

    def __enter__(self) -> Screen:
        # So that the terminal is left as it was.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, story: Story, hops: Sequence[Hop]) -> None:
        """Draw what is known now."""
        self._hops += hops
        width, height = self._console.size
        self._live.update(live_view(story, list(self._hops), width, height), refresh=True)


def shower(console: Console, *, as_json: bool) -> Screen | Events:
    """Return what shows a recipe: on a terminal in one place, else as events."""
    return Screen(console) if console.is_terminal and not as_json else Events(as_json)
