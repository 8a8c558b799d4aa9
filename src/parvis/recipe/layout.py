"""Where the nodes of a recipe go in a picture: layers from top to bottom, few crossings, straight ways.

The method is that of K. Sugiyama, S. Tagawa and M. Toda, IEEE Trans. Syst. Man Cybern. 11, 109 (1981): layers
by longest path, order within a layer by the mean place of the neighbours. Coordinates within a layer are the
least-squares ones for that order (isotonic regression).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

_SWEEPS = 12

# A node, or the point where the way of an edge crosses a layer: source, target, layer.
_Item: TypeAlias = "int | tuple[int, int, int]"


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of nodes and of the ways between them.

    Attributes:
        layers: Layer of each node, 0 at the top.
        x: Centre of each node, from 0 at the left edge of the leftmost.
        ways: For each edge the x at which it crosses the layers between its nodes, from the top.
        width: From the left edge of the leftmost node to the right edge of the rightmost.
    """

    layers: dict[int, int]
    x: dict[int, float]
    ways: dict[tuple[int, int], list[float]]
    width: float


def lay_out(widths: Mapping[int, float], edges: Iterable[tuple[int, int]], gap: float) -> Layout:
    """Lay out a graph without circles.

    Args:
        widths: Width of each node.
        edges: Source and target of each edge.
        gap: Least distance between the sides of neighbours.
    """
    links = list(dict.fromkeys(edges))
    layers = _layers(list(widths), links)
    rows, above, below = _rows(layers, links)
    sizes: dict[_Item, float] = {
        item: widths[item] if isinstance(item, int) else gap for row in rows for item in row
    }
    for sweep in range(_SWEEPS):
        _reorder(rows, above if sweep % 2 == 0 else below)
    x = _coordinates(rows, above, below, sizes, gap)
    left = min((x[item] - sizes[item] / 2 for item in x), default=0)
    right = max((x[item] + sizes[item] / 2 for item in x), default=0)
    return Layout(
        layers,
        {item: place - left for item, place in x.items() if isinstance(item, int)},
        {
            (source, target): [
                x[source, target, row] - left for row in range(layers[source] + 1, layers[target])
            ]
            for source, target in links
        },
        right - left,
    )


def _layers(nodes: Sequence[int], links: Sequence[tuple[int, int]]) -> dict[int, int]:
    following: dict[int, list[int]] = {node: [] for node in nodes}
    waiting_for = dict.fromkeys(nodes, 0)
    for source, target in links:
        following[source].append(target)
        waiting_for[target] += 1
    layers = {node: 0 for node in nodes if waiting_for[node] == 0}
    ready = list(layers)
    for node in ready:
        for target in following[node]:
            layers[target] = max(layers.get(target, 0), layers[node] + 1)
            waiting_for[target] -= 1
            if waiting_for[target] == 0:
                ready.append(target)
    return layers


def _rows(
    layers: Mapping[int, int], links: Sequence[tuple[int, int]]
) -> tuple[list[list[_Item]], dict[_Item, list[_Item]], dict[_Item, list[_Item]]]:
    """Return the layers as rows of nodes and crossing points, and the neighbours of each above and below."""
    rows: list[list[_Item]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
    for node, layer in layers.items():
        rows[layer].append(node)
    above: dict[_Item, list[_Item]] = {}
    below: dict[_Item, list[_Item]] = {}
    for source, target in links:
        points: list[_Item] = [(source, target, row) for row in range(layers[source] + 1, layers[target])]
        for layer, point in enumerate(points, start=layers[source] + 1):
            rows[layer].append(point)
        way: list[_Item] = [source, *points, target]
        for upper, lower in pairwise(way):
            below.setdefault(upper, []).append(lower)
            above.setdefault(lower, []).append(upper)
    return rows, above, below


def _reorder(rows: list[list[_Item]], neighbours: Mapping[_Item, Sequence[_Item]]) -> None:
    place = {item: index for row in rows for index, item in enumerate(row)}
    for row in rows:
        means = {item: _mean([place[each] for each in neighbours.get(item, ())], place[item]) for item in row}
        row.sort(key=lambda item, means=means: means[item])
        place.update({item: index for index, item in enumerate(row)})


def _coordinates(
    rows: list[list[_Item]],
    above: Mapping[_Item, Sequence[_Item]],
    below: Mapping[_Item, Sequence[_Item]],
    sizes: Mapping[_Item, float],
    gap: float,
) -> dict[_Item, float]:
    x: dict[_Item, float] = {}
    for row in rows:
        x.update(_spread(row, dict.fromkeys(row, 0.0), sizes, gap))
    for sweep in range(_SWEEPS):
        # The last sweep goes up, so that a node stands above the middle of what it leads to.
        order, neighbours = (rows, above) if sweep % 2 == 0 else (rows[::-1], below)
        for row in order:
            wanted = {item: _mean([x[each] for each in neighbours.get(item, ())], x[item]) for item in row}
            x.update(_spread(row, wanted, sizes, gap))
    return x


def _spread(
    row: Sequence[_Item], wanted: Mapping[_Item, float], sizes: Mapping[_Item, float], gap: float
) -> dict[_Item, float]:
    """Return the places nearest to the wanted ones that keep the order and leave the gaps."""
    offsets: list[float] = []
    offset = 0.0
    for index, item in enumerate(row):
        offset += (sizes[row[index - 1]] + sizes[item]) / 2 + gap if index else 0
        offsets.append(offset)
    blocks: list[tuple[float, int]] = []  # mean and number of items that stand as close as they may
    for item, offset in zip(row, offsets, strict=True):
        mean, count = wanted[item] - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, others = blocks.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        blocks.append((mean, count))
    means = [mean for mean, count in blocks for _ in range(count)]
    return {item: mean + offset for item, mean, offset in zip(row, means, offsets, strict=True)}


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
