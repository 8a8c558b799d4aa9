"""The resolution of spots and pixels, and which of them lie in the rings of ice."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.geometry import Beam, Panel, Reals

# Hexagonal ice, space group 194 (P 63/m m c); lengths in Å.
_ICE_A, _ICE_C = 4.498, 7.338
_FINEST_RING = 25.0
"""Rings are known up to this 1/d² (0.2 Å); beyond it they would merge."""


def d_star_squared(
    panel: Panel, beam: Beam, slow: Reals, fast: Reals, *, parallax: bool = True
) -> NDArray[np.float64]:
    """1/d² in Å⁻² of points on a panel, given in pixels (0, 0 is the corner of the first pixel)."""
    position = panel.lab(slow, fast, parallax=parallax)
    scattered = position / (np.linalg.norm(position, axis=1)[:, None] * beam.wavelength)
    q = scattered - np.array(beam.direction) / beam.wavelength
    return np.einsum("ij,ij->i", q, q)


@lru_cache(maxsize=64)
def _ice_rings(limit: float) -> NDArray[np.float64]:
    """1/d² of the allowed reflections of hexagonal ice up to `limit`, sorted, in Å⁻²."""
    # Indices h and k of 0 or more reach every value of h²+hk+k².
    most_h = int(np.sqrt(0.75 * limit) * _ICE_A) + 1
    most_l = int(np.sqrt(limit) * _ICE_C) + 1
    h, k, ell = np.ogrid[: most_h + 1, : most_h + 1, : most_l + 1]
    d_star_sq = 4 / 3 * (h * h + h * k + k * k) / _ICE_A**2 + ell * ell / _ICE_C**2
    absent = (h == k) & (ell % 2 == 1)
    rings = np.unique(d_star_sq[~absent & (d_star_sq > 0) & (d_star_sq <= limit)])
    rings.setflags(write=False)
    return rings


def in_ice_ring(d_star_sq: Reals, width: float) -> NDArray[np.bool_]:
    """Which of the points lie within `width`/2 (Å⁻², exclusive) in 1/d² of a ring of hexagonal ice."""
    if len(d_star_sq) == 0:
        return np.zeros(0, np.bool_)
    # Rounded up, so that images of one detector share their rings.
    limit = min(float(np.ceil(d_star_sq.max() + width)), _FINEST_RING)
    rings = _ice_rings(limit)
    above = np.searchsorted(rings, d_star_sq)
    nearest = np.full(len(d_star_sq), np.inf)
    for neighbour in (above - 1, above):
        ring = rings[np.clip(neighbour, 0, len(rings) - 1)]
        nearest = np.minimum(nearest, np.abs(d_star_sq - ring))
    return nearest < width / 2


def within_resolution(d: Reals, d_min: float | None, d_max: float | None) -> NDArray[np.bool_]:
    """Which d spacings (Å) lie between `d_min` and `d_max`, both included; None is no limit."""
    wanted = np.ones(len(d), np.bool_)
    if d_min is not None:
        wanted &= d >= d_min
    if d_max is not None:
        wanted &= d <= d_max
    return wanted
