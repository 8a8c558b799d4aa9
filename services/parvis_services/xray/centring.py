"""Where the crystal is: X-ray centring from the number of spots on each image of a grid scan.

Counts that are NaN belong to images nobody has seen. Positions in the results are in grid boxes: box ``i``
spans ``i`` to ``i + 1``, so its middle is ``i + 0.5``.

The arithmetic is that of Diamond's X-ray centring service: in two dimensions the largest region above half of
the maximum; in three, regions of the outer product of two perpendicular scans at each position along the
rotation axis. Field names are those the readers of its results know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from parvis_services.xray.grid import Grid

NO_GOOD_IMAGES = "No good images found"
HALF_MAXIMUM = 0.5


@dataclass(frozen=True)
class Centre2D:
    """The centre found by one grid scan.

    Pairs are ``(x, y)`` except in ``best_region``, whose cells are ``(row, column)``. ``max_count`` is the
    largest count of the whole grid; ``max_voxel`` and ``total_count`` belong to the region.
    """

    steps: tuple[int, int]
    box_size_px: tuple[float, float]
    snapshot_offset: tuple[float, float]
    status: str = "fail"
    message: str = NO_GOOD_IMAGES
    centre_x: float | None = None
    centre_y: float | None = None
    centre_x_box: float | None = None
    centre_y_box: float | None = None
    best_image: int | None = None
    reflections_in_best_image: int | None = None
    best_region: list[tuple[int, int]] | None = None
    centre_of_mass: tuple[float, float] | None = None
    max_voxel: tuple[int, int] | None = None
    max_count: float | None = None
    n_voxels: int | None = None
    total_count: float | None = None
    sample_id: int | None = None


@dataclass(frozen=True)
class Centre3D:
    """One diffracting region found by two perpendicular grid scans.

    Triples are ``(x, y, z)``: x along the rotation axis, y across it in the first scan, z across it in the
    second. Counts are products of the counts of both. ``bounding_box`` is ``(low, high)``, without ``high``.
    """

    centre_of_mass: tuple[float, float, float]
    max_voxel: tuple[int, int, int]
    max_count: float
    n_voxels: int
    total_count: float
    bounding_box: tuple[tuple[int, int, int], tuple[int, int, int]]
    sample_id: int | None = None


@dataclass(frozen=True)
class Wells:
    """The samples along a multi-sample pin, and where along x each may be.

    Args:
        limits: for each well, from the pin's tip, its ``(low, high)`` in grid boxes; a point belongs to the
            first well with ``low <= x < high``.
        sample_ids: the sample of each well, by its number (from 1).
    """

    limits: Sequence[tuple[float, float]]
    sample_ids: Mapping[int, int]

    def sample_at(self, x: float) -> int | None:
        """The sample at ``x`` grid boxes, or None between the wells and in an empty one."""
        for number, (low, high) in enumerate(self.limits, start=1):
            if low <= x < high:
                return self.sample_ids.get(number)
        return None


@dataclass(frozen=True)
class Multipin:
    """A pin with several wells: how many, how far apart (um), and where the middle of the first is (um).

    Distances are taken along x from the tip of the pin, where the grid scan of such a pin begins.
    """

    wells: int
    pitch: float
    offset: float

    def limits(self, box_size: float) -> list[tuple[float, float]]:
        """Low and high x of each well in boxes of ``box_size`` um, which must be positive (ValueError)."""
        if not box_size > 0:
            raise ValueError(f"grid boxes must have a positive size, not {box_size} um")
        middles = [self.offset + well * self.pitch for well in range(self.wells)]
        half = self.pitch / 2
        return [((middle - half) / box_size, (middle + half) / box_size) for middle in middles]


_MULTIPIN = re.compile(r"multipin_(\d{1,3})x(\d{1,6}(?:\.\d{1,6})?)\+(\d{1,6}(?:\.\d{1,6})?)", re.ASCII)


def multipin(loop_type: str | None) -> Multipin | None:
    """The pin a loop type such as ``multipin_6x50+9`` names (wells x pitch + offset); None for any other."""
    match = _MULTIPIN.fullmatch(loop_type or "")
    if not match or int(match[1]) == 0 or float(match[2]) == 0:
        return None
    return Multipin(wells=int(match[1]), pitch=float(match[2]), offset=float(match[3]))


def box_size_px(
    dx_mm: float, dy_mm: float, microns_per_pixel_x: float, microns_per_pixel_y: float
) -> tuple[float, float]:
    """Size ``(x, y)`` of a grid box in pixels of the snapshot, whose scale is in um.

    Raises:
        ValueError: a scale is zero or negative.
    """
    if not (microns_per_pixel_x > 0 and microns_per_pixel_y > 0):
        raise ValueError(
            f"microns per pixel must be positive, not {microns_per_pixel_x} and {microns_per_pixel_y}"
        )
    return 1000 * dx_mm / microns_per_pixel_x, 1000 * dy_mm / microns_per_pixel_y


def label_regions(mask: ArrayLike) -> list[NDArray[np.intp]]:
    """The connected regions of a mask of any dimension; cells that share an edge or a corner touch.

    Returns:
        for each region, in the order of its first cell, an array ``[cell, axis]`` of indices in raster order.

    Cells are joined by hooking the larger of two neighbouring roots to the smaller and halving paths
    (Shiloach & Vishkin, J. Algorithms 3, 57, 1982), which takes a logarithmic number of passes.
    """
    inside = np.asarray(mask, dtype=bool)
    cells = np.argwhere(inside)
    if not len(cells):
        return []
    ends = _touching_pairs(inside)
    root = np.arange(len(cells))
    while True:
        first, second = root[ends[0]], root[ends[1]]
        if np.array_equal(first, second):
            break
        np.minimum.at(root, np.maximum(first, second), np.minimum(first, second))
        while not np.array_equal(root, shorter := root[root]):
            root = shorter
    # A root is the first cell of its region, so ordering by root orders regions by first cell.
    order = np.argsort(root, kind="stable")
    starts = np.flatnonzero(np.diff(root[order])) + 1
    return np.split(cells[order], starts)


def _touching_pairs(inside: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers (in raster order) of the cells at the two ends of each contact."""
    number = np.full(inside.shape, -1, dtype=np.intp)
    number[inside] = np.arange(np.count_nonzero(inside))
    firsts: list[NDArray[np.intp]] = []
    seconds: list[NDArray[np.intp]] = []
    steps = [step for step in product((-1, 0, 1), repeat=inside.ndim) if step > (0,) * inside.ndim]
    for step in steps:
        here = number[
            tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, inside.shape, strict=True))
        ]
        there = number[
            tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(step, inside.shape, strict=True))
        ]
        both = (here >= 0) & (there >= 0)
        firsts.append(here[both])
        seconds.append(there[both])
    return np.concatenate(firsts), np.concatenate(seconds)


def centre_2d(
    grid: Grid,
    counts: ArrayLike,
    box_size_px: tuple[float, float],
    snapshot_offset: tuple[float, float],
    *,
    sample_id: int | None = None,
    wells: Wells | None = None,
) -> Centre2D:
    """Find the centre of the crystal in one grid scan.

    The centre is the unweighted centre of mass of the largest region of boxes with at least half of the
    largest count. With no spots at all the result has status ``fail``.

    Args:
        grid: the scan's boxes and their order.
        counts: spots on each image in acquisition order, NaN where unknown; shape ``(grid.size,)``.
        box_size_px: size (x, y) of a box in pixels of the snapshot.
        snapshot_offset: pixel (x, y) of the snapshot at the grid's top left corner.
        sample_id: whose crystal it is, unless ``wells`` says better.
        wells: the samples along a multi-sample pin.

    Raises:
        ValueError: there is not one count for each box, or a count is infinite or negative.
    """
    spots = _checked(counts)
    failed = Centre2D((grid.steps_x, grid.steps_y), box_size_px, snapshot_offset, sample_id=sample_id)
    laid_out = grid.arrange(spots)
    if not spots.max(initial=0) > 0:
        return failed
    best = int(spots.argmax())
    region = max(label_regions(laid_out >= HALF_MAXIMUM * spots[best]), key=len)
    inside = laid_out[tuple(region.T)]
    y_box, x_box = (float(middle) + 0.5 for middle in region.mean(axis=0))
    row, column = region[int(inside.argmax())].tolist()
    return replace(
        failed,
        status="ok",
        message="ok",
        centre_x=snapshot_offset[0] + x_box * box_size_px[0],
        centre_y=snapshot_offset[1] + y_box * box_size_px[1],
        centre_x_box=x_box,
        centre_y_box=y_box,
        best_image=best + 1,
        reflections_in_best_image=int(spots[best]),
        best_region=[(int(r), int(c)) for r, c in region],
        centre_of_mass=(x_box, y_box),
        max_voxel=(column, row),
        max_count=float(spots[best]),
        n_voxels=len(region),
        total_count=float(inside.sum()),
        sample_id=_sample(x_box, sample_id, wells),
    )


def centre_3d(
    first: ArrayLike,
    second: ArrayLike,
    *,
    threshold: float = 0.25,
    threshold_absolute: float = 0,
    sample_id: int | None = None,
    wells: Wells | None = None,
) -> list[Centre3D]:
    """Find the diffracting regions in two perpendicular grid scans of the same x range.

    Args:
        first: counts ``[y, x]`` of one scan, as `Grid.arrange` gives them, NaN where unknown.
        second: counts ``[z, x]`` of the perpendicular scan.
        threshold: products below this fraction of the largest are not part of a region.
        threshold_absolute: counts below this are taken as none, in each scan, before they are multiplied.
        sample_id: whose crystals they are, unless ``wells`` says better.
        wells: the samples along a multi-sample pin.

    Returns:
        the regions, the one with the largest sum of products first; none if nothing diffracts in both scans.

    Raises:
        ValueError: the scans are not two-dimensional or differ in x, or a count is infinite or negative.
    """
    across_y, across_z = _checked(first), _checked(second)
    if across_y.ndim != 2 or across_z.ndim != 2 or across_y.shape[1] != across_z.shape[1]:
        raise ValueError(
            "two perpendicular grid scans must have the same number of columns, "
            f"not the shapes {across_y.shape} and {across_z.shape}"
        )
    across_y[across_y < threshold_absolute] = 0
    across_z[across_z < threshold_absolute] = 0
    volume = across_y.T[:, :, np.newaxis] * across_z.T[:, np.newaxis, :]
    largest = volume.max(initial=0)
    if not largest > 0:
        return []
    regions = label_regions((volume >= threshold * largest) & (volume > 0))
    found = [_region_3d(cells, volume[tuple(cells.T)], sample_id, wells) for cells in regions]
    return sorted(found, key=lambda region: region.total_count, reverse=True)


def _region_3d(
    cells: NDArray[np.intp], values: NDArray[np.float64], sample_id: int | None, wells: Wells | None
) -> Centre3D:
    x, y, z = (float(middle) + 0.5 for middle in np.average(cells, axis=0, weights=values))
    peak = int(values.argmax())
    return Centre3D(
        centre_of_mass=(x, y, z),
        max_voxel=_triple(cells[peak]),
        max_count=float(values[peak]),
        n_voxels=len(cells),
        total_count=float(values.sum()),
        bounding_box=(_triple(cells.min(axis=0)), _triple(cells.max(axis=0) + 1)),
        sample_id=_sample(x, sample_id, wells),
    )


def _triple(cell: NDArray[np.intp]) -> tuple[int, int, int]:
    x, y, z = cell.tolist()
    return x, y, z


def _sample(x: float, sample_id: int | None, wells: Wells | None) -> int | None:
    tagged = wells.sample_at(x) if wells else None
    return sample_id if tagged is None else tagged


def _checked(counts: ArrayLike) -> NDArray[np.float64]:
    """A copy of the counts as floats, with none where they are unknown."""
    values = np.array(counts, dtype=np.float64)
    values[np.isnan(values)] = 0
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("spot counts must be finite and not negative")
    return values
