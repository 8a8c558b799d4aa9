"""The heat map of a grid scan in a terminal: in colour where there is colour, else in shades."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style

from parvis_services.demo.heatmap import MARK, Colour, colour, fractions_of_largest, ticks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray
    from rich.console import Console, ConsoleOptions, RenderResult

    from parvis_services.demo.heatmap import Point
    from parvis_services.xray.grid import Grid

SHADES, ASCII_SHADES = "·░▒▓█", ".:-=+*%@"
MOST_COLUMNS, MOST_LINES = 80, 24
LARGEST_BOX = 6
GUTTER = 5


@dataclass(frozen=True)
class TerminalHeatmap:
    """Something for `rich` to print; `terminal_heatmap` makes it."""

    fractions: NDArray[np.float64]
    largest: float
    centre: Point | None
    quantity: str
    most_lines: int

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = min(options.max_width, MOST_COLUMNS)
        return Measurement(width, width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, MOST_COLUMNS)
        plain = console.no_color or console.color_system is None
        sheet = _Sheet.fit(self, width, plain=plain, ascii_only=options.ascii_only)
        yield from sheet.columns_line(width)
        for line in range(sheet.lines):
            yield from sheet.line(line)
        yield Segment.line()
        yield from sheet.key(self.largest, self.quantity, self.centre, width)


def terminal_heatmap(
    grid: Grid,
    counts: ArrayLike,
    centre: Point | None = None,
    quantity: str = "spots",
    most_lines: int = MOST_LINES,
) -> TerminalHeatmap:
    """The heat map of a grid scan, to be printed by `rich` in at most 80 columns.

    Args:
        grid: the boxes and their order.
        counts: one for each image in acquisition order, NaN where unknown; shape ``(grid.size,)``.
        centre: the crystal's centre (x, y) in grid boxes.
        quantity: what is counted.
        most_lines: how many lines the boxes may take; what the colours mean comes below, in up to three more,
            and the numbers of the columns above, in one.

    Raises:
        ValueError: there is not one count for each box.
    """
    fractions, largest = fractions_of_largest(grid, counts)
    return TerminalHeatmap(fractions, largest, centre, quantity, max(1, most_lines))


@dataclass(frozen=True)
class _Sheet:
    """The map on a raster of half lines, which are about as high as a column is wide.

    Attributes:
        boxes: fractions of the largest count ``[row, column]``; several boxes of a large grid in one.
        pooled: how many boxes of the grid, each way, are one here.
        size: half lines and columns of a box.
        centre: in these boxes.
    """

    boxes: NDArray[np.float64]
    pooled: int
    size: int
    centre: Point | None
    plain: bool
    ascii_only: bool

    @classmethod
    def fit(cls, heatmap: TerminalHeatmap, width: int, *, plain: bool, ascii_only: bool) -> _Sheet:
        rows, columns = heatmap.fractions.shape
        across, down = max(1, width - GUTTER - 1), 2 * heatmap.most_lines
        # Without colour a box takes whole lines, so it cannot be smaller than two half lines.
        smallest = 2 if plain or ascii_only else 1
        pooled = max(1, math.ceil(columns * smallest / across), math.ceil(rows * smallest / down))
        boxes = _pool(heatmap.fractions, pooled)
        size = min(LARGEST_BOX, across // boxes.shape[1], down // boxes.shape[0])
        if smallest == 2:
            size -= size % 2
        centre = (heatmap.centre[0] / pooled, heatmap.centre[1] / pooled) if heatmap.centre else None
        return cls(boxes, pooled, max(smallest, size), centre, plain or ascii_only, ascii_only)

    @property
    def lines(self) -> int:
        return math.ceil(self.boxes.shape[0] * self.size / 2)

    @property
    def columns(self) -> int:
        return self.boxes.shape[1] * self.size

    def columns_line(self, width: int) -> Iterator[Segment]:
        """The numbers of some box edges above the map, as far as they fit."""
        text = ""
        for edge in ticks(self.boxes.shape[1] * self.pooled, self.size / self.pooled, 4):
            longer = text.ljust(round(edge * self.size / self.pooled)) + str(edge)
            if GUTTER + len(longer) <= width:
                text = longer
        yield Segment(" " * GUTTER + text, self._faint)
        yield Segment.line()

    def line(self, line: int) -> Iterator[Segment]:
        """A line of the map with, where a labelled box edge is, its number before it."""
        edges = {
            round(edge * self.size / self.pooled) // 2: str(edge)
            for edge in reversed(ticks(self.boxes.shape[0] * self.pooled, self.size / self.pooled, 4))
        }
        yield Segment(f"{edges.get(line, ''):>{GUTTER - 1}} ", self._faint)
        for column in range(self.columns):
            yield self._cell(line, column)
        yield Segment.line()

    def _cell(self, line: int, column: int) -> Segment:
        upper, lower = self._fraction(2 * line, column), self._fraction(2 * line + 1, column)
        if self._is_centre(line, column):
            behind = Style(bgcolor=_rich(colour(upper if upper is not None else 0)))
            return Segment(self._cross, None if self.plain else Style(color=_rich(MARK), bold=True) + behind)
        if self.plain:
            return Segment(self._shade(upper if upper is not None else 0.0))
        above = colour(upper if upper is not None else 0.0)
        below = _rich(colour(lower)) if lower is not None else None
        return Segment("▀", Style(color=_rich(above), bgcolor=below))

    def _fraction(self, half_line: int, column: int) -> float | None:
        row = half_line // self.size
        return float(self.boxes[row, column // self.size]) if row < self.boxes.shape[0] else None

    def _is_centre(self, line: int, column: int) -> bool:
        if self.centre is None:
            return False
        x, y = self.centre
        wanted = min(self.lines - 1, int(y * self.size / 2)), min(self.columns - 1, int(x * self.size))
        return wanted == (line, column)

    def _shade(self, fraction: float) -> str:
        if math.isnan(fraction):
            return " "
        shades = ASCII_SHADES if self.ascii_only else SHADES
        # The first shade is for none at all: few spots must not look like none.
        return (
            shades[0]
            if fraction <= 0
            else shades[min(len(shades) - 1, 1 + int(fraction * (len(shades) - 1)))]
        )

    def key(self, largest: float, quantity: str, centre: Point | None, width: int) -> Iterator[Segment]:
        """What the colours mean, and where the centre is; as many lines as it takes."""
        most = f" {largest:g} {quantity}"
        steps = max(2, min(24, width - GUTTER - len("0 ") - len(most)))
        shades = [self._sample(step / (steps - 1)) for step in range(steps)]
        parts = [[Segment("0 "), *shades, Segment(most)]]
        if np.isnan(self.boxes).any():
            parts.append([Segment("blank:") if self.plain else self._sample(math.nan), Segment(" not seen")])
        if centre is not None:
            cross = Segment(self._cross, None if self.plain else Style(color=_rich(MARK), bold=True))
            parts.append([cross, Segment(f" centre ({centre[0]:.2f}, {centre[1]:.2f})")])
        used = 0
        for part in parts:
            length = sum(len(segment.text) for segment in part)
            if used and used + 3 + length > width:
                yield Segment.line()
                used = 0
            yield Segment("   " if used else " " * GUTTER)
            yield from part
            used += length + (3 if used else GUTTER)
        yield Segment.line()

    def _sample(self, fraction: float) -> Segment:
        if self.plain:
            return Segment(self._shade(fraction))
        return Segment("█", Style(color=_rich(colour(fraction))))

    @property
    def _cross(self) -> str:
        return "+" if self.ascii_only else "╋"

    @property
    def _faint(self) -> Style | None:
        return None if self.plain else Style(dim=True)


def _pool(fractions: NDArray[np.float64], pooled: int) -> NDArray[np.float64]:
    """The largest of each ``pooled`` x ``pooled`` boxes; NaN only where all are."""
    rows, columns = (-(-length // pooled) * pooled for length in fractions.shape)
    padded = np.full((rows, columns), -1.0)
    padded[: fractions.shape[0], : fractions.shape[1]] = np.nan_to_num(fractions, nan=-1.0)
    largest = padded.reshape(rows // pooled, pooled, columns // pooled, pooled).max(axis=(1, 3))
    return np.where(largest < 0, np.nan, largest)


def _rich(rgb: Colour) -> str:
    return f"rgb({rgb[0]},{rgb[1]},{rgb[2]})"
