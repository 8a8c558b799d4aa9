"""How strongly a detector's sensor absorbs X-rays.

Source of the figures: J. H. Hubbell & S. M. Seltzer, NIST Standard Reference Database 126 (NISTIR 5632),
total mass attenuation coefficients; those of GaAs are the mass-weighted sum of its elements.
"""

from __future__ import annotations

import math
from itertools import pairwise

KEV_ANGSTROM = 12.398419843320026
"""Energy of a photon in keV times its wavelength in Å."""

# Density in g/cm³, then (energy in keV, mass attenuation in cm²/g). An absorption edge is two entries of one
# energy.
_MATERIALS: dict[str, tuple[float, tuple[tuple[float, float], ...]]] = {
    "Si": (
        2.33,
        (
            (2.0, 2777.0),
            (3.0, 978.4),
            (4.0, 452.9),
            (5.0, 245.0),
            (6.0, 147.0),
            (8.0, 64.68),
            (10.0, 33.89),
            (15.0, 10.34),
            (20.0, 4.464),
            (30.0, 1.436),
            (40.0, 0.7012),
            (50.0, 0.4385),
            (60.0, 0.3207),
            (80.0, 0.2228),
            (100.0, 0.1835),
            (150.0, 0.1448),
        ),
    ),
    "CdTe": (
        6.2,
        (
            (5.0, 839.2),
            (6.0, 528.6),
            (8.0, 249.2),
            (10.0, 138.1),
            (15.0, 46.57),
            (20.0, 21.44),
            (26.711, 9.834),
            (26.711, 29.43),
            (30.0, 21.82),
            (31.814, 18.73),
            (31.814, 34.92),
            (40.0, 19.3),
            (50.0, 10.67),
            (60.0, 6.542),
            (80.0, 3.019),
            (100.0, 1.671),
            (150.0, 0.6071),
        ),
    ),
    "GaAs": (
        5.31,
        (
            (5.0, 249.5),
            (6.0, 152.4),
            (8.0, 69.6),
            (10.0, 37.8),
            (10.3671, 34.25),
            (10.3671, 126.0),
            (11.8667, 88.67),
            (11.8667, 168.1),
            (15.0, 92.2),
            (20.0, 42.57),
            (30.0, 13.98),
            (40.0, 6.262),
            (50.0, 3.366),
            (60.0, 2.042),
            (80.0, 0.9588),
            (100.0, 0.5598),
        ),
    ),
}

_NAMES = {"silicon": "Si", "si": "Si", "cdte": "CdTe", "cadmium telluride": "CdTe", "gaas": "GaAs"}


def sensor_material(name: str) -> str | None:
    """The material (`Si`, `CdTe`, `GaAs`) a file's header means by `name`, or None if it is another."""
    return _NAMES.get(name.strip().lower())


def attenuation(material: str, wavelength: float) -> float | None:
    """Linear attenuation coefficient in mm⁻¹ of a sensor material at a wavelength in Å.

    Interpolated between tabulated energies, both axes logarithmic. None beyond the table.
    """
    density, table = _MATERIALS[material]
    energy = KEV_ANGSTROM / wavelength
    for (low, below), (high, above) in pairwise(table):
        if low <= energy < high:
            fraction = math.log(energy / low) / math.log(high / low)
            return density * below * (above / below) ** fraction / 10
    return None
