"""Which box of a grid scan an image belongs to.

One convention holds everywhere: a grid is an array ``[row, column]``, row 0 at the top and column 0 on the
left of the crystal's snapshot; ``x`` is the column and ``y`` the row. Image numbers start at 1 and follow the
acquisition. (Systems that write such an array as ``[x, y]`` hold its transpose.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Orientation = Literal["horizontal", "vertical"]

MOST_BOXES = 10_000_000


@dataclass(frozen=True)
class Grid:
    """A grid of ``steps_x`` columns and ``steps_y`` rows, and the order in which its boxes are exposed.

    A *horizontal* grid is exposed row by row, a *vertical* one column by column. If it is *snaked*, every
    second row (column) runs backwards.

    Raises:
        ValueError: steps below 1, more than ten million boxes, or an unknown orientation.
    """

    steps_x: int
    steps_y: int
    snaked: bool = False
    orientation: Orientation = "horizontal"

    def __post_init__(self) -> None:
        if self.steps_x < 1 or self.steps_y < 1:
            raise ValueError(f"a grid needs at least one step each way, not {self.steps_x} x {self.steps_y}")
        if self.size > MOST_BOXES:
            raise ValueError(f"a grid of {self.steps_x} x {self.steps_y} boxes is larger than {MOST_BOXES}")
        if self.orientation not in get_args(Orientation):
            raise ValueError(f"grid orientation must be horizontal or vertical, not {self.orientation!r}")

    @property
    def size(self) -> int:
        """Number of boxes, which is the number of images."""
        return self.steps_x * self.steps_y

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(rows, columns)`` of the arrays this grid makes."""
        return self.steps_y, self.steps_x

    def position(self, image: int) -> tuple[int, int]:
        """Column and row (from 0) of an image (from 1).

        Raises:
            ValueError: the grid has no such image.
        """
        if not 1 <= image <= self.size:
            raise ValueError(f"image {image} is not one of the {self.size} images of this grid")
        along_row = self.orientation == "horizontal"
        length = self.steps_x if along_row else self.steps_y
        line, step = divmod(image - 1, length)
        if self.snaked and line % 2:
            step = length - 1 - step
        return (step, line) if along_row else (line, step)

    def image(self, column: int, row: int) -> int:
        """Number (from 1) of the image taken at a column and row (from 0).

        Raises:
            ValueError: the box is outside the grid.
        """
        if not (0 <= column < self.steps_x and 0 <= row < self.steps_y):
            raise ValueError(f"box ({column}, {row}) is outside a grid of {self.steps_x} x {self.steps_y}")
        along_row = self.orientation == "horizontal"
        length, line, step = (self.steps_x, row, column) if along_row else (self.steps_y, column, row)
        if self.snaked and line % 2:
            step = length - 1 - step
        return line * length + step + 1

    def order(self) -> NDArray[np.intp]:
        """For each box ``[row, column]`` the index (from 0) of its image in the acquisition."""
        along_row = self.orientation == "horizontal"
        lines, length = self.shape if along_row else (self.steps_x, self.steps_y)
        order = np.arange(self.size, dtype=np.intp).reshape(lines, length)
        if self.snaked:
            order[1::2] = order[1::2, ::-1].copy()
        return order if along_row else order.T

    def arrange(self, values: ArrayLike) -> NDArray[Any]:
        """Values in acquisition order, laid out as an array ``[row, column]`` of the same type.

        Raises:
            ValueError: there is not one value for each box.
        """
        sequence = np.asarray(values)
        if sequence.shape != (self.size,):
            raise ValueError(f"a grid of {self.size} boxes needs that many values, not {sequence.size}")
        return sequence[self.order()]
