"""The reflections a crystal gives on a still image: where they fall and how strong they are.

Geometry of a still exposure: a reflection shines as far as its reciprocal-lattice point, made fuzzy by
mosaicity and by the finite size of the mosaic blocks, touches the Ewald sphere. The laboratory has the beam
along -z, x along the rows of the detector and y up its columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_BREADTH = 2e-4
"""Radius in 1/A of a lattice point of a crystal without mosaicity."""

REACH = 3.0
"""How many standard deviations from the Ewald sphere a reflection is still followed."""


@dataclass(frozen=True)
class UnitCell:
    """A primitive tetragonal cell (edges in A) of a crystal with a 4-fold and a 2-fold screw axis."""

    a: float
    c: float


LYSOZYME = UnitCell(79.1, 37.9)
THAUMATIN = UnitCell(58.0, 150.3)


@dataclass(frozen=True)
class Reflections:
    """Reflections near the Ewald sphere.

    Attributes:
        points: reciprocal-lattice points in the laboratory in 1/A, shape (n, 3).
        strengths: relative intensities where the sphere meets the point, shape (n,).
    """

    points: NDArray[np.float64]
    strengths: NDArray[np.float64]


def random_rotation(random: np.random.Generator) -> NDArray[np.float64]:
    """A rotation matrix; every orientation is equally likely (a normalised Gaussian quaternion)."""
    quaternion = random.normal(size=4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def small_rotation(random: np.random.Generator, degrees: float) -> NDArray[np.float64]:
    """A turn by about this angle around a random axis."""
    x, y, z = random.normal(size=3) * np.radians(degrees)
    return np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]])


def reflections(
    cell: UnitCell, d_min: float, wilson_b: float, rotation: NDArray[np.float64], seed: int
) -> Reflections:
    """All reflections of a crystal in an orientation down to ``d_min`` A.

    Strengths follow Wilson's statistics of acentric reflections, fall off with exp(-B / 2d^2), are equal for
    those the Laue group 4/mmm makes equal, and are the same for the same seed.
    """
    most_h, most_l = int(cell.a / d_min), int(cell.c / d_min)
    h, k, l = (  # noqa: E741 - the indices have these names everywhere
        axis.ravel()
        for axis in np.meshgrid(
            np.arange(-most_h, most_h + 1),
            np.arange(-most_h, most_h + 1),
            np.arange(-most_l, most_l + 1),
            indexing="ij",
        )
    )
    inverse_d_squared = (h * h + k * k) / cell.a**2 + (l * l) / cell.c**2
    present = (inverse_d_squared > 0) & (inverse_d_squared <= 1 / d_min**2) & ~_screw_absences(h, k, l)
    h, k, l, inverse_d_squared = h[present], k[present], l[present], inverse_d_squared[present]  # noqa: E741
    table = np.random.default_rng([seed, 1]).exponential(size=(most_h + 1, most_h + 1, most_l + 1))
    strengths = table[np.maximum(abs(h), abs(k)), np.minimum(abs(h), abs(k)), abs(l)]
    points = np.column_stack([h / cell.a, k / cell.a, l / cell.c]) @ rotation.T
    return Reflections(points, strengths * np.exp(-0.5 * wilson_b * inverse_d_squared))


def _screw_absences(
    h: NDArray[np.int64],
    k: NDArray[np.int64],
    l: NDArray[np.int64],  # noqa: E741
) -> NDArray[np.bool_]:
    along_l = (h == 0) & (k == 0) & (l % 4 != 0)
    along_h = (k == 0) & (l == 0) & (h % 2 != 0)
    along_k = (h == 0) & (l == 0) & (k % 2 != 0)
    return along_l | along_h | along_k


def excitation(
    points: NDArray[np.float64], wavelength: float, mosaicity: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Diffracted wave vectors (n, 3) in 1/A and how far each point reflects, 0 to 1 (n,).

    Args:
        points: reciprocal-lattice points (n, 3) in 1/A.
        wavelength: in A.
        mosaicity: full width of the mosaic spread in degrees.
    """
    diffracted = points - np.array([0.0, 0.0, 1.0 / wavelength])
    distance = np.linalg.norm(diffracted, axis=1) - 1.0 / wavelength
    breadth = BLOCK_BREADTH + 0.5 * np.radians(mosaicity) * np.linalg.norm(points, axis=1)
    return diffracted, np.exp(-0.5 * (distance / breadth) ** 2)


def near_sphere(reflections: Reflections, wavelength: float, mosaicity: float, slack: float) -> Reflections:
    """Those reflections that can shine when the crystal is turned by at most ``slack`` degrees."""
    distance = np.linalg.norm(reflections.points - [0.0, 0.0, 1.0 / wavelength], axis=1) - 1.0 / wavelength
    length = np.linalg.norm(reflections.points, axis=1)
    breadth = REACH * (BLOCK_BREADTH + 0.5 * np.radians(mosaicity) * length) + np.radians(slack) * length
    near = np.abs(distance) < breadth
    return Reflections(reflections.points[near], reflections.strengths[near])
