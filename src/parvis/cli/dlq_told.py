"""Telling what was done to dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from parvis.cli.printing import print_json
from parvis.recipe.problem import printable

if TYPE_CHECKING:
    from parvis.steer.dead_letters import Done


class Teller:
    """Says what was done: in lines for people, or as one JSON list at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._done: list[dict[str, object]] = []

    def __call__(self, done: Done) -> None:
        letter = done.letter
        file = None if done.file is None else str(done.file)
        entry: dict[str, object] = {
            "identity": letter.identity,
            "from": letter.queue,
            "file": file,
            "queue": done.queue,
        }
        self._done.append(entry)
        if not self._as_json:
            where = [text for text in (file, done.queue and f"queue {done.queue}") if text]
            click.echo(f"{printable(letter.short_id, 60)} → {printable(', '.join(where), 500)}")

    def end(self, **more: object) -> None:
        """Print what is printed at the end."""
        if self._as_json:
            print_json({"done": self._done, **more})
