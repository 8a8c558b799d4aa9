"""A sample in the beam's way: how much crystal, solvent and ice each box of a grid scan meets."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from parvis_services.xray.grid import Grid

POINTS_PER_BOX = 8


@dataclass(frozen=True)
class Blob:
    """A body in the plane of a grid. Lengths are in boxes, x along a row and y down; box ``i`` is i to i+1.

    Attributes:
        centre: middle (x, y).
        size: (x, y); full widths of an ellipsoid, full widths at half maximum of a Gaussian.
        angle: degrees it is turned, from x towards y.
        shape: an ellipsoid has an edge, a Gaussian fades out.
    """

    centre: tuple[float, float]
    size: tuple[float, float]
    angle: float = 0.0
    shape: Literal["ellipsoid", "gaussian"] = "ellipsoid"

    def thickness(self, grid: Grid) -> NDArray[np.float64]:
        """Mean thickness met by the beam in each box ``[row, column]``, 1 being the thickest part.

        The beam is as large as a box.
        """
        fine = POINTS_PER_BOX
        x = (np.arange(grid.steps_x * fine) + 0.5) / fine - self.centre[0]
        y = (np.arange(grid.steps_y * fine) + 0.5)[:, np.newaxis] / fine - self.centre[1]
        along, across = cos(radians(self.angle)), sin(radians(self.angle))
        u = (x * along + y * across) / (self.size[0] / 2)
        v = (y * along - x * across) / (self.size[1] / 2)
        squared = u * u + v * v
        profile = np.exp2(-squared) if self.shape == "gaussian" else np.sqrt(np.maximum(0.0, 1.0 - squared))
        return profile.reshape(grid.steps_y, fine, grid.steps_x, fine).mean(axis=(1, 3))


@dataclass(frozen=True)
class Sample:
    """What is mounted: a crystal, the loop with solvent around it, and ice on it."""

    crystal: Blob
    loop: Blob | None = None
    ice: tuple[Blob, ...] = ()

    @property
    def centre(self) -> tuple[float, float]:
        """The truth centring should find: the crystal's middle (x, y) in grid boxes."""
        return self.crystal.centre


def random_sample(grid: Grid, seed: int = 0) -> Sample:
    """A crystal somewhere in the grid, in a loop that holds it, with ice at the loop's edge.

    Whole of the crystal is inside the grid, if the grid has at least four boxes that way.
    """
    random = np.random.default_rng([seed, 2])
    width, height = (
        max(1.0, 0.32 * steps * random.uniform(0.85, 1.15)) for steps in (grid.steps_x, grid.steps_y)
    )
    reach = max(width, height) / 2
    x, y = (
        random.uniform(min(reach, steps / 2), max(steps - reach, steps / 2))
        for steps in (grid.steps_x, grid.steps_y)
    )
    loop = Blob(
        (0.4 * x + 0.3 * grid.steps_x, 0.4 * y + 0.3 * grid.steps_y),
        (1.0 * grid.steps_x, 1.05 * grid.steps_y),
    )
    edge = random.uniform(0, 360)
    ice = Blob(
        (
            loop.centre[0] + 0.42 * loop.size[0] * cos(radians(edge)),
            loop.centre[1] + 0.42 * loop.size[1] * sin(radians(edge)),
        ),
        (0.3 * grid.steps_x, 0.3 * grid.steps_y),
        shape="gaussian",
    )
    return Sample(Blob((x, y), (width, height), angle=random.uniform(-30, 30)), loop, (ice,))
