"""A recipe as a picture: text for the terminal, Mermaid for documents, SVG for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from parvis.recipe.draw_labels import (
    MAX_LINKS,
    MAX_NODES,
    Way,
    check_drawable,
    columns_of,
    marks_line,
    name_line,
    title_line,
    ways_out,
)
from parvis.recipe.draw_svg import Notes, to_svg
from parvis.recipe.graph import Recipe
from parvis.recipe.join import waits_for

__all__ = ["MAX_LINKS", "MAX_NODES", "Notes", "to_mermaid", "to_svg", "to_text"]


def to_mermaid(recipe: Recipe) -> str:
    """Return the recipe as a Mermaid flow chart.

    Raises:
        RecipeError: The recipe is not valid, or too large for a picture.
    """
    check_drawable(recipe)
    lines = ["flowchart TD", "  start([start])"]
    for node in recipe.nodes.values():
        text = f"{node.number} {_mermaid(title_line(node))}"
        below = "<br/>".join(
            f"<small>{_mermaid(line)}</small>" for line in (name_line(node), marks_line(node)) if line
        )
        opening, closing = ("[[", "]]") if waits_for(node) else ("[", "]")
        lines.append(f'  n{node.number}{opening}"{text}<br/>{below}"{closing}')
    if recipe.error:
        lines.append("  failed([any failure])")
        lines += [f"  failed -.-> n{number}" for number in dict.fromkeys(recipe.error)]
    lines += [f"  start --> n{number}" for number in dict.fromkeys(number for number, _ in recipe.start)]
    for node in recipe.nodes.values():
        for way, target in ways_out(node):
            arrow = "-.->" if way.is_error else "-->"
            label = f'|"{_mermaid(way.name)}"|' if way.name else ""
            lines.append(f"  n{node.number} {arrow}{label} n{target}")
    return "\n".join(lines) + "\n"


def to_text(recipe: Recipe, width: int = 80, notes: Notes | None = None) -> str:
    """Return the recipe as a tree of text lines, none wider than `width` columns.

    Args:
        recipe: The recipe.
        width: How wide.
        notes: What is known of its running: stands in brackets behind nodes, and with ways between them.

    Raises:
        RecipeError: The recipe is not valid, or too large for a picture.
    """
    check_drawable(recipe)
    return "\n".join(_cut(line, width) for line in _Tree(recipe, width, notes).lines()) + "\n"


def _mermaid(text: str) -> str:
    return "".join(char if char.isalnum() or char in " ._-/·…≤," else f"#{ord(char)};" for char in text)


class _Tree:
    """Draws each node once; elsewhere, and where there is no room, it says where the node is drawn."""

    def __init__(self, recipe: Recipe, width: int, notes: Notes | None) -> None:
        self._recipe = recipe
        self._notes = notes or Notes({}, {})
        self._width = width
        self._most_levels = max(1, width // 6)
        self._drawn: set[int] = set()
        self._later: list[int] = []

    def lines(self) -> Iterator[str]:
        for number in dict.fromkeys(number for number, _ in self._recipe.start):
            yield from self._tree("● start → ", number)
        for number in self._recipe.error:
            yield from self._tree("✕ any failure ⇢ ", number)
        for number in self._later:
            yield from self._tree("… ", number)

    def _tree(self, head: str, root: int) -> Iterator[str]:
        if root in self._drawn:
            if root not in self._later:
                yield f"{head}{root} {title_line(self._recipe.nodes[root])} (above)"
            return
        yield from self._lines(head, root, "  ")
        source = [root]
        stack = [self._branches(root)]
        indent = ["  "]
        while stack:
            branch = next(stack[-1], None)
            if branch is None:
                stack.pop()
                indent.pop()
                source.pop()
                continue
            way, target, is_last = branch
            corner, line, arrow = "└" if is_last else "├", *("╌⇢" if way.is_error else "─→")
            name = f"{way.name} " if way.name else ""
            count = self._notes.edges.get((source[-1], target))
            name += f"({count}) " if count else ""
            line = f"{''.join(indent)}{corner}{line} {name}{arrow} "
            if target in self._drawn:
                yield f"{line}{target} {title_line(self._recipe.nodes[target])} (above)"
            elif target in self._later or self._is_too_deep(target, len(stack)):
                yield f"{line}{target} {title_line(self._recipe.nodes[target])} (below)"
            else:
                source.append(target)
                indent.append("   " if is_last else "│  ")
                yield from self._lines(line, target, "".join(indent))
                stack.append(self._branches(target))

    def _is_too_deep(self, number: int, level: int) -> bool:
        if level < self._most_levels or not any(self._recipe.nodes[number].links()):
            return False
        self._later.append(number)
        return True

    def _branches(self, number: int) -> Iterator[tuple[Way, int, bool]]:
        self._drawn.add(number)
        ways = list(ways_out(self._recipe.nodes[number]))
        for index, (way, target) in enumerate(ways, start=1):
            yield way, target, index == len(ways)

    def _lines(self, head: str, number: int, indent: str) -> Iterator[str]:
        """The line of a node; what it says of the handling follows below if there is no room."""
        node = self._recipe.nodes[number]
        name, marks = name_line(node), marks_line(node)
        line = f"{head}{number} {title_line(node)}" + (f"  [{name}]" if name != title_line(node) else "")
        if number in self._notes.nodes:
            note = f"({self._notes.nodes[number].text})"
            if columns_of(line) + columns_of(note) + 2 > self._width:
                yield line
                line = f"{indent}{'│' if any(ways_out(node)) else ' '}"
            line += f"  {note}"
        if marks and columns_of(line) + columns_of(marks) + 4 > self._width:
            yield line
            line = f"{indent}{'│' if any(ways_out(node)) else ' '} "
        yield f"{line}  {{{marks}}}" if marks else line


def _cut(line: str, width: int) -> str:
    if columns_of(line) <= width:
        return line
    ends = accumulate(map(columns_of, line))
    return line[: sum(end < width for end in ends)] + "…"
