"""What can be wrong with a recipe, and the words for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]
Path = Sequence["str | int"]

_SHOWN_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a recipe.

    Attributes:
        where: The place, such as `node 2 "archiver": output "first"`; empty for the whole recipe.
        text: What is wrong and, where that can be said, what to do.
        severity: `error`: it cannot work. `warning`: it works, but hardly as it was meant.
    """

    where: str
    text: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


class RecipeError(ValueError):
    """A recipe that cannot be used.

    Attributes:
        problems: Everything that is wrong with it.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:_SHOWN_PROBLEMS]]
        if len(self.problems) > _SHOWN_PROBLEMS:
            lines.append(f"and {len(self.problems) - _SHOWN_PROBLEMS} more problems")
        return "; ".join(lines)


def printable(text: str, limit: int = 60) -> str:
    """Return the first `limit` characters of `text`, with what a terminal might obey escaped."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def quoted(text: str, limit: int = 60) -> str:
    """Return `text` in quotation marks, printable and not too long."""
    return f'"{printable(text, limit)}"'


def shown(value: object, limit: int = 60) -> str:
    """Return a value of a recipe as a person wrote it there: text in quotation marks, the rest as in JSON."""
    if isinstance(value, str):
        return quoted(value, limit)
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return printable(repr(value), limit)
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Return names as an enumeration, the first `limit` of them."""
    known = list(names)
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return ", ".join(quoted(name) for name in known[:limit]) + more


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean "…"?` if something known is near to `name`, else nothing."""
    close = difflib.get_close_matches(name[:80], list(known), n=1, cutoff=0.6)
    return f"; did you mean {quoted(close[0])}?" if close else ""


def node_place(number: int, label: str | None = None) -> str:
    """Return how a node is called in problems: `node 2 "archiver"`."""
    return f"node {number} {quoted(label)}" if label else f"node {number}"


def place(where: str, path: Path) -> str:
    """Return the place at `path` inside the node called `where`; the first step is a key of the node."""
    if len(path) < 2 or path[0] not in ("parameters", "output"):
        return value_place(where, path)
    return f"{where}: {'output' if path[0] == 'output' else 'parameter'} {_joined(path[1:])}"


def start_place(number: int, path: Path = ()) -> str:
    """Return the place at `path` inside the payload that node `number` is started with."""
    return value_place(f"start of node {number}", path)


def value_place(where: str, path: Path) -> str:
    """Return the place at `path` inside the value that is called `where`."""
    if not path:
        return where
    return f"{where}: {_joined(path)}" if where else _joined(path)


def _joined(path: Path) -> str:
    return quoted(str(path[0]) + "".join(f"[{step}]" for step in path[1:]))
