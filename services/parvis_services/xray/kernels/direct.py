"""The dispersion thresholds for any numbers: every pixel is tested exactly, a row at a time.

This is the way of floating-point images, trusted ranges that reach below 0, and boxes too large for the
screens. Sums run down the columns of a box first, then across, so that floating-point sums are those of the
oracle to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parvis_services.xray.kernels.jit import kernel, part
from parvis_services.xray.kernels.limits import (
    CALM,
    LIVELY,
    TOO_LARGE,
    UNUSABLE,
    extend,
    stands_out,
    varies,
)


@part
def _sum_columns(pixels: Any, limits: Any, at: int, counts: Any, sums: Any) -> None:
    """Number, sum and sum of squares of the columns of the boxes around the pixels of row `at`."""
    width = pixels.values.shape[1]
    inside = slice(limits.fast, limits.fast + width)
    m, x, y = counts[0, inside], sums[0, inside], sums[1, inside]
    m[:], x[:], y[:] = 0, 0, 0
    for row in range(max(at - limits.slow, 0), min(at + limits.slow + 1, len(pixels.values))):
        values, allowed = pixels.values[row], pixels.mask[row % len(pixels.mask)]
        for i in range(width):
            value = values[i]
            counted = (value >= pixels.low) & (value <= pixels.high) & (value < TOO_LARGE) & (allowed[i] != 0)
            number = x.dtype.type(value) if counted else x.dtype.type(0)
            m[i] += np.int64(counted)
            x[i] += number
            y[i] += number * number


@part
def _slide(columns: Any, width: int, totals: Any) -> None:
    """Sums of `width` neighbouring columns, from left to right."""
    totals[:] = 0
    for offset in range(width):
        for i in range(len(totals)):
            totals[i] += columns[i + offset]


@kernel
def _sum_boxes(pixels: Any, limits: Any, at: int, counts: Any, sums: Any) -> Any:
    """Number, sum and sum of squares of the boxes around the pixels of row `at`."""
    width, box = pixels.values.shape[1], 2 * limits.fast + 1
    _sum_columns(pixels, limits, at, counts, sums)
    _slide(counts[0], box, counts[1, :width])
    _slide(sums[0], box, sums[2, :width])
    _slide(sums[1], box, sums[3, :width])
    return counts[1], sums[2], sums[3]


@kernel
def strong(pixels: Any, limits: Any, counts: Any, sums: Any) -> Any:
    """Flat indices of the strong pixels of an image by the dispersion threshold.

    `counts` (int64) and `sums` (int64 for integers, else float64) are zeros: 2 and 4 rows, wider than the
    image by all but one column of a box.
    """
    rows, width = pixels.values.shape
    found = np.empty(width, np.int32)
    indices, n = np.empty(1024, np.int64), 0
    for at in range(rows):
        m, x, y = _sum_boxes(pixels, limits, at, counts, sums)
        allowed, kept = pixels.mask[at % len(pixels.mask)], 0
        for i in range(width):
            value = pixels.values[at, i]
            usable = value >= pixels.low and value <= pixels.high and allowed[i] != 0
            if (
                usable
                and varies(float(m[i]), float(x[i]), float(y[i]), limits)
                and stands_out(float(value), float(m[i]), float(x[i]), limits)
            ):
                found[kept] = i
                kept += 1
        indices, n = extend(indices, n, found[:kept], at * width)
    return indices[:n]


@kernel
def lively(pixels: Any, limits: Any, counts: Any, sums: Any) -> Any:
    """The state of each pixel of an image by the variance test; `counts` and `sums` as those of `strong`."""
    rows, width = pixels.values.shape
    state = np.empty((rows, width), np.uint8)
    for at in range(rows):
        m, x, y = _sum_boxes(pixels, limits, at, counts, sums)
        allowed = pixels.mask[at % len(pixels.mask)]
        for i in range(width):
            value = pixels.values[at, i]
            if not (value >= pixels.low and value <= pixels.high and allowed[i] != 0):
                state[at, i] = UNUSABLE
            elif varies(float(m[i]), float(x[i]), float(y[i]), limits):
                state[at, i] = LIVELY
            else:
                state[at, i] = CALM
    return state
