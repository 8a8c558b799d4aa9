"""A recipe as a picture: text for the terminal, Mermaid for documents, SVG for everything else."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from xml.sax.saxutils import escape

from parvis.recipe.graph import Node, Recipe
from parvis.recipe.join import waits_for
from parvis.recipe.layout import Layout, lay_out
from parvis.recipe.policy import PRIORITY, RETRIES, RETRY_DELAY, TIMEOUT
from parvis.recipe.problem import Problem, RecipeError, printable

#: A picture of more than this shows nothing.
MAX_NODES = 300
MAX_LINKS = 1000

_MARGIN, _GAP, _ROW_GAP = 28, 34, 56
_LINE, _CHIP, _PADDING = 18, 20, 12
_TITLE_LENGTH, _NAME_LENGTH, _MARKS_LENGTH = 36, 40, 60
_COLOURS = ("#2b6cb0", "#b7791f", "#2f855a", "#805ad5", "#c05621", "#0e7490")
_ERROR_COLOUR = "#c53030"
_STYLE = """
text { font-family: "DejaVu Sans", "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1a202c; }
.title { font-size: 13px; font-weight: 600; }
.name { font-size: 11px; font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #4a5568; }
.marks { font-size: 11px; fill: #2c5282; }
.chip { font-size: 11px; fill: #ffffff; text-anchor: middle; }
.number { font-size: 11px; font-weight: 600; fill: #ffffff; text-anchor: middle; }
.start { font-size: 11px; font-weight: 600; fill: #276749; }
.failed { font-size: 11px; font-weight: 600; fill: #c53030; }
.box { fill: #f7fafc; stroke: #718096; stroke-width: 1.2; }
.first { stroke: #2f855a; stroke-width: 2.2; }
.bar { stroke: #2d3748; stroke-width: 5; stroke-linecap: round; }
.edge { fill: none; stroke-width: 1.6; }
"""


def to_svg(recipe: Recipe) -> str:
    """Return the recipe as an SVG picture.

    Raises:
        RecipeError: The recipe is not valid, or too large for a picture.
    """
    _check(recipe)
    return _Picture(recipe).svg()


def to_mermaid(recipe: Recipe) -> str:
    """Return the recipe as a Mermaid flow chart.

    Raises:
        RecipeError: The recipe is not valid, or too large for a picture.
    """
    _check(recipe)
    lines = ["flowchart TD", "  start([start])"]
    for node in recipe.nodes.values():
        text = f"{node.number} {_mermaid(_title(node))}"
        below = "<br/>".join(
            f"<small>{_mermaid(line)}</small>" for line in (_name(node), _marks(node)) if line
        )
        opening, closing = ("[[", "]]") if waits_for(node) else ("[", "]")
        lines.append(f'  n{node.number}{opening}"{text}<br/>{below}"{closing}')
    if recipe.error:
        lines.append("  failed([any failure])")
        lines += [f"  failed -.-> n{number}" for number in dict.fromkeys(recipe.error)]
    lines += [f"  start --> n{number}" for number in dict.fromkeys(number for number, _ in recipe.start)]
    for node in recipe.nodes.values():
        for way, target in _ways(node):
            arrow = "-.->" if way.is_error else "-->"
            label = f'|"{_mermaid(way.name)}"|' if way.name else ""
            lines.append(f"  n{node.number} {arrow}{label} n{target}")
    return "\n".join(lines) + "\n"


def to_text(recipe: Recipe, width: int = 80) -> str:
    """Return the recipe as a tree of text lines, none wider than `width` columns.

    Raises:
        RecipeError: The recipe is not valid, or too large for a picture.
    """
    _check(recipe)
    return "\n".join(_cut(line, width) for line in _Tree(recipe, width).lines()) + "\n"


@dataclass(frozen=True, slots=True)
class _Way:
    """A way out of a node, as it is drawn: an output, or its error targets."""

    name: str
    is_error: bool = False


def _check(recipe: Recipe) -> None:
    recipe.validate()
    links = sum(1 for node in recipe.nodes.values() for _ in node.links())
    for there, most, what in ((len(recipe.nodes), MAX_NODES, "nodes"), (links, MAX_LINKS, "links")):
        if there > most:
            raise RecipeError(
                [Problem("", f"has {there} {what}; a picture of more than {most} shows nothing")]
            )


def _ways(node: Node) -> Iterator[tuple[_Way, int]]:
    for name, targets in node.outputs.items():
        yield from ((_Way(printable(name or "", _NAME_LENGTH)), target) for target in dict.fromkeys(targets))
    yield from ((_Way("error", is_error=True), target) for target in dict.fromkeys(node.error))


def _title(node: Node) -> str:
    return printable(node.label, _TITLE_LENGTH)


def _name(node: Node) -> str:
    """The second line of a node: where its messages go, and when."""
    parts = [node.queue] if node.queue else []
    if node.topic:
        parts.append(f"topic {node.topic}")
    if node.transport_delay:
        parts.append(f"after {node.transport_delay} s")
    return printable(" · ".join(parts), _NAME_LENGTH)


def _marks(node: Node) -> str:
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


def _mermaid(text: str) -> str:
    return "".join(char if char.isalnum() or char in " ._-/·…≤," else f"#{ord(char)};" for char in text)


class _Tree:
    """Draws each node once; elsewhere, and where there is no room, it says where the node is drawn."""

    def __init__(self, recipe: Recipe, width: int) -> None:
        self._recipe = recipe
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
                yield f"{head}{root} {_title(self._recipe.nodes[root])} (above)"
            return
        yield from self._lines(head, root, "  ")
        stack = [self._branches(root)]
        indent = ["  "]
        while stack:
            branch = next(stack[-1], None)
            if branch is None:
                stack.pop()
                indent.pop()
                continue
            way, target, is_last = branch
            corner, line, arrow = "└" if is_last else "├", *("╌⇢" if way.is_error else "─→")
            name = f"{way.name} " if way.name else ""
            line = f"{''.join(indent)}{corner}{line} {name}{arrow} "
            if target in self._drawn:
                yield f"{line}{target} {_title(self._recipe.nodes[target])} (above)"
            elif target in self._later or self._is_too_deep(target, len(stack)):
                yield f"{line}{target} {_title(self._recipe.nodes[target])} (below)"
            else:
                indent.append("   " if is_last else "│  ")
                yield from self._lines(line, target, "".join(indent))
                stack.append(self._branches(target))

    def _is_too_deep(self, number: int, level: int) -> bool:
        if level < self._most_levels or not any(self._recipe.nodes[number].links()):
            return False
        self._later.append(number)
        return True

    def _branches(self, number: int) -> Iterator[tuple[_Way, int, bool]]:
        self._drawn.add(number)
        ways = list(_ways(self._recipe.nodes[number]))
        for index, (way, target) in enumerate(ways, start=1):
            yield way, target, index == len(ways)

    def _lines(self, head: str, number: int, indent: str) -> Iterator[str]:
        """The line of a node; what it says of the handling follows below if there is no room."""
        node = self._recipe.nodes[number]
        name, marks = _name(node), _marks(node)
        line = f"{head}{number} {_title(node)}" + (f"  [{name}]" if name != _title(node) else "")
        if marks and _columns(line) + _columns(marks) + 4 > self._width:
            yield line
            line = f"{indent}{'│' if any(_ways(node)) else ' '} "
        yield f"{line}  {{{marks}}}" if marks else line


@dataclass(slots=True)
class _Box:
    """A node as it is drawn.

    Attributes:
        node: The node.
        ways: Its ways out.
        width: Width in pixels.
        height: Height in pixels.
        x: Centre.
        y: Upper edge.
    """

    node: Node
    ways: list[_Way]
    width: float
    height: float
    x: float = 0
    y: float = 0

    @classmethod
    def of(cls, node: Node) -> _Box:
        ways = list(dict.fromkeys(way for way, _ in _ways(node)))
        chips = sum(_chip_width(way) + 6 for way in ways if way.name)
        marks = _marks(node)
        texts = _width(_title(node), 8.0) + 26, _width(_name(node), 6.8), _width(marks, 6.5)
        named = any(way.name for way in ways)
        height = (3 if marks else 2) * _LINE + _PADDING + (_CHIP + 8 if named else 4)
        return cls(node, ways, max(*texts, chips, 96) + 2 * _PADDING, height)

    def exits(self) -> dict[_Way, tuple[float, float]]:
        """Where each way leaves the box."""
        chips = [way for way in self.ways if way.name]
        x = self.x - sum(_chip_width(way) + 6 for way in chips) / 2 + 3
        places: dict[_Way, tuple[float, float]] = dict.fromkeys(self.ways, (self.x, self.y + self.height))
        for way in chips:
            places[way] = (x + _chip_width(way) / 2, self.y + self.height)
            x += _chip_width(way) + 6
        return places

    def colour(self, way: _Way) -> str:
        return _ERROR_COLOUR if way.is_error else _COLOURS[self.ways.index(way) % len(_COLOURS)]


class _Picture:
    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._boxes = {number: _Box.of(node) for number, node in recipe.nodes.items()}
        links = [(node.number, target) for node in recipe.nodes.values() for _, target in _ways(node)]
        self._layout: Layout = lay_out({n: box.width for n, box in self._boxes.items()}, links, _GAP)
        rows = max(self._layout.layers.values()) + 1
        heights = [0.0] * rows
        for number, row in self._layout.layers.items():
            heights[row] = max(heights[row], self._boxes[number].height)
        self._tops: list[float] = [_MARGIN + _LINE]
        for height in heights:
            self._tops.append(self._tops[-1] + height + _ROW_GAP)
        self._heights = heights
        for number, box in self._boxes.items():
            box.x = self._layout.x[number] + _MARGIN
            box.y = self._tops[self._layout.layers[number]]
        for box in self._boxes.values():
            self._sort_ways(box)

    def _sort_ways(self, box: _Box) -> None:
        """Put the ways out in the order of the places they lead to, so that they do not cross."""
        places: dict[_Way, list[float]] = {}
        for way, target in _ways(box.node):
            crossed = self._layout.ways[box.node.number, target]
            places.setdefault(way, []).append(crossed[0] if crossed else self._layout.x[target])
        box.ways.sort(key=lambda way: sum(places[way]) / len(places[way]))

    def svg(self) -> str:
        width, height = self._layout.width + 2 * _MARGIN, self._tops[-1] - _ROW_GAP + _MARGIN
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<style>{_STYLE}</style>",
            '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>',
            *self._edges(),
        ]
        for box in self._boxes.values():
            parts += self._box(box)
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _edges(self) -> Iterator[str]:
        arrivals: dict[int, list[tuple[float, int, _Way]]] = {}
        for number, box in self._boxes.items():
            for way, target in _ways(box.node):
                crossed = self._layout.ways[number, target]
                last = crossed[-1] + _MARGIN if crossed else box.exits()[way][0]
                arrivals.setdefault(target, []).append((last, number, way))
        for target, entries in arrivals.items():
            box = self._boxes[target]
            step = min(16.0, (box.width - 40) / len(entries))
            for index, (_, source, way) in enumerate(sorted(entries, key=lambda entry: entry[:2])):
                x = box.x + (index - (len(entries) - 1) / 2) * step
                yield from self._edge(self._boxes[source], way, target, x)

    def _edge(self, box: _Box, way: _Way, target: int, x: float) -> Iterator[str]:
        end = self._boxes[target].y
        points = [box.exits()[way]]
        row = self._layout.layers[box.node.number]
        points.append((points[0][0], self._tops[row] + self._heights[row]))
        for crossing in self._layout.ways[box.node.number, target]:
            row += 1
            points += [
                (crossing + _MARGIN, self._tops[row]),
                (crossing + _MARGIN, self._tops[row] + self._heights[row]),
            ]
        points.append((x, end - 7))
        colour = box.colour(way)
        dashes = ' stroke-dasharray="5 4"' if way.is_error else ""
        yield f'<path class="edge" stroke="{colour}"{dashes} d="{_curve(points)}"/>'
        yield f'<path fill="{colour}" d="M {x - 4.5:.1f} {end - 9:.1f} h 9 l -4.5 9 z"/>'

    def _box(self, box: _Box) -> Iterator[str]:
        node = box.node
        left = box.x - box.width / 2
        starts = any(number == node.number for number, _ in self._recipe.start)
        if starts:
            yield f'<text class="start" x="{left + 4:.1f}" y="{box.y - 6:.1f}">▶ start</text>'
        if node.number in self._recipe.error:
            x = left + (56 if starts else 4)
            yield f'<text class="failed" x="{x:.1f}" y="{box.y - 6:.1f}">✕ any failure</text>'
        full = escape(printable(" · ".join(filter(None, (node.service, node.queue, node.topic))), 300))
        yield f"<g><title>{full}</title>"
        yield (
            f'<rect class="box{" first" if starts else ""}" x="{left:.1f}" y="{box.y:.1f}" '
            f'width="{box.width:.1f}" height="{box.height:.1f}" rx="7"/>'
        )
        if waits_for(node):
            yield f'<path class="bar" d="M {left:.1f} {box.y:.1f} h {box.width:.1f}"/>'
        y = box.y + _LINE + 3
        yield f'<circle cx="{left + 19:.1f}" cy="{y - 4:.1f}" r="10" fill="#4a5568"/>'
        yield f'<text class="number" x="{left + 19:.1f}" y="{y:.1f}">{node.number}</text>'
        yield f'<text class="title" x="{left + 36:.1f}" y="{y:.1f}">{escape(_title(node))}</text>'
        if _name(node) != _title(node):
            text = escape(_name(node))
            yield f'<text class="name" x="{left + _PADDING:.1f}" y="{y + _LINE + 1:.1f}">{text}</text>'
        if _marks(node):
            row = 2 if _name(node) != _title(node) else 1
            text = escape(_marks(node))
            yield f'<text class="marks" x="{left + _PADDING:.1f}" y="{y + row * _LINE + 1:.1f}">{text}</text>'
        for way, (x, bottom) in box.exits().items():
            if way.name:
                width = _chip_width(way)
                yield (
                    f'<rect x="{x - width / 2:.1f}" y="{bottom - _CHIP - 4:.1f}" width="{width:.1f}" '
                    f'height="{_CHIP - 3}" rx="8" fill="{box.colour(way)}"/>'
                )
                text = escape(way.name)
                yield f'<text class="chip" x="{x:.1f}" y="{bottom - _CHIP + 8:.1f}">{text}</text>'
        yield "</g>"


def _curve(points: list[tuple[float, float]]) -> str:
    parts = [f"M {points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x, y), (new_x, new_y) in pairwise(points):
        middle = (y + new_y) / 2
        parts.append(f"C {x:.1f} {middle:.1f} {new_x:.1f} {middle:.1f} {new_x:.1f} {new_y:.1f}")
    return " ".join(parts)


def _chip_width(way: _Way) -> float:
    return _width(way.name, 6.7) + 16


def _width(text: str, per_column: float) -> float:
    return _columns(text) * per_column


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _cut(line: str, width: int) -> str:
    if _columns(line) <= width:
        return line
    ends = accumulate(map(_columns, line))
    return line[: sum(end < width for end in ends)] + "…"
