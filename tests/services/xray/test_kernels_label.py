"""The compiled labelling groups strong pixels as the plain numpy one does, and as scipy does."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from parvis_services.xray import oracle
from parvis_services.xray.kernels import label
from parvis_services.xray.spots import Spots


def group(strong: NDArray[np.bool_], values: NDArray[Any]) -> Spots:
    """The spots of an image, which must be those of the oracle in every column."""
    indices = np.flatnonzero(strong)
    shape = (strong.shape[0], strong.shape[1])
    found = label.spots(indices, values.ravel()[indices], shape)
    expected = oracle.spots(indices, values.ravel()[indices], shape)
    for column in fields(Spots):
        ours, theirs = getattr(found, column.name), getattr(expected, column.name)
        assert ours.dtype == theirs.dtype, column.name
        assert np.array_equal(ours, theirs), column.name
    return found


@settings(deadline=None, max_examples=200)
@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, max_side=25))
def test_any_pixels(data: st.DataObject, shape: tuple[int, int]) -> None:
    strong = data.draw(hnp.arrays(np.bool_, shape))
    values = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(-3, 12), fill=st.just(1)))
    group(strong, values)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.6, 0.95])
def test_large_tangled_groups_are_those_of_scipy(share: float) -> None:
    rng = np.random.default_rng(4)
    strong = rng.random((300, 217)) < share
    found = group(strong, rng.poisson(30, strong.shape))
    number = np.empty(strong.shape, np.int32)
    n = ndimage.label(strong, output=number)
    assert len(found) == n
    assert sorted(found.n_pixels.tolist()) == sorted(np.bincount(number.ravel())[1:].tolist())


def test_a_spiral_is_one_spot_and_a_chessboard_none_of_more_than_a_pixel() -> None:
    spiral = np.array([[c == "#" for c in line] for line in ("#####", "....#", "###.#", "#...#", "#####")])
    assert group(spiral, np.ones(spiral.shape)).n_pixels.tolist() == [np.count_nonzero(spiral)]
    chessboard = np.indices((8, 8)).sum(axis=0) % 2 == 0
    assert group(chessboard, np.ones((8, 8))).n_pixels.tolist() == [1] * 32


def test_the_end_of_a_row_does_not_touch_the_beginning_of_the_next() -> None:
    strong = np.zeros((3, 4), np.bool_)
    strong[0, 3] = strong[1, 0] = True
    assert len(group(strong, np.ones((3, 4)))) == 2


def test_no_pixels_are_no_spots() -> None:
    assert len(group(np.zeros((5, 5), np.bool_), np.zeros((5, 5)))) == 0


@pytest.mark.parametrize(
    ("indices", "values", "message"),
    [
        ([1, 2], [5], "2 strong pixels cannot have 1 counts"),
        ([3, 2], [5, 5], "must ascend"),
        ([2, 2], [5, 5], "must ascend"),
        ([-1, 2], [5, 5], "outside an image of 4 x 5 pixels"),
        ([2, 20], [5, 5], "outside an image of 4 x 5 pixels"),
    ],
)
def test_a_list_that_cannot_be_is_refused(indices: list[int], values: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label.spots(np.array(indices), np.array(values), (4, 5))
