"""The order in which the boxes of a grid are exposed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis_services.xray.grid import Grid

grids = st.builds(
    Grid,
    steps_x=st.integers(1, 9),
    steps_y=st.integers(1, 9),
    snaked=st.booleans(),
    orientation=st.sampled_from(["horizontal", "vertical"]),
)


# Known arrays of six images on 2 columns and 3 rows, indexed [x, y]: the transpose of ours.
@pytest.mark.parametrize(
    ("orientation", "snaked", "by_x_and_y"),
    [
        ("horizontal", False, [[0, 2, 4], [1, 3, 5]]),
        ("horizontal", True, [[0, 3, 4], [1, 2, 5]]),
        ("vertical", False, [[0, 1, 2], [3, 4, 5]]),
        ("vertical", True, [[0, 1, 2], [5, 4, 3]]),
    ],
)
def test_six_images_lie_where_they_were_taken(orientation, snaked, by_x_and_y):
    arranged = Grid(2, 3, snaked, orientation).arrange(np.arange(6))
    assert arranged.T.tolist() == by_x_and_y


@given(grids)
def test_positions_images_and_arrays_agree(grid: Grid):
    images = grid.arrange(np.arange(1, grid.size + 1))
    assert images.shape == grid.shape
    for image in range(1, grid.size + 1):
        column, row = grid.position(image)
        assert images[row, column] == image
        assert grid.image(column, row) == image


@given(grids.filter(lambda grid: grid.snaked))
def test_a_snaked_grid_never_jumps(grid: Grid):
    places = np.array([grid.position(image) for image in range(1, grid.size + 1)])
    assert (np.abs(np.diff(places, axis=0)).sum(axis=1) == 1).all()


def test_arranging_keeps_the_type_and_unknown_values():
    arranged = Grid(2, 2, snaked=True).arrange([1.0, np.nan, 3.0, 4.0])
    np.testing.assert_array_equal(arranged, [[1, np.nan], [4, 3]])
    assert Grid(2, 1).arrange(np.array([1, 2], dtype=np.uint16)).dtype == np.uint16


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Grid(0, 3),
        lambda: Grid(3, -1),
        lambda: Grid(1_000_000, 1_000_000),
        lambda: Grid(2, 2, orientation="diagonal"),  # pyright: ignore[reportArgumentType]
        lambda: Grid(2, 2).arrange([1, 2, 3]),
        lambda: Grid(2, 2).position(0),
        lambda: Grid(2, 2).position(5),
        lambda: Grid(2, 2).image(2, 0),
        lambda: Grid(2, 2).image(0, -1),
    ],
)
def test_what_is_not_in_a_grid_is_refused(wrong):
    with pytest.raises(ValueError, match=r"grid|box"):
        wrong()
