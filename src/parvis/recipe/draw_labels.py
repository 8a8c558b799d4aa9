"""What pictures of recipes have in common: the lines of a node, its ways out, what can be drawn at all."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from parvis.recipe.graph import Node, Recipe
from parvis.recipe.join import waits_for
from parvis.recipe.policy import PRIORITY, RETRIES, RETRY_DELAY, TIMEOUT
from parvis.recipe.problem import Problem, RecipeError, printable

#: A picture of more than this shows nothing.
MAX_NODES = 300
MAX_LINKS = 1000

_TITLE_LENGTH, _NAME_LENGTH, _MARKS_LENGTH = 36, 40, 60


@dataclass(frozen=True, slots=True)
class Way:
    """A way out of a node, as it is drawn: an output, or its error targets."""

    name: str
    is_error: bool = False


def check_drawable(recipe: Recipe) -> None:
    """Raise RecipeError if a recipe is not valid, or too large for a picture."""
    recipe.validate()
    links = sum(1 for node in recipe.nodes.values() for _ in node.links())
    for there, most, what in ((len(recipe.nodes), MAX_NODES, "nodes"), (links, MAX_LINKS, "links")):
        if there > most:
            raise RecipeError(
                [Problem("", f"has {there} {what}; a picture of more than {most} shows nothing")]
            )


def ways_out(node: Node) -> Iterator[tuple[Way, int]]:
    """The ways out of a node, each with the node that it leads to."""
    for name, targets in node.outputs.items():
        yield from ((Way(printable(name or "", _NAME_LENGTH)), target) for target in dict.fromkeys(targets))
    yield from ((Way("error", is_error=True), target) for target in dict.fromkeys(node.error))


def title_line(node: Node) -> str:
    """The first line of a node: what people call it."""
    return printable(node.label, _TITLE_LENGTH)


def name_line(node: Node) -> str:
    """The second line of a node: where its messages go, and when."""
    parts = [node.queue] if node.queue else []
    if node.topic:
        parts.append(f"topic {node.topic}")
    if node.transport_delay:
        parts.append(f"after {node.transport_delay} s")
    return printable(" · ".join(parts), _NAME_LENGTH)


def marks_line(node: Node) -> str:
    """The third line of a node: what a join waits for, and how messages are handled; often empty."""
    says = node.extra
    counts = waits_for(node) or {}
    parts = [f"{count} of node {n}" if str(count) != "1" else f"node {n}" for n, count in counts.items()]
    marks = [f"waits for {', '.join(parts)}"] if parts else []
    if says.get(TIMEOUT) is not None:
        marks.append(f"≤ {says[TIMEOUT]} s")
    if says.get(RETRIES) is not None:
        marks.append("1 retry" if str(says[RETRIES]) == "1" else f"{says[RETRIES]} retries")
    if says.get(RETRY_DELAY) is not None:
        marks.append(f"retry after {says[RETRY_DELAY]} s")
    if says.get(PRIORITY) is not None:
        marks.append(f"priority {says[PRIORITY]}")
    return printable(" · ".join(marks), _MARKS_LENGTH)


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
