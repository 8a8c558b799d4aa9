"""Resolution and ice rings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parvis_services.xray.geometry import Beam, perpendicular_detector
from parvis_services.xray.resolution import d_star_squared, in_ice_ring, within_resolution

BEAM = Beam(0.9)
PANEL = perpendicular_detector((1000, 1000), (0.1, 0.1), (500, 500), 200, (0, 9)).panels[0]
A, C = 4.498, 7.338


@pytest.mark.parametrize(("slow", "fast"), [(500, 900), (100, 500), (180, 740)])
def test_resolution_is_braggs(slow, fast):
    radius = 0.1 * math.hypot(slow - 500, fast - 500)
    theta = 0.5 * math.atan2(radius, 200)
    d = BEAM.wavelength / (2 * math.sin(theta))
    d_star_sq = d_star_squared(PANEL, BEAM, np.array([float(slow)]), np.array([float(fast)]))
    assert d_star_sq == pytest.approx(1 / d**2, rel=1e-12)


def test_the_beam_itself_has_none():
    assert d_star_squared(PANEL, BEAM, np.array([500.0]), np.array([500.0])) == pytest.approx(0, abs=1e-20)


def ring(h: int, k: int, ell: int) -> float:
    return 4 / 3 * (h * h + h * k + k * k) / A**2 + ell * ell / C**2


@pytest.mark.parametrize("hkl", [(1, 0, 0), (0, 0, 2), (1, 0, 1), (1, 0, 2), (1, 1, 0), (1, 0, 3), (1, 1, 2)])
def test_rings_of_ice(hkl):
    at = ring(*hkl)
    inside = in_ice_ring(np.array([at, at - 0.00199, at + 0.00199]), 0.004)
    assert inside.all()


def test_the_known_rings_of_ice_in_angstrom():
    """The strong rings that everybody who has frozen a crystal knows."""
    for d in (3.895, 3.669, 3.441, 2.671, 2.249, 2.072, 1.948, 1.918, 1.883, 1.721):
        assert in_ice_ring(np.array([1 / d**2]), 0.001).all(), d


@pytest.mark.parametrize("hkl", [(0, 0, 1), (0, 0, 3), (1, 1, 1), (2, 2, 3)])
def test_absent_reflections_make_no_rings(hkl):
    at = ring(*hkl)
    others = [
        ring(h, k, ell)
        for h in range(9)
        for k in range(9)
        for ell in range(15)
        if (h, k, ell) != (0, 0, 0) and not (h == k and ell % 2)
    ]
    width = 1.9 * min(abs(at - other) for other in others)
    assert width > 0
    assert not in_ice_ring(np.array([at]), width).any()


def test_the_edge_of_a_ring_is_outside():
    at = ring(1, 0, 0)
    nearest_float = np.nextafter(at + 0.002, 2)
    assert not in_ice_ring(np.array([nearest_float]), 0.004).any()


def test_no_spots_are_in_no_rings():
    assert in_ice_ring(np.zeros(0), 0.004).tolist() == []


def test_resolution_limits_include_their_ends():
    d = np.array([1.0, 2.0, 3.0, 40.0, 41.0])
    assert within_resolution(d, 2.0, 40.0).tolist() == [False, True, True, True, False]
    assert within_resolution(d, None, None).all()
