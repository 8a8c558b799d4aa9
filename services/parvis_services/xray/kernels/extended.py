"""The second half of the extended dispersion threshold: from the variance test to strong pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from parvis_services.xray.kernels.jit import kernel, part
from parvis_services.xray.kernels.limits import CALM, CORE, LIVELY, TOO_LARGE, extend


@kernel
def strong(pixels: Any, state: Any, limits: Any, zero: Any) -> Any:
    """Flat indices of the strong pixels, from the state of each; marks the core in `state`.

    `zero` has the type in which to add counts: int64 for integers, else float64.
    """
    image, (rows, width) = pixels.values, pixels.values.shape
    _mark_core(state, min(limits.slow, limits.fast) - 1)
    found = np.empty(width, np.int32)
    indices, n = np.empty(1024, np.int64), 0
    for at in range(rows):
        kept = 0
        for i in range(width):
            if state[at, i] == CORE and float(image[at, i]) > limits.threshold:
                m, x = _background(image, state, (at, i), limits, zero)
                mean = float(x) / float(m) if m >= 2 else 0.0
                if x >= 0 and float(image[at, i]) >= mean + limits.n_sigma_s * math.sqrt(limits.gain * mean):
                    found[kept] = i
                    kept += 1
        indices, n = extend(indices, n, found[:kept], at * width)
    return indices[:n]


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
def _background(image: Any, state: Any, place: tuple[int, int], limits: Any, zero: Any) -> Any:
    """Number and sum of the usable pixels that are not core in a box two pixels larger each way."""
    (rows, width), (at, column) = image.shape, place
    first, last = max(at - limits.slow - 2, 0), min(at + limits.slow + 3, rows)
    m, x = 0, zero
    for i in range(max(column - limits.fast - 2, 0), min(column + limits.fast + 3, width)):
        in_column = zero
        for row in range(first, last):
            counted = ((state[row, i] & (CALM | LIVELY)) != 0) & (image[row, i] < TOO_LARGE)
            m += np.int64(counted)
            in_column += image[row, i] if counted else zero
        x += in_column
    return m, x
