"""The nine numbers of an image, from the resolution and the intensity of its spots.

Sources: `d_min_distl_method_1` and `_2` and their noisiness, Zhang, Sauter, van den Bedem, Snell & Deacon
(2006), J. Appl. Cryst. 39, 112-119; all of them as DIALS computes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]

UNKNOWN = -1.0
"""What a field of resolution or noisiness says when it cannot be determined."""

_FEWEST_SPOTS = 10
"""With this many spots outside ice rings, or fewer, no resolution is estimated."""


@dataclass(frozen=True, slots=True)
class ImageAnalysis:
    """The result of per-image analysis.

    Attributes:
        n_spots_total: Spots inside the resolution limits.
        n_spots_no_ice: Those of them not in an ice ring.
        n_spots_4A: Those at lower resolution than 4 Å, ice included.
        total_intensity: Sum of the raw counts of the spots not in an ice ring.
        d_min_distl_method_1, d_min_distl_method_2, estimated_d_min: Three estimates of the resolution limit
            in Å, or -1.
        noisiness_method_1, noisiness_method_2: How far from a smooth fall-off the two `distl` methods found
            the spots, from 0 (smooth) to 1, or -1.
    """

    n_spots_total: int
    n_spots_no_ice: int
    n_spots_4A: int  # noqa: N815 -- the name the result has in messages and databases
    total_intensity: float
    d_min_distl_method_1: float = UNKNOWN
    d_min_distl_method_2: float = UNKNOWN
    estimated_d_min: float = UNKNOWN
    noisiness_method_1: float = UNKNOWN
    noisiness_method_2: float = UNKNOWN

    def as_dict(self) -> dict[str, int | float]:
        """The nine fields by name."""
        return asdict(self)


def image_statistics(d_star_sq: Reals, intensity: Reals, ice: Flags) -> ImageAnalysis:
    """The nine numbers of the spots of an image.

    Args:
        d_star_sq: 1/d² of the spots, Å⁻², all greater than 0, shape (n,).
        intensity: Their sums of raw counts, shape (n,).
        ice: Which of them lie in ice rings, shape (n,).
    """
    d = 1 / np.sqrt(d_star_sq)
    counts = ImageAnalysis(
        n_spots_total=len(d),
        n_spots_no_ice=int(np.count_nonzero(~ice)),
        n_spots_4A=int(np.count_nonzero(d > 4)),
        total_intensity=float(intensity[~ice].sum()),
    )
    if counts.n_spots_no_ice <= _FEWEST_SPOTS:
        return counts
    method_1, noise_1 = distl_method_1(d[intensity > 0])
    method_2, noise_2 = distl_method_2(d[intensity > 0])
    return ImageAnalysis(
        counts.n_spots_total,
        counts.n_spots_no_ice,
        counts.n_spots_4A,
        counts.total_intensity,
        method_1,
        method_2,
        estimated_resolution(d_star_sq, intensity, ice),
        noise_1,
        noise_2,
    )


def estimated_resolution(d_star_sq: Reals, intensity: Reals, ice: Flags) -> float:
    """The d spacing in Å of the finest spot below a line along the strongest spots of resolution shells.

    -1 if there is no such spot or no such line.
    """
    positive = intensity > 0
    d_star_sq, intensity, ice = d_star_sq[positive], intensity[positive], ice[positive]
    log_i_over_sigma = np.log(intensity / np.sqrt(intensity))
    outlier = np.zeros(len(d_star_sq), np.bool_)
    weak: list[int] = []
    strong: list[int] = []
    for shell in _shells_of_equal_number(1 / np.sqrt(d_star_sq)):
        members = np.flatnonzero(shell & ~ice)
        if len(members) == 0:
            continue
        outlier[members] = wilson_outliers(intensity[members])
        members = members[~outlier[members]]
        ranked = members[np.argsort(log_i_over_sigma[members], kind="stable")]
        weak.append(ranked[int(0.1 * len(ranked))])
        strong.append(ranked[int(0.9 * len(ranked))])
    # The pairing across is that of DIALS: the abscissa of a line is that of the other line's spots.
    slope, intercept = _line(d_star_sq[weak], log_i_over_sigma[strong])
    other_slope, _ = _line(d_star_sq[strong], log_i_over_sigma[weak])
    if slope == other_slope:
        return UNKNOWN
    below = (log_i_over_sigma - intercept) - slope * d_star_sq < 0
    inside = below & ~outlier & ~ice
    return float(1 / np.sqrt(d_star_sq[inside].max())) if inside.any() else UNKNOWN


def wilson_outliers(intensity: Reals, probability: float = 0.01) -> Flags:
    """Which intensities are too strong for Wilson's distribution of acentric reflections."""
    limit = math.sqrt(-math.log(probability))
    outlier = np.zeros(len(intensity), np.bool_)
    while True:
        normalised = np.sqrt(intensity) / math.sqrt(intensity[~outlier].mean())
        found = ~outlier & (normalised >= limit)
        if not found.any():
            return outlier
        outlier |= found


def distl_method_1(d: Reals) -> tuple[float, float]:
    """Resolution limit (Å) where 1/d³ against the rank of the spot turns up, and how noisy that curve is."""
    step = 2
    while len(d) / step > 40:
        step += 1
    ordered = np.sort(d)[::-1][::step][: len(d) // step]
    y = 1 / ordered**3
    slopes = (y[1:] - y[0]) / np.arange(1, len(y))
    if len(slopes) <= 3:
        return UNKNOWN, UNKNOWN
    last = int(np.argmax(slopes[3:])) + 4
    gaps = _distances_to_chord(y[:last], y[last])
    spread = float(np.std(gaps, ddof=1))
    furthest = int(np.argmax(gaps))
    close = np.flatnonzero(gaps > gaps[furthest] - 0.5 * spread)
    turn = int(close[-1]) if len(close) else furthest
    return float(ordered[turn]), _fraction_of_pairs(slopes, lambda earlier, later: earlier >= later)


def distl_method_2(d: Reals) -> tuple[float, float]:
    """Resolution limit (Å) where equal volumes of reciprocal space become empty, and how noisy that is."""
    distinct = np.unique(d)[::-1]
    if len(distinct) < 2:
        return UNKNOWN, UNKNOWN
    few = math.ceil(min(max(25, 0.05 * len(distinct)), 0.25 * len(distinct)))
    first, later, last = (float(1 / distinct[i]) ** 3 for i in (0, few, -1))
    n_shells = min(max(math.ceil((last - first) / (later - first)), 20), 40)
    step = (last - first) / n_shells
    edges = [1 / (first + i * step) ** (1 / 3) for i in range(n_shells + 1)]
    counts = np.array([np.count_nonzero((d >= low) & (d < high)) for high, low in pairwise(edges)])
    sparse = counts < 0.15 * counts[:2].mean()
    empty = np.flatnonzero(sparse[:-1] & sparse[1:])
    chosen = int(empty[0]) if len(empty) else n_shells - 2
    return edges[chosen + 1], _fraction_of_pairs(counts, lambda earlier, later: earlier <= later)


def _shells_of_equal_number(d: Reals) -> list[Flags]:
    """Members of each shell, low resolution first; the very first spot is in none."""
    n_shells = min(max(len(d) // 20, 5), 20)
    each = len(d) / n_shells
    ordered = np.sort(d)[::-1]
    edges = [ordered[0], *(ordered[int((i + 1) * each + 0.5) - 1] for i in range(n_shells))]
    return [(d >= low) & (d < high) for high, low in pairwise(edges)]


def _line(x: Reals, y: Reals) -> tuple[float, float]:
    """Slope and intercept of the least-squares line; a level one where the points do not define it."""
    if len(x) < 2 or np.ptp(x) == 0:
        return 0.0, 0.0
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx * dy).sum() / (dx * dx).sum())
    return slope, float(y.mean() - slope * x.mean())


def _distances_to_chord(y: Reals, end: float) -> Reals:
    """Distances of the points (i, y_i) to the straight line from the first of them to (len(y), end)."""
    run, rise = len(y), end - y[0]
    return np.abs(rise * np.arange(len(y)) - run * (y - y[0])) / math.hypot(run, rise)


def _fraction_of_pairs(values: NDArray[Any], holds: Callable[[NDArray[Any], NDArray[Any]], Flags]) -> float:
    """Of all pairs of an earlier and a later value, the fraction for which a condition holds."""
    earlier, later = np.triu_indices(len(values), 1)
    return float(np.count_nonzero(holds(values[earlier], values[later])) / len(earlier))
