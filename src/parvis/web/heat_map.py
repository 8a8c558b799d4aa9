"""The heat map of a grid scan as SVG: a few paths, whatever the number of boxes; colours are the page's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from parvis.observe.grid_scans import GridScan

LEVELS: Final = 10
"""Shades from none to the most: classes `l0` to `l9` of the style sheet, and `lx` for what is not known."""

_BOX = 20.0  # units of the picture
_MARGIN_LEFT, _MARGIN_TOP, _MARGIN_RIGHT = 34.0, 22.0, 6.0
_NUMBERED = 1200  # boxes up to which each says its number
_WIDEST = 1040.0
_LARGEST_BOX = 46.0


def level(count: float | None, largest: float) -> int | None:
    """Return the shade of a count, None if it is not known; only none at all has the first."""
    if count is None:
        return None
    if count <= 0 or largest <= 0:
        return 0
    return 1 + min(LEVELS - 2, int((LEVELS - 1) * count / largest))


def heat_map(scan: GridScan, title: str) -> str:
    """Return the heat map of a grid scan, x to the right and y down, as it lies on the snapshot.

    Args:
        scan: The grid scan.
        title: What the picture shows, in words; markup characters are escaped already.
    """
    columns, rows = scan.summary.columns, scan.summary.rows
    width, height = scan.box_um
    # Boxes have the shape that they have on the crystal, but no absurd one.
    tall = _BOX * (min(4.0, max(0.25, height / width)) if width > 0 and height > 0 else 1.0)
    whole = _MARGIN_LEFT + columns * _BOX + _MARGIN_RIGHT, _MARGIN_TOP + rows * tall + _MARGIN_RIGHT
    scale = min(_LARGEST_BOX / _BOX, _WIDEST / whole[0])
    parts = [
        f'<svg class="heat-map" viewBox="0 0 {whole[0]:g} {whole[1]:g}" width="{whole[0] * scale:.0f}" '
        f'height="{whole[1] * scale:.0f}" role="img"><title>{title}</title>',
        *_boxes(scan, tall),
        *_axes(columns, rows, tall),
    ]
    if columns * rows <= _NUMBERED:
        parts += _numbers(scan, tall)
    if scan.best is not None:
        row, column = divmod(scan.best, columns)
        parts.append(
            f'<rect class="best" x="{_MARGIN_LEFT + column * _BOX:g}" y="{_MARGIN_TOP + row * tall:g}" '
            f'width="{_BOX:g}" height="{tall:g}"/>'
        )
    return "".join([*parts, "</svg>"])


def _boxes(scan: GridScan, tall: float) -> Iterator[str]:
    """A path for each shade; boxes of the same shade beside each other are one piece of it."""
    largest = max((count for count in scan.counts if count is not None), default=0.0)
    paths: dict[str, list[str]] = {}
    columns = scan.summary.columns
    for row in range(scan.summary.rows):
        shades = [level(count, largest) for count in scan.counts[row * columns : (row + 1) * columns]]
        start = 0
        for column in range(1, columns + 1):
            if column < columns and shades[column] == shades[start]:
                continue
            name = "lx" if shades[start] is None else f"l{shades[start]}"
            x, y, across = _MARGIN_LEFT + start * _BOX, _MARGIN_TOP + row * tall, (column - start) * _BOX
            paths.setdefault(name, []).append(f"M{x:g} {y:g}h{across:g}v{tall:g}h{-across:g}z")
            start = column
    for name, pieces in sorted(paths.items()):
        yield f'<path class="{name}" d="{"".join(pieces)}"/>'
    if scan.summary.columns * scan.summary.rows <= _NUMBERED:
        yield f'<path class="lines" d="{"".join(_lines(columns, scan.summary.rows, tall))}"/>'


def _lines(columns: int, rows: int, tall: float) -> Iterator[str]:
    for column in range(1, columns):
        yield f"M{_MARGIN_LEFT + column * _BOX:g} {_MARGIN_TOP:g}v{rows * tall:g}"
    for row in range(1, rows):
        yield f"M{_MARGIN_LEFT:g} {_MARGIN_TOP + row * tall:g}h{columns * _BOX:g}"


def _numbers(scan: GridScan, tall: float) -> Iterator[str]:
    largest = max((count for count in scan.counts if count is not None), default=0.0)
    for index, count in enumerate(scan.counts):
        if not count:
            continue
        row, column = divmod(index, scan.summary.columns)
        x, y = _MARGIN_LEFT + (column + 0.5) * _BOX, _MARGIN_TOP + (row + 0.5) * tall + 2.4
        dark = " on-light" if (level(count, largest) or 0) >= LEVELS // 2 else ""
        small = " small" if count >= 1000 else ""
        yield f'<text class="count{dark}{small}" x="{x:g}" y="{y:g}">{count:.0f}</text>'


def _axes(columns: int, rows: int, tall: float) -> Iterator[str]:
    for column in _ticks(columns, _BOX, 26):
        x = _MARGIN_LEFT + (column + 0.5) * _BOX
        yield f'<text class="axis" x="{x:g}" y="{_MARGIN_TOP - 6:g}">{column + 1}</text>'
    for row in _ticks(rows, tall, 14):
        y = _MARGIN_TOP + (row + 0.5) * tall + 2.6
        yield f'<text class="axis row" x="{_MARGIN_LEFT - 5:g}" y="{y:g}">{row + 1}</text>'


def _ticks(steps: int, size: float, least: float) -> list[int]:
    """The first box, and boxes at a round distance of at least so many units."""
    distance = next((d for d in (1, 5, 10, 20, 50, 100, 200, 500, 1000) if d * size >= least), 5000)
    return [0, *range(distance - 1 if distance > 1 else 1, steps, distance)]
