"""A recipe as an SVG picture, with what is known of its running if that is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from parvis.recipe.draw_labels import (
    Way,
    check_drawable,
    columns_of,
    marks_line,
    name_line,
    title_line,
    ways_out,
)
from parvis.recipe.graph import Node, Recipe
from parvis.recipe.join import waits_for
from parvis.recipe.layout import Layout, lay_out
from parvis.recipe.problem import printable

_MARGIN, _GAP, _ROW_GAP = 28, 34, 56
_LINE, _CHIP, _PADDING = 18, 20, 12
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


@dataclass(frozen=True, slots=True)
class NodeNote:
    """What is said of a node as the recipe runs.

    Attributes:
        text: A line, such as `112 done, 28 waiting`.
        state: A word that becomes a class of the node, for the style sheet of a page: letters only.
    """

    text: str
    state: str


@dataclass(frozen=True, slots=True)
class Notes:
    """What is known of a recipe that runs, for its picture.

    Attributes:
        nodes: A note for each node.
        edges: A short text for the way between two nodes, such as a count.
    """

    nodes: Mapping[int, NodeNote]
    edges: Mapping[tuple[int, int], str]


def to_svg(recipe: Recipe, notes: Notes | None = None) -> str:
    """Return the recipe as an SVG picture.

    Args:
        recipe: The recipe.
        notes: What is known of its running. With that, the picture is a part of a page: it has the colours
            of the page's style sheet, and none of its own that would do for dark and light.

    Raises:
        RecipeError: The recipe is not valid, or too large for a picture.
    """
    check_drawable(recipe)
    return _Picture(recipe, notes).svg()


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
    ways: list[Way]
    width: float
    height: float
    x: float = 0
    y: float = 0

    @classmethod
    def of(cls, node: Node, note: str) -> _Box:
        ways = list(dict.fromkeys(way for way, _ in ways_out(node)))
        chips = sum(_chip_width(way) + 6 for way in ways if way.name)
        marks = marks_line(node)
        texts = (
            _width(title_line(node), 8.0) + 26,
            _width(name_line(node), 6.8),
            _width(marks, 6.5),
            _width(note, 7.2),
        )
        named = any(way.name for way in ways)
        lines = 2 + bool(marks) + bool(note)
        height = lines * _LINE + _PADDING + (_CHIP + 8 if named else 4)
        return cls(node, ways, max(*texts, chips, 96) + 2 * _PADDING, height)

    def exits(self) -> dict[Way, tuple[float, float]]:
        """Where each way leaves the box."""
        chips = [way for way in self.ways if way.name]
        x = self.x - sum(_chip_width(way) + 6 for way in chips) / 2 + 3
        places: dict[Way, tuple[float, float]] = dict.fromkeys(self.ways, (self.x, self.y + self.height))
        for way in chips:
            places[way] = (x + _chip_width(way) / 2, self.y + self.height)
            x += _chip_width(way) + 6
        return places

    def paint(self, way: Way, what: str) -> str:
        """The colour of a way as attributes; `what` is what is painted, `stroke` or `fill`."""
        number = self.ways.index(way) % len(_COLOURS)
        colour = _ERROR_COLOUR if way.is_error else _COLOURS[number]
        return f'data-way="{"error" if way.is_error else number}" {what}="{colour}"'


class _Picture:
    def __init__(self, recipe: Recipe, notes: Notes | None) -> None:
        self._recipe = recipe
        self._notes = notes
        noted: Mapping[int, NodeNote] = notes.nodes if notes else {}
        self._boxes = {
            number: _Box.of(node, noted[number].text if number in noted else "")
            for number, node in recipe.nodes.items()
        }
        links = [(node.number, target) for node in recipe.nodes.values() for _, target in ways_out(node)]
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
        places: dict[Way, list[float]] = {}
        for way, target in ways_out(box.node):
            crossed = self._layout.ways[box.node.number, target]
            places.setdefault(way, []).append(crossed[0] if crossed else self._layout.x[target])
        box.ways.sort(key=lambda way: sum(places[way]) / len(places[way]))

    def svg(self) -> str:
        width, height = self._layout.width + 2 * _MARGIN, self._tops[-1] - _ROW_GAP + _MARGIN
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        ]
        if self._notes is None:
            parts += [f"<style>{_STYLE}</style>", '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>']
        parts += self._edges()
        for box in self._boxes.values():
            parts += self._box(box)
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _edges(self) -> Iterator[str]:
        arrivals: dict[int, list[tuple[float, int, Way]]] = {}
        for number, box in self._boxes.items():
            for way, target in ways_out(box.node):
                crossed = self._layout.ways[number, target]
                last = crossed[-1] + _MARGIN if crossed else box.exits()[way][0]
                arrivals.setdefault(target, []).append((last, number, way))
        for target, entries in arrivals.items():
            box = self._boxes[target]
            step = min(16.0, (box.width - 40) / len(entries))
            entries.sort(key=lambda entry: entry[:2])
            sources = [source for _, source, _ in entries]
            for index, (_, source, way) in enumerate(entries):
                x = box.x + (index - (len(entries) - 1) / 2) * step
                yield from self._edge(self._boxes[source], way, target, x)
                if index == 0 or sources[index - 1] != source:
                    yield from self._count(source, target, x, index)

    def _count(self, source: int, target: int, x: float, index: int) -> Iterator[str]:
        """What is said of a way, beside its end; neighbours at other heights."""
        text = self._notes.edges.get((source, target)) if self._notes else None
        if text:
            y = self._boxes[target].y - 14 - index % 3 * 13
            yield f'<text class="along" x="{x + 7:.1f}" y="{y:.1f}">{escape(printable(text))}</text>'

    def _edge(self, box: _Box, way: Way, target: int, x: float) -> Iterator[str]:
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
        dashes = ' stroke-dasharray="5 4"' if way.is_error else ""
        yield f'<path class="edge" {box.paint(way, "stroke")}{dashes} d="{_curve(points)}"/>'
        yield f'<path {box.paint(way, "fill")} d="M {x - 4.5:.1f} {end - 9:.1f} h 9 l -4.5 9 z"/>'

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
        note = self._notes.nodes.get(node.number) if self._notes else None
        said = f"{full}: {escape(printable(note.text, 300))}" if note and note.text else full
        yield f'<g class="node {note.state}">' if note else "<g>"
        yield f"<title>{said}</title>"
        yield (
            f'<rect class="box{" first" if starts else ""}" x="{left:.1f}" y="{box.y:.1f}" '
            f'width="{box.width:.1f}" height="{box.height:.1f}" rx="7"/>'
        )
        if waits_for(node):
            yield f'<path class="bar" d="M {left:.1f} {box.y:.1f} h {box.width:.1f}"/>'
        y = box.y + _LINE + 3
        yield f'<circle class="disc" cx="{left + 19:.1f}" cy="{y - 4:.1f}" r="10" fill="#4a5568"/>'
        yield f'<text class="number" x="{left + 19:.1f}" y="{y:.1f}">{node.number}</text>'
        yield f'<text class="title" x="{left + 36:.1f}" y="{y:.1f}">{escape(title_line(node))}</text>'
        lines = [("name", name_line(node))] if name_line(node) != title_line(node) else []
        lines += [("marks", marks_line(node)), ("note", printable(note.text) if note else "")]
        for name, text in [(name, text) for name, text in lines if text]:
            y += _LINE
            yield f'<text class="{name}" x="{left + _PADDING:.1f}" y="{y + 1:.1f}">{escape(text)}</text>'
        for way, (x, bottom) in box.exits().items():
            if way.name:
                width = _chip_width(way)
                yield (
                    f'<rect x="{x - width / 2:.1f}" y="{bottom - _CHIP - 4:.1f}" width="{width:.1f}" '
                    f'height="{_CHIP - 3}" rx="8" {box.paint(way, "fill")}/>'
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


def _chip_width(way: Way) -> float:
    return _width(way.name, 6.7) + 16


def _width(text: str, per_column: float) -> float:
    return columns_of(text) * per_column
