"""The heat map of a grid scan as a picture.

The grid is shown as it lies on the crystal's snapshot: x to the right and y down, in grid boxes, so that a
centre (8.0, 2.8) is read off the axes. For the terminal there is `parvis_services.demo.terminal_heatmap`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from parvis_services.xray.grid import Grid

Point = tuple[float, float]
Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (13, 14, 46),
    (38, 28, 96),
    (80, 34, 128),
    (128, 42, 131),
    (176, 56, 116),
    (216, 82, 88),
    (240, 122, 62),
    (249, 171, 68),
    (251, 217, 114),
    (253, 250, 202),
)
"""From none to the most, each lighter than the one before by about as much, so that greys keep the order."""

UNKNOWN: Colour = (206, 209, 214)
INK: Colour = (34, 38, 46)
FAINT: Colour = (112, 118, 128)
MARK: Colour = (0, 229, 255)
PAPER: Colour = (255, 255, 255)


def colour(fraction: float) -> Colour:
    """The colour of a fraction from 0 to 1 of the largest count; NaN is an image nobody has seen."""
    if math.isnan(fraction):
        return UNKNOWN
    place = min(1.0, max(0.0, fraction)) * (len(COLOURS) - 1)
    low = min(int(place), len(COLOURS) - 2)
    red, green, blue = (
        round(a + (place - low) * (b - a)) for a, b in zip(COLOURS[low], COLOURS[low + 1], strict=True)
    )
    return red, green, blue


def fractions_of_largest(grid: Grid, counts: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Counts as fractions of the largest, ``[row, column]``, and the largest."""
    laid_out = grid.arrange(np.asarray(counts, dtype=np.float64))
    seen = laid_out[~np.isnan(laid_out)]
    largest = float(seen.max(initial=0.0))
    return laid_out / (largest or 1.0), largest


@dataclass(frozen=True)
class _Frame:
    """Where the boxes are in the picture: the top left corner of the grid and the size of a box in pixels."""

    left: int
    top: int
    width: float
    height: float
    grid: Grid

    @property
    def right(self) -> int:
        return self.at((self.grid.steps_x, 0))[0]

    @property
    def bottom(self) -> int:
        return self.at((0, self.grid.steps_y))[1]

    def at(self, point: Point) -> tuple[int, int]:
        """The pixel of a point in grid boxes."""
        return round(self.left + point[0] * self.width), round(self.top + point[1] * self.height)

    def box(self, column: int, row: int) -> tuple[int, int, int, int]:
        left, top = self.at((column, row))
        right, bottom = self.at((column + 1, row + 1))
        return left, top, right - 1, bottom - 1


LARGEST_PLOT = (1000, 680)
MARGINS = (84, 116)
BESIDE, BELOW = 150, 118
SMALLEST_WIDTH = 560


def draw_png(
    path: Path,
    grid: Grid,
    counts: ArrayLike,
    *,
    centre: Point | None = None,
    best_image: int | None = None,
    box_um: Point = (20.0, 20.0),
    title: str = "Grid scan",
    quantity: str = "spots",
) -> None:
    """Draw the heat map of a grid scan.

    Args:
        path: the PNG to write.
        grid: the boxes and their order.
        counts: one for each image in acquisition order, NaN where unknown; shape ``(grid.size,)``.
        centre: the crystal's centre (x, y) in grid boxes.
        best_image: number (from 1) of the image with most.
        box_um: size (x, y) of a box in um.
        title: the headline.
        quantity: what is counted.

    Raises:
        ValueError: there is not one count for each box, or a box has no size.
    """
    fractions, largest = fractions_of_largest(grid, counts)
    if not (box_um[0] > 0 and box_um[1] > 0):
        raise ValueError(f"grid boxes must have a positive size, not {box_um} um")
    frame = _frame(grid, box_um)
    size = (max(SMALLEST_WIDTH, frame.right + BESIDE), frame.bottom + BELOW)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    seen = int(np.count_nonzero(~np.isnan(fractions)))
    _draw_headline(
        draw, grid, title, box_um, f"{seen} of {grid.size} images seen" if seen < grid.size else ""
    )
    _draw_boxes(draw, frame, fractions, largest)
    _draw_axes(draw, frame)
    _draw_scale(draw, frame, largest, quantity)
    if best_image is not None:
        _mark_best(draw, frame, grid.position(best_image))
    if centre is not None:
        _mark_centre(draw, frame, centre)
    _draw_scale_bar(draw, frame, box_um[0])
    _draw_key(draw, frame, centre, best_image)
    picture.save(path, format="PNG", optimize=True)


def _frame(grid: Grid, box_um: Point) -> _Frame:
    """Boxes as large as fit, of the shape they have on the crystal, but not of absurd shapes."""
    shape = min(4.0, max(0.25, box_um[1] / box_um[0]))
    width = min(64.0, LARGEST_PLOT[0] / grid.steps_x, LARGEST_PLOT[1] / (grid.steps_y * shape))
    return _Frame(*MARGINS, max(1.0, width), max(1.0, width * shape), grid)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_headline(draw: ImageDraw.ImageDraw, grid: Grid, title: str, box_um: Point, warning: str) -> None:
    left = MARGINS[0]
    draw.text((left, 22), title, INK, _font(27))
    order = f"{grid.orientation}, {'snaked' if grid.snaked else 'not snaked'}"
    size = f"{grid.steps_x} x {grid.steps_y} boxes of {box_um[0]:g} x {box_um[1]:g} micron"
    draw.text((left, 60), ", ".join(filter(None, (size, order, warning))), FAINT, _font(15))


def _draw_boxes(
    draw: ImageDraw.ImageDraw, frame: _Frame, fractions: NDArray[np.float64], largest: float
) -> None:
    font = _font(max(9, min(15, int(frame.width * 0.3))))
    numbers = frame.width >= 26 and frame.height >= 16 and largest < 10_000
    for (row, column), fraction in np.ndenumerate(fractions):
        box = frame.box(column, row)
        draw.rectangle(box, colour(fraction))
        middle = frame.at((column + 0.5, row + 0.5))
        if np.isnan(fraction):
            draw.line((box[0], box[3], box[2], box[1]), PAPER, 1)
        elif numbers:
            draw.text(middle, f"{fraction * largest:.0f}", _ink_on(fraction), font, anchor="mm")
    if min(frame.width, frame.height) >= 8:
        for column in range(1, frame.grid.steps_x):
            x = frame.at((column, 0))[0]
            draw.line((x, frame.top, x, frame.bottom - 1), (60, 58, 90), 1)
        for row in range(1, frame.grid.steps_y):
            y = frame.at((0, row))[1]
            draw.line((frame.left, y, frame.right - 1, y), (60, 58, 90), 1)


def _ink_on(fraction: float) -> Colour:
    """Light on dark boxes and dark on light ones; nothing found is written faintly."""
    ink, weight = (PAPER if fraction < 0.55 else INK), (0.35 if fraction == 0 else 0.8)
    red, green, blue = (
        round(weight * i + (1 - weight) * c) for i, c in zip(ink, colour(fraction), strict=True)
    )
    return red, green, blue


def _draw_axes(draw: ImageDraw.ImageDraw, frame: _Frame) -> None:
    font, label = _font(14), _font(15)
    for column in ticks(frame.grid.steps_x, frame.width, 34):
        x, _ = frame.at((column, 0))
        draw.line((x, frame.bottom, x, frame.bottom + 5), FAINT, 1)
        draw.text((x, frame.bottom + 8), str(column), INK, font, anchor="mt")
    for row in ticks(frame.grid.steps_y, frame.height, 24):
        _, y = frame.at((0, row))
        draw.line((frame.left - 6, y, frame.left - 1, y), FAINT, 1)
        draw.text((frame.left - 10, y), str(row), INK, font, anchor="rm")
    draw.text((frame.right, frame.bottom + 27), "x (boxes)", FAINT, label, anchor="rt")
    draw.text((frame.left - 10, frame.top - 22), "y (boxes)", FAINT, label, anchor="mm")
    draw.rectangle((frame.left - 1, frame.top - 1, frame.right, frame.bottom), None, INK, 1)


def ticks(steps: int, pixels: float, least: float) -> range:
    """Box edges to be labelled, at a round distance of at least so many pixels."""
    for distance in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if distance * pixels >= least:
            break
    return range(0, steps + 1, distance)


def _draw_scale(draw: ImageDraw.ImageDraw, frame: _Frame, largest: float, quantity: str) -> None:
    left, top, bottom = frame.right + 34, frame.top, max(frame.bottom, frame.top + 60)
    for y in range(top, bottom):
        draw.line((left, y, left + 20, y), colour(1 - (y - top) / max(1, bottom - 1 - top)))
    draw.rectangle((left - 1, top - 1, left + 21, bottom), None, INK, 1)
    draw.text((left - 2, top - 22), quantity, FAINT, _font(15), anchor="lm")
    if largest <= 0:
        draw.text((left + 28, bottom), "0", INK, _font(14), anchor="lm")
        return
    for value in _round_values(largest, room=(bottom - top) / 18):
        y = bottom - round(value / largest * (bottom - top))
        draw.line((left + 21, y, left + 25, y), FAINT, 1)
        draw.text((left + 30, y), f"{value:g}", INK, _font(14), anchor="lm")


def _round_values(largest: float, room: float) -> list[float]:
    """Some round values from 0 up, as many as there is room for, and the largest itself."""
    step = _round_below(largest / 3)
    while largest / step > room:
        step *= 2
    values = [step * place for place in range(int(largest / step) + 1)]
    clear = max(0.35 * step, largest / room)
    return [value for value in values if largest - value >= clear] + [largest]


def _round_below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit for digit in (5, 2, 1) if digit * power <= value * (1 + 1e-9)) * power


def _mark_best(draw: ImageDraw.ImageDraw, frame: _Frame, position: tuple[int, int]) -> None:
    left, top, right, bottom = frame.box(*position)
    draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), None, PAPER, 1)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), None, INK, 3 if frame.width >= 12 else 1)


def _mark_centre(draw: ImageDraw.ImageDraw, frame: _Frame, centre: Point) -> None:
    arm = max(9, min(26, round(0.6 * max(frame.width, frame.height))))
    _draw_cross(draw, frame.at(centre), arm)


def _draw_cross(draw: ImageDraw.ImageDraw, middle: tuple[int, int], arm: int) -> None:
    """A cross with a dark edge, so that it is seen on every colour."""
    x, y = middle
    for thickness, ink in ((5, INK), (3, MARK)):
        grow = 1 if ink == INK else 0
        draw.line((x - arm - grow, y, x + arm + grow, y), ink, thickness)
        draw.line((x, y - arm - grow, x, y + arm + grow), ink, thickness)


def _draw_scale_bar(draw: ImageDraw.ImageDraw, frame: _Frame, box_um: float) -> None:
    """A bar of a round length, at most a third of the grid."""
    length = _round_below(max(1e-6, frame.grid.steps_x * box_um / 3))
    right, y = frame.left + round(length / box_um * frame.width), frame.bottom + 58
    draw.line((frame.left, y, right, y), INK, 3)
    for x in (frame.left, right):
        draw.line((x, y - 5, x, y + 5), INK, 1)
    name = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} micron"
    draw.text((right + 12, y), name, INK, _font(15), anchor="lm")


def _draw_key(draw: ImageDraw.ImageDraw, frame: _Frame, centre: Point | None, best_image: int | None) -> None:
    x, y, font = frame.left, frame.bottom + 92, _font(15)
    if centre is not None:
        _draw_cross(draw, (x + 8, y), 8)
        text = f"centre ({centre[0]:.2f}, {centre[1]:.2f})"
        draw.text((x + 26, y), text, INK, font, anchor="lm")
        x += 26 + round(draw.textlength(text, font)) + 36
    if best_image is not None:
        draw.rectangle((x, y - 8, x + 16, y + 8), colour(1.0), INK, 3)
        draw.text((x + 26, y), f"best image {best_image}", INK, font, anchor="lm")
