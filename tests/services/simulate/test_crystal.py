"""How much of a body the beam meets in each box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis_services.simulate.crystal import Blob, random_sample
from parvis_services.xray.grid import Grid


def centroid(thickness: np.ndarray) -> tuple[float, float]:
    rows, columns = np.indices(thickness.shape) + 0.5
    return (
        float((columns * thickness).sum() / thickness.sum()),
        float((rows * thickness).sum() / thickness.sum()),
    )


@pytest.mark.parametrize("shape", ["ellipsoid", "gaussian"])
@pytest.mark.parametrize("angle", [0, 30, -75])
def test_the_centre_is_where_it_was_put(shape, angle):
    size = (8.0, 4.0) if shape == "ellipsoid" else (4.0, 2.5)
    thickness = Blob((11.3, 8.6), size, angle, shape).thickness(Grid(22, 17))
    assert thickness.shape == (17, 22)
    assert centroid(thickness) == pytest.approx((11.3, 8.6), abs=0.02)
    assert 0.85 < thickness.max() <= 1


def test_an_ellipsoid_ends_and_a_gaussian_halves():
    grid = Grid(20, 9)
    ellipsoid = Blob((10, 4.5), (8, 6)).thickness(grid)
    assert not ellipsoid[:, :6].any()
    assert not ellipsoid[:, 14:].any()
    assert not ellipsoid[[0, 8]].any()
    gaussian = Blob((10.5, 4.5), (6, 6), shape="gaussian").thickness(grid)
    assert gaussian[4, 13] == pytest.approx(gaussian[4, 10] / 2, rel=0.05)


def test_a_turned_body_points_from_x_towards_y():
    rows, columns = np.nonzero(Blob((10, 10), (14, 2), angle=45).thickness(Grid(20, 20)) > 0.3)
    assert np.corrcoef(rows, columns)[0, 1] > 0.9


@given(st.integers(0, 1000), st.integers(4, 40), st.integers(4, 40))
def test_a_random_crystal_is_inside_the_grid(seed, columns, rows):
    grid = Grid(columns, rows)
    sample = random_sample(grid, seed)
    assert sample == random_sample(grid, seed)
    (x, y), (width, height) = sample.centre, sample.crystal.size
    assert width / 2 <= x <= columns - width / 2
    assert height / 2 <= y <= rows - height / 2
    assert sample.loop is not None
    assert sample.loop.thickness(grid)[int(y), int(x)] > 0


def test_a_line_scan_has_a_crystal_too():
    for grid in (Grid(19, 1), Grid(1, 30), Grid(1, 1)):
        assert random_sample(grid, 3).crystal.thickness(grid).max() > 0.3
