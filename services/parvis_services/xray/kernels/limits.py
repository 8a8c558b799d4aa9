"""The settings of a threshold as the compiled code takes them, and the tests both its ways share."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.kernels.jit import kernel, part
from parvis_services.xray.parameters import DispersionParameters

TOO_LARGE = 2**24
"""Pixels of this many counts or more are left out of the sums over a box."""

UNUSABLE, CALM, LIVELY, CORE = 0, 1, 2, 4
"""States of a pixel: not usable; in a box that varies as noise does, or more; not near any calm pixel."""


class Pixels(NamedTuple):
    """An image as the compiled code takes it."""

    values: NDArray[Any]
    """Counts, two-dimensional, without gaps."""
    mask: NDArray[np.uint8]
    """Not 0 where a pixel may be used; one row if it is the same for all."""
    low: Any
    """Lowest value of a usable pixel."""
    high: Any
    """Highest value of a usable pixel."""


class Limits(NamedTuple):
    """Half-size of the box and the numbers of the two tests."""

    slow: int
    fast: int
    n_sigma_b: float
    n_sigma_s: float
    fewest: int
    threshold: float
    gain: float

    @classmethod
    def of(cls, parameters: DispersionParameters, shape: tuple[int, int]) -> Limits:
        """The limits that these parameters set; a box that covers all of an image of `shape` suffices."""
        slow, fast = parameters.kernel_size
        box = (2 * slow + 1) * (2 * fast + 1)
        return cls(
            min(int(slow), max(shape)),
            min(int(fast), max(shape)),
            float(parameters.n_sigma_b),
            float(parameters.n_sigma_s),
            min(int(parameters.min_local) if parameters.min_local > 0 else box, 2**62),
            float(parameters.global_threshold),
            float(parameters.gain),
        )

    @property
    def box(self) -> int:
        """Pixels in a box that the edge of the image does not clip."""
        return (2 * self.slow + 1) * (2 * self.fast + 1)


def trusted_limits(kind: np.dtype[Any], trusted: tuple[float, float]) -> tuple[Any, Any]:
    """The trusted range in the numbers of an image type: lowest and highest; lowest > highest if none is.

    Raises ValueError if the range is not of numbers.
    """
    low, high = trusted
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"the trusted range must be two numbers, not {low}, {high}")
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return kind.type(low), kind.type(high)
    info = np.iinfo(kind)
    if low > info.max or high < info.min:
        return np.int64(1), np.int64(0)
    return np.int64(math.ceil(max(low, info.min))), np.int64(math.floor(min(high, info.max)))


@part
def varies(m: float, x: float, y: float, limits: Any) -> bool:
    """The variance test: whether the counts of a box vary more than Poisson noise would.

    Both tests are written without branches, which a processor could not predict.
    """
    degrees = max(m - 1.0, 0.0)
    limit = limits.gain * x * (degrees + limits.n_sigma_b * math.sqrt(2 * degrees))
    return (m >= limits.fewest) & (x >= 0) & (m * y - x * x > limit)


@part
def stands_out(p: float, m: float, x: float, limits: Any) -> bool:
    """The signal test: whether a pixel stands out of the mean of its box, where `x` is not negative."""
    return (p > limits.threshold) & (m * p - x > limits.n_sigma_s * math.sqrt(limits.gain * x * m))


@kernel
def extend(indices: NDArray[np.int64], count: int, columns: NDArray[np.int32], first: int) -> Any:
    """Add the pixels of a row, which begins at flat index `first`, to a list of `count` that grows."""
    if count + len(columns) > len(indices):
        larger = np.empty(2 * len(indices) + len(columns), np.int64)
        larger[:count] = indices[:count]
        indices = larger
    for k in range(len(columns)):
        indices[count + k] = first + columns[k]
    return indices, count + len(columns)
