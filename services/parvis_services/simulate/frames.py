"""Synthetic diffraction images: what a detector counts behind a sample, photon by photon.

Every count is Poisson distributed around an expectation that is the sum of the scattering of air and of
solvent, of the crystal's reflections, and of ice. The images of a seed are the same each time, whatever their
order.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from parvis_services.simulate.lattice import (
    LYSOZYME,
    Reflections,
    UnitCell,
    excitation,
    near_sphere,
    random_rotation,
    reflections,
    small_rotation,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from parvis_services.simulate.detectors import Detector
    from parvis_services.simulate.header import Header

GAP, DEAD = -1, -2
"""What a PILATUS writes between its modules and where a pixel is dead."""

ICE_RINGS = (
    (3.895, 1.0),
    (3.669, 0.5),
    (3.441, 0.75),
    (2.670, 0.3),
    (2.249, 0.5),
    (2.072, 0.3),
    (1.948, 0.08),
    (1.917, 0.15),
    (1.882, 0.06),
    (1.720, 0.05),
)
"""Rings of hexagonal ice: spacing in A and strength relative to the first."""

ICE_BREADTH = 0.0025
"""Breadth (standard deviation) of an ice ring in 1/A."""

SPOT_BREADTH = 1.1e-4
"""Breadth (standard deviation) of a reflection on the detector in m."""

REFERENCE_PIXEL = 172e-6
BEAM_STOP_RADIUS = 2.5e-3
STEM_HALF_WIDTH = 0.6e-3

SOLVENT_STEPS = 4
POOL_PIXELS = 16_000_000
LEAST_IN_POOL, MOST_IN_POOL = 5, 12


@dataclass(frozen=True)
class Physics:
    """How the sample scatters; the defaults look like a 20 ms exposure of a good crystal.

    Attributes:
        cell: unit cell of the crystal.
        d_min: no reflection is simulated beyond this, in A.
        wilson_b: fall-off of the reflections in A^2.
        mosaicity: full width in degrees.
        wobble: how much the orientation differs between parts of the crystal, in degrees.
        reflection: counts of a strong reflection at the thickest part of the crystal.
        air, solvent: counts in a 172 um pixel near the beam, without and from the thickest solvent.
        ice: counts in a 172 um pixel at the top of the strongest ring.
        dead: fraction of dead pixels.
    """

    cell: UnitCell = LYSOZYME
    d_min: float = 1.6
    wilson_b: float = 22.0
    mosaicity: float = 0.15
    wobble: float = 0.03
    reflection: float = 900.0
    air: float = 5.0
    solvent: float = 3.0
    ice: float = 25.0
    dead: float = 1e-4


class FrameSource:
    """Makes the images of one sample on one detector.

    Args:
        detector: its modules and pixels.
        header: the geometry: wavelength, distance and beam centre.
        physics: how the sample scatters.
        seed: the same seed gives the same crystal, dead pixels and images.

    Attributes:
        crystal: the crystal's reflections that can come near the Ewald sphere.
    """

    def __init__(
        self, detector: Detector, header: Header, physics: Physics | None = None, seed: int = 0
    ) -> None:
        self.detector = detector
        self.header = header
        self.physics = physics or Physics()
        self.seed = seed
        random = np.random.default_rng([seed, 0])
        self._gaps = np.flatnonzero(detector.gaps())
        self._dead = np.flatnonzero(random.random(detector.shape) < self.physics.dead)
        self.crystal = self._reflections(random)
        self._make_background(random)

    def image(self, number: int, crystal: float, solvent: float = 0.0, ice: float = 0.0) -> NDArray[np.int32]:
        """The image of this number, for these amounts (0 to 1) of crystal, solvent and ice in the beam.

        Gaps between modules are -1 and dead pixels -2.
        """
        random = np.random.default_rng([self.seed, 3, number])
        image = np.zeros(self.detector.shape, dtype=np.int32)
        self._add_from_pool(random, image, self._air, 1)
        self._add_from_pool(random, image, self._solvent, round(SOLVENT_STEPS * min(1.0, solvent)))
        flat = image.ravel()
        if ice > 0:
            self._add_ice(random, flat, ice)
        if crystal > 0:
            self._add_crystal(random, flat, crystal)
        flat[self._dead] = DEAD
        flat[self._gaps] = GAP
        return image

    def _reflections(self, random: np.random.Generator) -> Reflections:
        """The few reflections of this orientation that ever come near the Ewald sphere."""
        physics = self.physics
        every = reflections(physics.cell, physics.d_min, physics.wilson_b, random_rotation(random), self.seed)
        return near_sphere(every, self.header.wavelength, physics.mosaicity, slack=4 * physics.wobble)

    def _make_background(self, random: np.random.Generator) -> None:
        """What is the same in each image: the beam stop, air, solvent and ice expected at a pixel."""
        header, physics = self.header, self.physics
        rows, columns = self.detector.shape
        x = (np.arange(columns, dtype=np.float32) + np.float32(0.5 - header.beam_xy[0])) * header.pixel_size[
            0
        ]
        y = (np.arange(rows, dtype=np.float32) + np.float32(0.5 - header.beam_xy[1])) * header.pixel_size[1]
        radius = np.hypot(x, y[:, np.newaxis])
        stem = (np.abs(x) < STEM_HALF_WIDTH) & (y > 0)[:, np.newaxis]
        self._open = np.where(radius < BEAM_STOP_RADIUS, 0.02, np.where(stem, 0.6, 1.0)).astype(np.float32)

        two_theta = np.arctan(radius / header.distance)
        cosine = np.cos(two_theta)
        area = header.pixel_size[0] * header.pixel_size[1] / REFERENCE_PIXEL**2
        light = self._open * area * cosine**3 * (1 + cosine**2) / 2
        s = 2 * np.sin(two_theta / 2) / header.wavelength
        air = physics.air / (1 + (s / 0.2) ** 2) ** 1.2
        ring = np.exp(-((s / 0.35) ** 2)) + 1.6 * np.exp(-0.5 * ((s - 0.3) / 0.045) ** 2)
        number = max(LEAST_IN_POOL, min(MOST_IN_POOL, POOL_PIXELS // light.size))
        self._air = _pool(random, air * light, number)
        self._solvent = _pool(random, physics.solvent * ring * light / SOLVENT_STEPS, number)
        self._on_ring, self._powder = self._ice_powder(s.ravel(), light.ravel())

    def _ice_powder(
        self, s: NDArray[np.floating], light: NDArray[np.floating]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The pixels the ice rings touch (flat indices) and the counts expected there."""
        powder = np.zeros(light.size)
        for spacing, strength in ICE_RINGS:
            near = np.flatnonzero(np.abs(s - np.float32(1 / spacing)) < 3 * ICE_BREADTH)
            powder[near] += strength * np.exp(-0.5 * ((s[near] - 1 / spacing) / ICE_BREADTH) ** 2)
        touched = np.flatnonzero(powder)
        return touched, self.physics.ice * powder[touched] * light[touched]

    def _add_from_pool(
        self, random: np.random.Generator, image: NDArray[np.int32], pool: NDArray[np.integer], times: int
    ) -> None:
        """Add so many images whose rows come from random, and different, images of the pool.

        The pixels of one image stay independent Poisson counts, as those of a fresh image would be; only
        between images are some rows the same. This makes it nearly as quick as copying.
        """
        rows = np.arange(len(image))
        chosen = random.permuted(np.tile(np.arange(len(pool)), (len(rows), 1)), axis=1)
        for turn in range(times):
            image += pool[chosen[:, turn], rows]

    def _add_crystal(self, random: np.random.Generator, flat: NDArray[np.int32], crystal: float) -> None:
        points = self.crystal.points @ small_rotation(random, self.physics.wobble).T
        diffracted, part = excitation(points, self.header.wavelength, self.physics.mosaicity)
        counts = crystal * self.physics.reflection * self.crystal.strengths * part
        seen = (counts > 0.2) & (diffracted[:, 2] < 0)
        to_detector = self.header.distance / -diffracted[seen, 2]
        x = self.header.beam_xy[0] + diffracted[seen, 0] * to_detector / self.header.pixel_size[0]
        y = self.header.beam_xy[1] - diffracted[seen, 1] * to_detector / self.header.pixel_size[1]
        self._add_spots(random, flat, x, y, counts[seen])

    def _add_ice(self, random: np.random.Generator, flat: NDArray[np.int32], ice: float) -> None:
        """Powder rings with some larger grains on them."""
        flat[self._on_ring] += random.poisson(ice * self._powder).astype(np.int32)
        grains = random.poisson(60 * ice)
        spacings, strengths = np.array(ICE_RINGS).T
        spacing = random.choice(spacings, size=grains, p=strengths / strengths.sum())
        two_theta = 2 * np.arcsin(np.minimum(1.0, self.header.wavelength / (2 * spacing)))
        radius = self.header.distance * np.tan(two_theta)
        angle = random.uniform(0, 2 * np.pi, size=grains)
        x = self.header.beam_xy[0] + radius * np.cos(angle) / self.header.pixel_size[0]
        y = self.header.beam_xy[1] + radius * np.sin(angle) / self.header.pixel_size[1]
        self._add_spots(random, flat, x, y, random.exponential(60 * self.physics.ice, size=grains))

    def _add_spots(
        self,
        random: np.random.Generator,
        flat: NDArray[np.int32],
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        counts: NDArray[np.float64],
    ) -> None:
        """Add Gaussian spots of these total counts at these pixel positions; what falls beside is lost."""
        rows, columns = self.detector.shape
        sigma = SPOT_BREADTH / self.header.pixel_size[0]
        reach = ceil(3.2 * sigma)
        inside = (x > reach) & (x < columns - reach - 1) & (y > reach) & (y < rows - reach - 1)
        x, y, counts = x[inside], y[inside], counts[inside]
        offsets = np.arange(-reach, reach + 1)
        column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        counts = counts * self._open[row, column]
        across = _gaussian(column[:, np.newaxis] + offsets + 0.5 - x[:, np.newaxis], sigma)
        down = _gaussian(row[:, np.newaxis] + offsets + 0.5 - y[:, np.newaxis], sigma)
        expected = counts[:, np.newaxis, np.newaxis] * down[:, :, np.newaxis] * across[:, np.newaxis, :]
        places = (row[:, np.newaxis, np.newaxis] + offsets[:, np.newaxis]) * columns
        places = places + column[:, np.newaxis, np.newaxis] + offsets
        np.add.at(flat, places.ravel(), random.poisson(expected).ravel().astype(np.int32))


def _gaussian(distance: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    values = np.exp(-0.5 * (distance / sigma) ** 2)
    return values / values.sum(axis=1, keepdims=True)


def _pool(random: np.random.Generator, expected: NDArray[np.floating], number: int) -> NDArray[np.integer]:
    """Poisson images of this expectation, in the smallest type that never overflows in practice."""
    highest = float(expected.max())
    kind = np.uint8 if highest + 12 * highest**0.5 + 12 < 255 else np.uint16
    pool = np.empty((number, *expected.shape), dtype=kind)
    for image in range(number):
        pool[image] = random.poisson(expected)
    return pool
