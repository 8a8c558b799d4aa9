"""X-ray centring arithmetic against known results and against scipy."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parvis_services.xray.centring import (
    NO_GOOD_IMAGES,
    Multipin,
    Wells,
    box_size_px,
    centre_2d,
    centre_3d,
    label_regions,
    multipin,
)
from parvis_services.xray.grid import Grid

UNIT = (1.0, 1.0)
ORIGIN = (0.0, 0.0)
PEAK = [0, 1, 2, 3, 4, 5, 4, 3, 2, 1]


def test_line_scan_has_the_known_centre():
    size = box_size_px(0.02, 0.005, 0.806, 0.806)
    found = centre_2d(Grid(1, 10, True, "vertical"), PEAK, size, (407.593, 99.861))
    assert json.loads(json.dumps(asdict(found))) == {
        "steps": [1, 10],
        "box_size_px": pytest.approx([24.813895781637715, 6.203473945409429]),
        "snapshot_offset": [407.593, 99.861],
        "status": "ok",
        "message": "ok",
        "centre_x": pytest.approx(419.9999478908189),
        "centre_y": pytest.approx(133.98010669975187),
        "centre_x_box": 0.5,
        "centre_y_box": 5.5,
        "best_image": 6,
        "reflections_in_best_image": 5,
        "best_region": [[3, 0], [4, 0], [5, 0], [6, 0], [7, 0]],
        "centre_of_mass": [0.5, 5.5],
        "max_voxel": [0, 5],
        "max_count": 5.0,
        "n_voxels": 5,
        "total_count": 19.0,
        "sample_id": None,
    }


def test_no_spots_is_a_failure_with_its_reason():
    for counts in (np.zeros(6), np.full(6, np.nan)):
        found = centre_2d(Grid(2, 3), counts, UNIT, ORIGIN, sample_id=7)
        assert (found.status, found.message) == ("fail", NO_GOOD_IMAGES)
        assert (found.centre_x, found.best_image, found.best_region) == (None, None, None)
        assert found.sample_id == 7


@pytest.mark.parametrize("count", [1, 5])
def test_uniform_grid_has_its_centre_in_the_middle(count):
    found = centre_2d(Grid(2, 3), np.full(6, count), UNIT, ORIGIN)
    assert found.centre_of_mass == (1.0, 1.5)
    assert found.n_voxels == 6


def test_unknown_images_do_not_count():
    counts = [np.nan, 8, 9, np.nan]
    found = centre_2d(Grid(2, 2), counts, UNIT, ORIGIN)
    assert (found.best_image, found.total_count) == (3, 17)
    assert found.best_region == [(0, 1), (1, 0)]


def test_the_largest_region_wins_over_the_brightest():
    grid = Grid(6, 3)
    counts = np.array([[9, 0, 0, 5, 5, 0], [0, 0, 0, 0, 0, 5], [0, 0, 0, 0, 0, 0]])
    found = centre_2d(grid, counts.ravel(), (2.0, 3.0), (10.0, 20.0))
    assert found.best_image == 1
    assert found.max_count == 9
    assert found.best_region == [(0, 3), (0, 4), (1, 5)]
    assert found.max_voxel == (3, 0)
    assert found.centre_x == pytest.approx(10 + 2 * 4.5)
    assert found.centre_y == pytest.approx(20 + 3 * (1 / 3 + 0.5))


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 12)),
    st.booleans(),
    st.sampled_from(["horizontal", "vertical"]),
)
def test_any_grid_agrees_with_scipy(counts, snaked, orientation):
    grid = Grid(counts.shape[1], counts.shape[0], snaked, orientation)
    acquired = np.empty(counts.size)
    acquired[grid.order().ravel()] = counts.ravel()
    found = centre_2d(grid, acquired, UNIT, ORIGIN)
    if not counts.any():
        assert found.status == "fail"
        return
    labels, _ = scipy.ndimage.label(counts >= 0.5 * counts.max(), np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    largest = 1 + int(np.bincount(labels.ravel())[1:].argmax())
    y, x = np.argwhere(labels == largest).mean(axis=0)
    assert found.centre_of_mass is not None
    np.testing.assert_allclose(np.subtract(found.centre_of_mass, 0.5), (x, y))
    assert found.total_count == counts[labels == largest].sum()
    assert found.best_image is not None
    assert acquired[found.best_image - 1] == counts.max()


@settings(max_examples=200)
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=1, max_dims=3, max_side=8)))
def test_regions_are_those_of_scipy(mask):
    labels, number = scipy.ndimage.label(mask, np.ones((3,) * mask.ndim))  # pyright: ignore[reportGeneralTypeIssues]
    regions = label_regions(mask)
    assert len(regions) == number
    expected = {tuple(map(tuple, np.argwhere(labels == label).tolist())) for label in range(1, number + 1)}
    assert {tuple(map(tuple, region.tolist())) for region in regions} == expected


def test_a_long_winding_region_is_one():
    spiral = np.zeros((201, 201), dtype=bool)
    spiral[::4] = True
    spiral[2::4] = True
    spiral[1::4, -1] = True
    spiral[3::4, 0] = True
    assert [len(region) for region in label_regions(spiral)] == [spiral.sum()]


def spots_in(grid: Grid, runs: dict[int, list[int]]) -> np.ndarray:
    """A scan with these runs of counts, each by its first image from 0, and no spots elsewhere."""
    counts = np.zeros(grid.size)
    for start, run in runs.items():
        counts[start : start + len(run)] = run
    return grid.arrange(counts)


def test_perpendicular_scans_have_the_known_centre():
    """A lysozyme crystal scanned twice on beamline I03, and the centre Diamond's service found."""
    first = spots_in(
        Grid(25, 13, snaked=True),
        {105: [5, 5, 3], 141: [4, 8, 9, 9, 3], 154: [1, 8, 9, 11, 4], 191: [1, 4, 5, 2]},
    )
    second = spots_in(
        Grid(25, 14, snaked=True),
        {155: [1, 1, 3], 191: [3, 8, 7, 4], 204: [1, 9, 14, 8, 1], 242: [9, 12, 8]},
    )
    found = centre_3d(first, second, threshold=0.5, sample_id=3)
    assert json.loads(json.dumps([asdict(region) for region in found])) == [
        {
            "centre_of_mass": pytest.approx([6.624165554072096, 6.019359145527369, 8.663551401869158]),
            "max_voxel": [6, 5, 8],
            "max_count": 126,
            "n_voxels": 18,
            "total_count": 1498,
            "bounding_box": [[5, 4, 7], [8, 8, 10]],
            "sample_id": 3,
        }
    ]


@given(
    hnp.arrays(np.int64, (4, 6), elements=st.integers(0, 9)),
    hnp.arrays(np.int64, (5, 6), elements=st.integers(0, 9)),
    st.sampled_from([0.05, 0.25, 0.5]),
    st.integers(0, 5),
)
def test_any_two_scans_agree_with_scipy(first, second, threshold, least):
    found = centre_3d(first, second, threshold=threshold, threshold_absolute=least)
    y, z = np.where(first < least, 0, first), np.where(second < least, 0, second)
    volume = np.einsum("yx,zx->xyz", y, z)
    kept = np.where(volume >= threshold * volume.max(), volume, 0)
    labels, number = scipy.ndimage.label(kept, np.ones((3, 3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    index = range(1, number + 1)
    sums = scipy.ndimage.sum_labels(kept, labels, index)
    middles = scipy.ndimage.center_of_mass(kept, labels, index)
    mine = {int(labels[region.max_voxel]): region for region in found}
    assert sorted(mine) == list(index)
    for label in index:
        region = mine[label]
        assert region.total_count == sums[label - 1]
        np.testing.assert_allclose(np.subtract(region.centre_of_mass, 0.5), middles[label - 1])
        assert region.max_count == kept[labels == label].max() == kept[region.max_voxel]
    totals = [region.total_count for region in found]
    assert totals == sorted(totals, reverse=True)


def test_nothing_in_one_scan_is_no_crystal():
    assert centre_3d(np.ones((3, 4)), np.zeros((2, 4))) == []
    assert centre_3d(np.ones((3, 4)), np.full((2, 4), np.nan)) == []


def test_each_region_gets_the_sample_of_its_well():
    along_y = np.array([[0, 3, 3, 0, 0, 20, 10, 0, 0, 1, 0, 1]])
    along_z = np.array([[0, 3, 3, 0, 0, 10, 10, 0, 0, 1, 1, 1]])
    wells = Wells([(0, 4), (4, 7), (8, 11)], {1: 501, 2: 502, 3: 503})
    found = centre_3d(along_y, along_z, threshold=0.02, threshold_absolute=3, sample_id=501, wells=wells)
    assert [(r.sample_id, r.total_count, r.bounding_box) for r in found] == [
        (502, 300, ((5, 0, 0), (7, 1, 1))),
        (501, 18, ((1, 0, 0), (3, 1, 1))),
    ]


def test_a_flat_scan_is_tagged_along_its_rows():
    wells = Wells([(0, 3), (3, 6)], {1: 501, 2: 502})
    counts = np.zeros((9, 6))
    counts[1, 4] = 5
    found = centre_2d(Grid(6, 9), counts.ravel(), UNIT, ORIGIN, sample_id=1, wells=wells)
    assert found.sample_id == 502


def test_between_wells_and_in_empty_ones_the_scan_decides():
    wells = Wells([(0, 2), (4, 6)], {1: 501})
    for column in (3, 5):
        counts = np.eye(1, 8, column)
        assert centre_2d(Grid(8, 1), counts.ravel(), UNIT, ORIGIN, sample_id=77, wells=wells).sample_id == 77


@pytest.mark.parametrize(
    ("loop_type", "pin"),
    [
        ("multipin_6x50+9", Multipin(6, 50, 9)),
        ("multipin_6x25.8+8.6", Multipin(6, 25.8, 8.6)),
        ("single", None),
        ("multipin_6x50", None),
        ("multipin_6x50+9; drop", None),
        ("multipin_0x50+9", None),
        ("multipin_6x0+9", None),
        ("multipin_" + "9" * 400 + "x1+1", None),
        (None, None),
    ],
)
def test_loop_types_name_pins(loop_type, pin):
    assert multipin(loop_type) == pin


def test_wells_lie_around_their_middles():
    assert Multipin(wells=3, pitch=50, offset=30).limits(box_size=10) == [
        (0.5, 5.5),
        (5.5, 10.5),
        (10.5, 15.5),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: centre_2d(Grid(2, 2), [1, 2, 3], UNIT, ORIGIN),
        lambda: centre_2d(Grid(2, 2), [1, 2, 3, -1], UNIT, ORIGIN),
        lambda: centre_2d(Grid(2, 2), [1, 2, 3, np.inf], UNIT, ORIGIN),
        lambda: centre_3d(np.ones((3, 4)), np.ones((3, 5))),
        lambda: centre_3d(np.ones(3), np.ones(3)),
        lambda: box_size_px(0.02, 0.02, 0, 1),
        lambda: Multipin(6, 50, 9).limits(0),
    ],
)
def test_bad_input_is_refused(wrong):
    with pytest.raises(ValueError, match=r"counts|values|columns|positive"):
        wrong()
