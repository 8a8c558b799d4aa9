"""Join nodes: what a recipe says of a node that runs when all it waits for has arrived."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from parvis.recipe.problem import Problem, place, start_place

if TYPE_CHECKING:
    from parvis.recipe.graph import Node, Recipe

#: Queue of the service `Join`: a node that sends there is a join.
JOIN_QUEUE = "join"
WAIT_FOR = "wait-for"


def waits_for(node: Node) -> dict[int, Any] | None:
    """Return the nodes that a join waits for, each with how many messages of it.

    A number is a whole number or a text with a placeholder. None if `node` is no join, or if the recipe does
    not say it in a form that can be read.
    """
    if node.queue != JOIN_QUEUE or not isinstance(node.parameters, dict):
        return None
    wanted: Any = node.parameters.get(WAIT_FOR)
    if isinstance(wanted, dict):
        counts = cast("dict[str, Any]", wanted)
    elif isinstance(wanted, list):
        counts = dict.fromkeys(map(str, cast("list[Any]", wanted)), 1)
    else:
        return None
    if not all(key.isascii() and key.isdecimal() and len(key) < 10 for key in counts):
        return None
    return {int(key): value for key, value in counts.items()}


def renumbered(node: Node, new: Mapping[int, int]) -> dict[str, Any] | str | None:
    """Return the parameters of a node whose recipe gets other numbers: those of a join name nodes."""
    counts = waits_for(node)
    if counts is None or not isinstance(node.parameters, dict):
        return node.parameters
    wanted: Any = {str(new.get(number, number)): count for number, count in counts.items()}
    if isinstance(node.parameters[WAIT_FOR], list):
        wanted = [int(number) for number in wanted]
    return {**node.parameters, WAIT_FOR: wanted}


def join_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield what is wrong with the joins of a recipe, in time proportional to its size."""
    joins = {node.number: counts for node in recipe.nodes.values() if (counts := waits_for(node)) is not None}
    if not joins:
        return
    sources = _sources(recipe, joins)
    usual = _reached_by_outputs(recipe)
    started = {number for number, _ in recipe.start}
    for number, counts in joins.items():
        node = recipe.nodes[number]
        where = place(node.place, ("parameters", WAIT_FOR))
        if number in started:
            text = "is a join, and starts with no message: it needs those of the nodes that it waits for"
            yield Problem(start_place(number), text)
        for source in counts:
            yield from _source_problems(where, source, recipe, sources[number], usual)
        for source in sorted(sources[number] - counts.keys()):
            text = f"node {source} leads here and is not among them, so its messages would be rejected"
            yield Problem(where, text)


def _source_problems(
    where: str, source: int, recipe: Recipe, sources: set[int], usual: set[int]
) -> Iterator[Problem]:
    if source not in recipe.nodes:
        yield Problem(where, f"waits for node {source}, which the recipe does not have")
    elif source not in sources:
        text = f"waits for node {source}, which does not lead here, so it would wait until its time-out"
        yield Problem(where, text)
    elif source not in usual:
        text = f"waits for node {source}, which runs only when something fails, so it would usually time out"
        yield Problem(where, text, "warning")


def _sources(recipe: Recipe, joins: Mapping[int, Any]) -> dict[int, set[int]]:
    """The nodes whose outputs or error edges lead to each join."""
    sources: dict[int, set[int]] = {number: set() for number in joins}
    for node in recipe.nodes.values():
        targets = [target for _, target in node.links()]
        for target in targets if node.error else [*targets, *recipe.error]:
            if target in sources and target != node.number:
                sources[target].add(node.number)
    return sources


def _reached_by_outputs(recipe: Recipe) -> set[int]:
    """The nodes that run although nothing fails."""
    reached: set[int] = set()
    waiting = [number for number, _ in recipe.start]
    while waiting:
        number = waiting.pop()
        if number in recipe.nodes and number not in reached:
            reached.add(number)
            waiting += [target for ids in recipe.nodes[number].outputs.values() for target in ids]
    return reached
