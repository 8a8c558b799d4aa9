"""The dispersion thresholds for counts: a quick test that no strong pixel fails, then the exact one.

Let N pixels fit in a box. As m <= N, a strong pixel of p counts in a box of sum x satisfies
(N p - x)^2 > n_sigma_s^2 g N x and N p > x: one sum instead of three, and no square root. And as y <= M x,
where M is the largest count of the box, M must exceed g (1 + n_sigma_b sqrt(2 / (N - 1))). Both tests run
over whole rows at the speed of memory; the few pixels that pass are tested in 64-bit integers and doubles.
Rows stream through a ring that holds as many as the box is high; the sums of its columns are kept up to date.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.kernels.jit import (
    BOX_LANES,
    FLAGS,
    box_sums,
    fetch_ahead,
    kernel,
    lowest_bit,
    part,
    set_flags,
)
from parvis_services.xray.kernels.limits import (
    CALM,
    LIVELY,
    TOO_LARGE,
    UNUSABLE,
    Limits,
    extend,
    stands_out,
    varies,
)

LARGEST_BOX = 127
"""Pixels in the largest box whose sums, times its size, fit in 32 bits."""

_PADDING = 64
_FEW = 1 / 64  # of the pixels of a row: so many are tested exactly sooner than the whole row is screened
_PIECE = 512  # columns taken at once
_AHEAD = 4096  # bytes
_LOOK_EVERY = 16  # rows: how often to see whether they have become few
_SLACK = 1e-5  # far more than the rounding of the single-precision screens, far less than matters for speed


class Screen(NamedTuple):
    """The constants of the quick tests for one set of limits."""

    pixels: np.int32
    """Pixels in a box."""
    bright: np.int32
    """The least count that some pixel of the box must have."""
    signal: np.float32
    """Least (N p - x)^2 / x."""
    spread: np.float32
    """Least (N y - x^2) / x."""
    square_limit: np.int32
    """Counts from this on have a square of `square_most` in the sums of squares."""
    square_most: np.uint32
    """The square of all of these."""
    leave_out: NDArray[np.int32]
    """0 for each column of a box, then -1 up to whole lanes."""

    @classmethod
    def of(cls, limits: Limits) -> Screen:
        """The quick tests that follow from the exact ones."""
        box = limits.box
        least = limits.gain * (1 + limits.n_sigma_b * math.sqrt(2 / (box - 1)))
        m = np.arange(2, box + 1)
        spread = limits.gain * np.min((m - 1 + limits.n_sigma_b * np.sqrt(2 * (m - 1))) / m)
        most = 2**32 // (box + 1)
        columns = 2 * limits.fast + 1
        leave_out = np.full(-(-columns // BOX_LANES) * BOX_LANES, -1, np.int32)
        leave_out[:columns] = 0
        with np.errstate(over="ignore"):  # what no count can reach may be infinite
            signal = np.float32(np.square(limits.n_sigma_s) * limits.gain * box * (1 - _SLACK))
            return cls(
                np.int32(box),
                np.int32(math.floor(min(least * (1 - 1e-9), TOO_LARGE - 1)) + 1),
                signal,
                np.float32(box * spread * (1 - _SLACK)),
                np.int32(math.isqrt(most // box)),
                np.uint32(most),
                leave_out,
            )


class Window(NamedTuple):
    """The rows around the one that is tested, and what is kept of them."""

    ring: NDArray[np.int32]
    """As many rows as a box is high: counts, and -1 where a pixel does not count."""
    sums: NDArray[np.int32]
    """Sums of its columns."""
    bright: NDArray[np.uint8]
    """How many bright pixels its columns have."""
    totals: NDArray[np.int32]
    """Sums over the box around each pixel of the row."""
    nearby: NDArray[np.uint8]
    """How many bright pixels the box has."""
    flags: NDArray[np.uint8]
    """Which pixels of the row passed the screens."""
    found: NDArray[np.int32]
    """Room for the columns of those that did."""


@kernel
def _window(width: int, limits: Any) -> Any:
    """A window on an image of this width from which nothing has been taken yet."""
    padded = -(-width // FLAGS) * FLAGS
    ring = np.full((2 * limits.slow + 1, padded + _PADDING), -1, np.int32)
    sums, bright = np.zeros(padded + _PADDING, np.int32), np.zeros(padded + _PADDING, np.uint8)
    totals, nearby = np.empty(width, np.int32), np.empty(width, np.uint8)
    flags, found = np.zeros(padded, np.uint8), np.empty(padded, np.int32)
    return Window(ring, sums, bright, totals, nearby, flags, found)


@part
def _take_row(pixels: Any, row: int, window: Any, limits: Any, screen: Any) -> None:
    """Put a row in the place of the oldest of the ring, and bring the column sums up to date.

    Below the image there are only pixels that do not count.
    """
    rows, width = pixels.values.shape
    at = min(row, rows - 1)
    for first in range(0, width, _PIECE):
        last = min(first + _PIECE, width)
        _fetch(pixels.values, at * width + first)
        _fetch(pixels.mask, at % len(pixels.mask) * width + first)
        columns = slice(limits.fast + first, limits.fast + last)
        ring = window.ring[row % len(window.ring)][columns]
        sums, bright = window.sums[columns], window.bright[columns]
        values, allowed = pixels.values[at][first:last], pixels.mask[at % len(pixels.mask)][first:last]
        low, high = pixels.low, np.uint32(min(pixels.high, np.uint32(TOO_LARGE - 1)))
        exists = row < rows
        for i in range(last - first):
            value = np.uint32(values[i])
            counts = (value >= low) & (value <= high) & (allowed[i] != 0) & exists
            new = np.int32(value) if counts else np.int32(-1)
            old = ring[i]
            ring[i] = new
            sums[i] += max(new, np.int32(0)) - max(old, np.int32(0))
            bright[i] += np.uint8(new >= screen.bright) - np.uint8(old >= screen.bright)


@part
def _fetch(array: Any, first: int) -> None:
    """Ask for a piece that will be taken soon; left to itself the processor waits at every memory page."""
    for offset in range(0, _PIECE * array.itemsize, 64):
        fetch_ahead(array, first * array.itemsize + _AHEAD + offset)


@part
def _add_squares(row: int, window: Any, squares: Any, screen: Any, sign: int) -> None:
    """Add a row of the ring to the sums of squares of its columns, or take it away."""
    values = window.ring[row % len(window.ring)]
    for i in range(len(squares)):
        value = values[i]
        small = np.uint32(value) * np.uint32(value)
        square = small if value < screen.square_limit else screen.square_most
        squares[i] += np.uint32(sign) * (square if value > 0 else np.uint32(0))


@part
def _slide(columns: Any, width: int, totals: Any) -> None:
    """Sums of `width` neighbouring columns."""
    n = len(totals)
    if width == 7:  # the usual box: one pass over memory instead of seven
        a, b, c, d = columns[:n], columns[1 : n + 1], columns[2 : n + 2], columns[3 : n + 3]
        e, f, g = columns[4 : n + 4], columns[5 : n + 5], columns[6 : n + 6]
        for i in range(n):
            totals[i] = a[i] + b[i] + c[i] + d[i] + e[i] + f[i] + g[i]
        return
    totals[:] = 0
    for offset in range(width):
        shifted = columns[offset : offset + n]
        for i in range(n):
            totals[i] += shifted[i]


@part
def _screen_near(values: Any, window: Any) -> Any:
    """Flag the pixels of a row that are not empty and have a bright one in their box; gives how many."""
    nearby, flags, count = window.nearby, window.flags, np.int32(0)
    for i in range(len(nearby)):
        near = (nearby[i] != 0) & (values[i] > 0)
        flags[i] = np.uint8(near)
        count = np.int32(count + np.int32(near))
    return count


@part
def _screen_signal(values: Any, window: Any, screen: Any) -> None:
    """Flag the pixels of a row that have a bright one in their box and may stand out of it."""
    totals, nearby, flags = window.totals, window.nearby, window.flags
    for i in range(len(totals)):
        excess = np.float32(np.int32(screen.pixels * values[i] - totals[i]))
        enough = excess * excess >= screen.signal * np.float32(totals[i])
        flags[i] = np.uint8((excess > np.float32(0)) & enough & (nearby[i] != 0))


@part
def _screen_spread(squares: Any, window: Any, screen: Any) -> None:
    """Flag the pixels of a row whose box may vary more than noise."""
    totals, nearby, flags = window.totals, window.nearby, window.flags
    for i in range(len(totals)):
        x = np.float32(totals[i])
        least = np.float32(1 - _SLACK) * x * x + screen.spread * x
        enough = np.float32(screen.pixels) * np.float32(squares[i]) >= least
        flags[i] = np.uint8((enough | (squares[i] >= screen.square_most)) & (nearby[i] != 0))


@part
def _collect(window: Any) -> Any:
    """Put in `found` where the flags are set; gives how many are."""
    flags, found, count = window.flags, window.found, 0
    for first in range(0, len(flags), FLAGS):
        bits = set_flags(flags, first)
        while bits != 0:
            found[count] = first + lowest_bit(bits)
            count += 1
            bits &= bits - np.uint64(1)
    return count


@part
def _any_too_large(pixels: Any, row: int) -> bool:
    """Whether a row has usable pixels that are left out of the sums, which the screens do not see."""
    if pixels.high < TOO_LARGE:
        return False
    values, allowed, found = pixels.values[row], pixels.mask[row % len(pixels.mask)], False
    for i in range(len(values)):
        value = np.uint32(values[i])
        found |= (value >= np.uint32(TOO_LARGE)) & (value <= pixels.high) & (allowed[i] != 0)
    return found


@kernel
def strong(pixels: Any, limits: Any, screen: Any) -> Any:
    """Flat indices of the strong pixels of an image of unsigned integers by the dispersion threshold."""
    rows, width = pixels.values.shape
    window, box = _window(width, limits), 2 * limits.fast + 1
    indices, n, crowded = np.empty(1024, np.int64), 0, True
    for row in range(rows + limits.slow):
        _take_row(pixels, row, window, limits, screen)
        at = row - limits.slow
        if at < 0:
            continue
        values = window.ring[at % len(window.ring)][limits.fast :]
        _slide(window.bright, box, window.nearby)
        if not crowded or at % _LOOK_EVERY == 0:
            crowded = _screen_near(values, window) > _FEW * width
        if crowded:
            _slide(window.sums, box, window.totals)
            _screen_signal(values, window, screen)
        if _any_too_large(pixels, at):
            window.flags[:width] = 1
        kept = _test_row(pixels, at, window, limits, screen)
        indices, n = extend(indices, n, window.found[:kept], at * width)
    return indices[:n]


@part
def _test_row(pixels: Any, row: int, window: Any, limits: Any, screen: Any) -> Any:
    """Of the flagged pixels of a row, leave the strong ones in `found`; gives how many they are."""
    values, allowed, found = pixels.values[row], pixels.mask[row % len(pixels.mask)], window.found
    ring, leave_out, kept = window.ring, screen.leave_out, 0
    for k in range(_collect(window)):
        i = found[k]
        value = np.uint32(values[i])
        if allowed[i] == 0 or value < pixels.low or value > pixels.high:
            continue
        m, x, y = box_sums(ring, i, leave_out)
        uneven = varies(float(m), float(x), float(y), limits)
        found[kept] = i
        kept += np.int64(uneven & stands_out(float(value), float(m), float(x), limits))
    return kept


@kernel
def lively(pixels: Any, limits: Any, screen: Any) -> Any:
    """The state of each pixel of an image of unsigned integers by the variance test."""
    rows, width = pixels.values.shape
    window, box = _window(width, limits), 2 * limits.fast + 1
    squares, total_squares = np.zeros(len(window.sums), np.uint32), np.empty(width, np.uint32)
    state = np.empty((rows, width), np.uint8)
    for row in range(rows + limits.slow):
        _add_squares(row, window, squares, screen, -1)
        _take_row(pixels, row, window, limits, screen)
        _add_squares(row, window, squares, screen, 1)
        at = row - limits.slow
        if at < 0:
            continue
        _slide(window.sums, box, window.totals)
        _slide(window.bright, box, window.nearby)
        _slide(squares, box, total_squares)
        _screen_spread(total_squares, window, screen)
        _mark_usable(pixels, at, state[at])
        for k in range(_collect(window)):
            i = window.found[k]
            if state[at, i] == CALM:
                m, x, y = box_sums(window.ring, i, screen.leave_out)
                if varies(float(m), float(x), float(y), limits):
                    state[at, i] = LIVELY
    return state


@part
def _mark_usable(pixels: Any, row: int, state: Any) -> None:
    values, allowed = pixels.values[row], pixels.mask[row % len(pixels.mask)]
    for i in range(len(values)):
        value = np.uint32(values[i])
        usable = (value >= pixels.low) & (value <= pixels.high) & (allowed[i] != 0)
        state[i] = np.uint8(CALM) if usable else np.uint8(UNUSABLE)
