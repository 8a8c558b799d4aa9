"""The spots of one panel, or of several, as a structure of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Spots:
    """One entry a spot in every array; spots are in the order of their first pixel in raster order.

    Attributes:
        n_pixels: Strong pixels in the spot, int64, shape (n,).
        intensity: Sum of their raw counts, no background subtracted, float64, shape (n,).
        centroid_slow, centroid_fast: Count-weighted mean of pixel centres (index + 0.5), in pixels,
            float64, shape (n,).
        peak_slow, peak_fast: Index of the brightest pixel, the first of equals in raster order, int64,
            shape (n,). Its centre is at index + 0.5.
        bbox: slow_min, slow_max, fast_min, fast_max; minima included, maxima excluded; int64, shape (n, 4).
    """

    n_pixels: NDArray[np.int64]
    intensity: NDArray[np.float64]
    centroid_slow: NDArray[np.float64]
    centroid_fast: NDArray[np.float64]
    peak_slow: NDArray[np.int64]
    peak_fast: NDArray[np.int64]
    bbox: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_pixels)

    def select(self, wanted: NDArray[np.bool_] | NDArray[np.int64]) -> Spots:
        """The spots a boolean array, or an array of positions, asks for."""
        return Spots(*(getattr(self, column.name)[wanted] for column in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Spots]) -> Spots:
        """All spots of several panels (at least one), one panel after the other."""
        return cls(
            *(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls))
        )

    @classmethod
    def none(cls) -> Spots:
        """No spots at all."""
        whole, real = np.zeros(0, np.int64), np.zeros(0, np.float64)
        return cls(whole, real, real, real, whole, whole, np.zeros((0, 4), np.int64))
