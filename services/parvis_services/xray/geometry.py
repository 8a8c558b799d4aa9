"""Where the pixels of a detector are, and where the beam goes.

Lengths are in mm, wavelengths in Å. Any right- or left-handed frame with the sample at its origin will do,
as long as the detector and the beam share it: only angles to the beam enter. Axis order is (slow, fast)
throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Beam:
    """A monochromatic beam: `wavelength` in Å, `direction` the unit vector it travels along."""

    wavelength: float
    direction: Vector = (0.0, 0.0, -1.0)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.wavelength) and self.wavelength > 0):
            raise ValueError(f"the wavelength must be more than 0 Å, not {self.wavelength}")
        object.__setattr__(self, "direction", _unit(self.direction, "beam direction"))


@dataclass(frozen=True, slots=True)
class Panel:
    """One flat rectangle of pixels.

    Attributes:
        shape: Number of pixels (slow, fast).
        pixel_size: Size of a pixel (slow, fast), mm.
        origin: Position of the corner of the first pixel, mm.
        slow_axis, fast_axis: Unit vectors along increasing slow and fast index.
        trusted: Lowest and highest count that means what it says, both included.
        thickness: Thickness of the sensor, mm; 0 if not known.
        attenuation: Linear attenuation coefficient of the sensor, mm⁻¹; None if not known, and then there is
            no parallax correction.
        pad: True for a pixel-array detector, False for a CCD or an image plate.
        offset: Index of the panel's first pixel in the whole image (slow, fast).
    """

    shape: tuple[int, int]
    pixel_size: tuple[float, float]
    origin: Vector
    slow_axis: Vector
    fast_axis: Vector
    trusted: tuple[float, float]
    thickness: float = 0.0
    attenuation: float | None = None
    pad: bool = True
    offset: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not all(math.isfinite(size) and size > 0 for size in self.pixel_size):
            raise ValueError(f"the pixel size must be more than 0 mm, not {self.pixel_size}")
        if not all(math.isfinite(value) for value in (*self.origin, self.thickness)):
            raise ValueError(f"the detector's position is not a number: {self.origin}")
        object.__setattr__(self, "slow_axis", _unit(self.slow_axis, "slow axis"))
        object.__setattr__(self, "fast_axis", _unit(self.fast_axis, "fast axis"))

    def lab(self, slow: Reals, fast: Reals, *, parallax: bool = True) -> Reals:
        """Positions in mm, shape (n, 3), of points given in pixels (0, 0 is the corner of the first pixel).

        With `parallax` they are moved back to where a ray from the sample that was detected at its mean depth
        in the sensor enters it; for that the sensor's thickness and attenuation must be known.
        """
        x = fast * self.pixel_size[1]
        y = slow * self.pixel_size[0]
        if parallax and self.thickness > 0 and self.attenuation:
            x, y = self._without_parallax(x, y, self.attenuation)
        return self._place(x, y)

    def _place(self, x: Reals, y: Reals) -> Reals:
        return (
            np.array(self.origin)
            + x[:, None] * np.array(self.fast_axis)
            + y[:, None] * np.array(self.slow_axis)
        )

    def _without_parallax(self, x: Reals, y: Reals, mu: float) -> tuple[Reals, Reals]:
        """Source: the mean depth of absorption in a slab, as DIALS has it (Parkhurst et al. 2014)."""
        along = self._place(x, y)
        along /= np.linalg.norm(along, axis=1)[:, None]
        normal = np.cross(self.fast_axis, self.slow_axis)
        if np.dot(self.origin, normal) < 0:
            normal = -normal
        path = self.thickness / (along @ normal)
        depth = 1 / mu - (path + 1 / mu) * np.exp(-mu * path)
        return x - (along @ np.array(self.fast_axis)) * depth, y - (along @ np.array(self.slow_axis)) * depth


@dataclass(frozen=True, slots=True)
class Detector:
    """One panel or more. Spots never cross from one to another."""

    panels: tuple[Panel, ...]

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError("a detector has at least one panel")


def perpendicular_detector(
    shape: tuple[int, int],
    pixel_size: tuple[float, float],
    beam_centre: tuple[float, float],
    distance: float,
    trusted: tuple[float, float],
    *,
    thickness: float = 0.0,
    attenuation: float | None = None,
) -> Detector:
    """One panel at right angles to a beam along -z, fast along +x, slow along -y.

    Args:
        shape: Number of pixels (slow, fast).
        pixel_size: Size of a pixel (slow, fast), mm.
        beam_centre: Where the beam meets the panel (slow, fast), pixels.
        distance: From the sample, mm.
        trusted: Lowest and highest trusted count.
        thickness, attenuation: Of the sensor, mm and mm⁻¹.
    """
    if not (math.isfinite(distance) and distance > 0):
        raise ValueError(f"the detector distance must be more than 0 mm, not {distance}")
    origin = (-beam_centre[1] * pixel_size[1], beam_centre[0] * pixel_size[0], -distance)
    panel = Panel(
        shape, pixel_size, origin, (0.0, -1.0, 0.0), (1.0, 0.0, 0.0), trusted, thickness, attenuation
    )
    return Detector((panel,))


def as_vector(point: Reals) -> Vector:
    """The three numbers of an array of shape (3,)."""
    return float(point[0]), float(point[1]), float(point[2])


def _unit(vector: Vector, what: str) -> Vector:
    length = math.hypot(*vector)
    if not math.isfinite(length) or length == 0:
        raise ValueError(f"the {what} has no length: {vector}")
    return (vector[0] / length, vector[1] / length, vector[2] / length)
