"""The second half of the extended dispersion threshold: from the variance test to strong pixels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.kernels.jit import kernel, part
from parvis_services.xray.kernels.limits import CALM, CORE, LIVELY, TOO_LARGE, extend


class Columns(NamedTuple):
    """Sums of the background down the columns of the larger box, made where they are needed."""

    row: NDArray[np.int64]
    """The row they were last made for."""
    counts: NDArray[np.int64]
    sums: NDArray[Any]


@kernel
def strong(pixels: Any, state: Any, limits: Any, zero: Any) -> Any:
    """Flat indices of the strong pixels, from the state of each; marks the core in `state`.

    `zero` has the type in which to add counts: int64 for integers, else float64.
    """
    rows, width = pixels.values.shape
    _mark_core(state, min(limits.slow, limits.fast) - 1)
    columns = Columns(np.full(width, -1), np.zeros(width, np.int64), np.full(width, zero))
    found = np.empty(width, np.int32)
    indices, n = np.empty(1024, np.int64), 0
    for at in range(rows):
        kept = _test_row(pixels, state, at, columns, limits, zero, found)
        indices, n = extend(indices, n, found[:kept], at * width)
    return indices[:n]


@part
def _test_row(pixels: Any, state: Any, row: int, columns: Any, limits: Any, zero: Any, found: Any) -> Any:
    """Put the strong pixels of a row in `found`; gives how many they are."""
    values, kept = pixels.values[row], 0
    if not _has(state[row], CORE):
        return kept
    for i in range(len(values)):
        value = float(values[i])
        if state[row, i] == CORE and value > limits.threshold:
            m, x = _background(pixels.values, state, (row, i), columns, limits, zero)
            mean = float(x) / float(m) if m >= 2 else 0.0
            if x >= 0 and value >= mean + limits.n_sigma_s * math.sqrt(limits.gain * mean):
                found[kept] = i
                kept += 1
    return kept


@kernel
def _mark_core(state: Any, distance: int) -> None:
    """Turn lively pixels that have no calm one within a Chebyshev distance into core."""
    rows, width = state.shape
    calm_columns, calm_boxes = np.zeros(width + 2 * distance, np.uint8), np.zeros(width, np.uint8)
    for at in range(rows):
        if not _has(state[at], LIVELY):
            continue
        calm_columns[:] = 0
        for row in range(max(at - distance, 0), min(at + distance + 1, rows)):
            _or_into(calm_columns[distance : distance + width], state[row])
        calm_boxes[:] = 0
        for offset in range(2 * distance + 1):
            _or_into(calm_boxes, calm_columns[offset : offset + width])
        for i in range(width):
            core = (state[at, i] == LIVELY) & ((calm_boxes[i] & CALM) == 0)
            state[at, i] = np.uint8(CORE) if core else state[at, i]


@part
def _has(row: Any, wanted: int) -> bool:
    found = False
    for i in range(len(row)):
        found |= row[i] == np.uint8(wanted)
    return found


@part
def _or_into(target: Any, source: Any) -> None:
    for i in range(len(target)):
        target[i] |= source[i]


@part
def _background(image: Any, state: Any, place: tuple[int, int], columns: Any, limits: Any, zero: Any) -> Any:
    """Number and sum of the usable pixels that are not core in a box two pixels larger each way."""
    row, column = place
    m, x = 0, zero
    for i in range(max(column - limits.fast - 2, 0), min(column + limits.fast + 3, image.shape[1])):
        if columns.row[i] != row:
            columns.row[i] = row
            columns.counts[i], columns.sums[i] = _sum_column(image, state, row, i, limits.slow + 2, zero)
        m += columns.counts[i]
        x += columns.sums[i]
    return m, x


@part
def _sum_column(image: Any, state: Any, row: int, column: int, half: int, zero: Any) -> Any:
    m, x = 0, zero
    for near in range(max(row - half, 0), min(row + half + 1, len(image))):
        counted = ((state[near, column] & (CALM | LIVELY)) != 0) & (image[near, column] < TOO_LARGE)
        m += np.int64(counted)
        x += image[near, column] if counted else zero
    return m, x
