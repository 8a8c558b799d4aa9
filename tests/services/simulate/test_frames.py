"""Synthetic images have the statistics and the geometry of real ones."""

from __future__ import annotations

import numpy as np
import pytest

from parvis_services.simulate.collect import GridScan
from parvis_services.simulate.detectors import detector
from parvis_services.simulate.frames import DEAD, GAP, FrameSource, Physics
from parvis_services.xray.grid import Grid

SCAN = GridScan(Grid(2, 2), detector("pilatus-300k"), seed=5)


@pytest.fixture(scope="module")
def source() -> FrameSource:
    return FrameSource(SCAN.detector, SCAN.header, seed=SCAN.seed)


def radius(shape: tuple[int, int]) -> np.ndarray:
    """Distance of each pixel's middle from the beam in pixels."""
    rows, columns = np.indices(shape) + 0.5
    return np.hypot(columns - SCAN.header.beam_xy[0], rows - SCAN.header.beam_xy[1])


def spacing(pixels: np.ndarray) -> np.ndarray:
    """d in A at a distance from the beam in pixels."""
    two_theta = np.arctan(pixels * SCAN.header.pixel_size[0] / SCAN.header.distance)
    return SCAN.header.wavelength / (2 * np.sin(two_theta / 2))


@pytest.mark.parametrize("solvent", [0.0, 0.5, 1.0])
def test_background_is_poisson_noise(source, solvent):
    """In a ring around the beam all pixels expect the same, so that their variance is their mean."""
    image = source.image(1, crystal=0, solvent=solvent)
    ring = radius(image.shape).astype(int) // 2
    clear = (image >= 0) & (ring > 12) & (ring < 120)
    # Left of the beam: its stop hangs on a stem.
    clear &= np.abs(np.arange(image.shape[1]) - SCAN.header.beam_xy[0]) > 6
    number = np.bincount(ring[clear])
    mean = np.bincount(ring[clear], image[clear]) / np.maximum(number, 1)
    excess = np.bincount(ring[clear], (image[clear] - mean[ring[clear]]) ** 2) / np.maximum(number - 1, 1)
    full = number > 100
    assert np.average(excess[full] / mean[full], weights=number[full]) == pytest.approx(1, abs=0.015)


def test_images_of_a_number_are_the_same_in_any_order(source):
    first = source.image(3, 0.8, 0.5, 0.3)
    source.image(4, 0.8)
    np.testing.assert_array_equal(source.image(3, 0.8, 0.5, 0.3), first)
    again = FrameSource(SCAN.detector, SCAN.header, seed=SCAN.seed)
    np.testing.assert_array_equal(again.image(3, 0.8, 0.5, 0.3), first)
    other = FrameSource(SCAN.detector, SCAN.header, seed=SCAN.seed + 1)
    assert (other.image(3, 0.8, 0.5, 0.3) != first).any()
    assert (source.image(4, 0.8, 0.5, 0.3) != first).mean() > 0.5


def test_gaps_and_dead_pixels_are_marked():
    source = FrameSource(SCAN.detector, SCAN.header, Physics(dead=0.01), seed=1)
    image = source.image(1, 1.0, 1.0, 1.0)
    assert image.dtype == np.int32
    np.testing.assert_array_equal(image == GAP, SCAN.detector.gaps())
    dead = (image == DEAD).sum() / (~SCAN.detector.gaps()).sum()
    assert dead == pytest.approx(0.01, rel=0.1)
    assert image.min() == DEAD
    np.testing.assert_array_equal(source.image(2, 0) == DEAD, image == DEAD)


def bright_pixels(image: np.ndarray, least: int) -> np.ndarray:
    """Row and column of the pixels that have at least so many counts and none brighter beside them."""
    inner = image[1:-1, 1:-1]
    around = np.stack([np.roll(image, (r, c), (0, 1))[1:-1, 1:-1] for r in (-1, 0, 1) for c in (-1, 0, 1)])
    return np.argwhere((inner >= least) & (inner == around.max(axis=0))) + 1


def test_spots_lie_where_the_lattice_meets_the_ewald_sphere(source):
    spots = bright_pixels(source.image(1, crystal=1.0), least=60)
    assert len(spots) > 60
    x = (spots[:, 1] + 0.5 - SCAN.header.beam_xy[0]) * SCAN.header.pixel_size[0]
    y = (SCAN.header.beam_xy[1] - spots[:, 0] - 0.5) * SCAN.header.pixel_size[1]
    towards = np.column_stack([x, y, np.full(len(spots), -SCAN.header.distance)])
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    seen = (towards - [0, 0, -1]) / SCAN.header.wavelength
    away = np.linalg.norm(seen[:, np.newaxis] - source.crystal.points, axis=2).min(axis=1)
    pixel = SCAN.header.pixel_size[0] / SCAN.header.distance / SCAN.header.wavelength
    assert np.quantile(away, 0.95) < 1.5 * pixel


def test_more_crystal_means_more_and_farther_spots(source):
    numbers, best = [], []
    for crystal in (0.0, 0.05, 0.3, 1.0):
        spots = bright_pixels(source.image(1, crystal), least=25)
        numbers.append(len(spots))
        if len(spots):
            best.append(np.sort(spacing(radius(SCAN.detector.shape)[tuple(spots.T)]))[:3].mean())
    assert numbers[0] == 0
    assert numbers == sorted(numbers)
    assert numbers[-1] > 5 * numbers[1] > 0
    assert best == sorted(best, reverse=True)


def test_ice_shines_on_its_rings_alone(source):
    """Hexagonal ice has the cell 4.498 x 7.338 A."""
    icy, clear = source.image(1, 0, 0.5, ice=1.0), source.image(1, 0, 0.5)
    more = np.where(clear >= 0, icy - clear, 0).astype(float)
    d = spacing(radius(icy.shape))
    for h, k, l in [(1, 0, 0), (0, 0, 2), (1, 0, 1), (1, 1, 0)]:  # noqa: E741
        ring = (4 / 3 * (h * h + h * k + k * k) / 4.498**2 + l * l / 7.338**2) ** -0.5
        on = np.abs(1 / d - 1 / ring) < 0.002
        assert more[on].mean() > 3
    between = (d > 2.9) & (d < 3.2)
    assert abs(more[between].mean()) < 0.1


def test_the_beam_stop_casts_a_shadow(source):
    image = source.image(1, 1.0, 1.0, 1.0)
    usable = image >= 0
    distance = radius(image.shape) * SCAN.header.pixel_size[0]
    assert image[usable & (distance < 2.3e-3)].mean() < 0.5
    assert image[usable & (distance > 3e-3) & (distance < 6e-3)].mean() > 4


def test_water_scatters_around_three_angstrom(source):
    image = source.image(1, 0, solvent=1.0)
    d = spacing(radius(image.shape))
    at = {low: image[(image >= 0) & (d > low) & (d < low + 0.3)].mean() for low in (2.2, 3.2, 6.0)}
    assert at[3.2] > 1.1 * at[6.0] > at[2.2]
