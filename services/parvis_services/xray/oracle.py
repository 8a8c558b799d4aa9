"""The spotfinding arithmetic in plain numpy: slow, short, always available, and what every kernel must equal.

Source: the dispersion thresholds and the labelling of DIALS, Winter et al. (2018), Acta Cryst. D74, 85-97.

Exactness. Sums over a box run down its columns first (slow index ascending), then across (fast index
ascending); integers are summed as int64, floats as float64. The comparisons are made in float64, in the order
they are written below. A kernel that does the same gives the same pixels, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.parameters import DispersionParameters
from parvis_services.xray.spots import Spots

TOO_LARGE = 2**24
"""Pixels of this many counts or more are left out of the sums over a box."""

Image = NDArray[Any]
Mask = NDArray[np.bool_]


def usable_pixels(image: Image, mask: Mask | None, trusted: tuple[float, float]) -> Mask:
    """Pixels inside the mask and inside the trusted range, both ends included. NaN is never usable."""
    inside = (image >= trusted[0]) & (image <= trusted[1])
    return inside if mask is None else inside & mask


def dispersion(
    image: Image, mask: Mask | None, trusted: tuple[float, float], parameters: DispersionParameters
) -> NDArray[np.int64]:
    """Flat indices, sorted, of the strong pixels of a 2-D image by the dispersion threshold.

    A pixel is strong if the counts around it vary more than Poisson noise would, and if it stands out of
    their mean. `mask` is True where a pixel may be used, or None.
    """
    usable = usable_pixels(image, mask, trusted)
    m, x, y = _box_sums(image, usable, parameters.kernel_size)
    p = image.astype(np.float64)
    with np.errstate(invalid="ignore"):
        stands_out = m * p - x > parameters.n_sigma_s * np.sqrt(parameters.gain * x * m)
        strong = usable & (p > parameters.global_threshold) & _varies(m, x, y, parameters) & stands_out
    return np.flatnonzero(strong)


def dispersion_extended(
    image: Image, mask: Mask | None, trusted: tuple[float, float], parameters: DispersionParameters
) -> NDArray[np.int64]:
    """Flat indices, sorted, of the strong pixels of a 2-D image by the extended dispersion threshold.

    The regions that vary more than noise are eroded to a core; a strong pixel is one of the core that stands
    out of the mean of the pixels around it that are not core.
    """
    usable = usable_pixels(image, mask, trusted)
    varies = _varies(*_box_sums(image, usable, parameters.kernel_size), parameters)
    core = usable & _erode(varies | ~usable, min(parameters.kernel_size) - 1)
    slow, fast = parameters.kernel_size
    m, x, _ = _box_sums(image, usable & ~core, (slow + 2, fast + 2))
    p = image.astype(np.float64)
    mean = np.where(m >= 2, x / np.maximum(m, 1), 0.0)
    with np.errstate(invalid="ignore"):
        stands_out = p >= mean + parameters.n_sigma_s * np.sqrt(parameters.gain * mean)
        strong = core & (p > parameters.global_threshold) & (x >= 0) & stands_out
    return np.flatnonzero(strong)


def label(indices: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Which 4-connected group each strong pixel belongs to, numbered in the order of their first pixels."""
    width = shape[1]
    right = _edges(indices, 1, (indices + 1) % width != 0)
    below = _edges(indices, width, np.ones(len(indices), np.bool_))
    first, second = np.concatenate([right, below], axis=1)
    root = np.arange(len(indices))
    while True:
        lowest = np.minimum(root[first], root[second])
        before = root.copy()
        np.minimum.at(root, root[first], lowest)
        np.minimum.at(root, root[second], lowest)
        while not np.array_equal(root, root[root]):
            root = root[root]
        if np.array_equal(root, before):
            break
    return np.unique(root, return_inverse=True)[1].astype(np.int64)


def spots(indices: NDArray[np.int64], values: NDArray[Any], shape: tuple[int, int]) -> Spots:
    """Group strong pixels into spots.

    Args:
        indices: Sorted flat indices of the strong pixels of one panel.
        values: Their counts.
        shape: (slow, fast) size of the panel.

    A group whose counts sum to 0 or less has its unweighted mean as centroid.
    """
    if len(indices) == 0:
        return Spots.none()
    number = label(indices, shape)
    slow, fast = np.divmod(indices, shape[1])
    counts = values.astype(np.float64)
    n_pixels = np.bincount(number)
    intensity = np.bincount(number, counts).astype(np.float64)
    weights = np.where(intensity[number] > 0, counts, 1.0)
    total = np.bincount(number, weights)
    brightest_first = np.lexsort((indices, -counts, number))
    starts = np.concatenate([[0], np.cumsum(n_pixels)[:-1]])
    peak = brightest_first[starts]
    grouped = np.argsort(number, kind="stable")
    bbox = [
        np.minimum.reduceat(slow[grouped], starts),
        np.maximum.reduceat(slow[grouped], starts) + 1,
        np.minimum.reduceat(fast[grouped], starts),
        np.maximum.reduceat(fast[grouped], starts) + 1,
    ]
    return Spots(
        n_pixels=n_pixels.astype(np.int64),
        intensity=intensity,
        centroid_slow=np.bincount(number, weights * slow) / total + 0.5,
        centroid_fast=np.bincount(number, weights * fast) / total + 0.5,
        peak_slow=slow[peak],
        peak_fast=fast[peak],
        bbox=np.stack(bbox, axis=1),
    )


def decode_byte_offset(data: bytes | memoryview, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Decode CBF byte-offset compressed 32-bit counts (International Tables G, 5.6.3.3).

    A difference to the pixel before is one byte; 0x80 announces two bytes, 0x8000 after it four, and
    0x80000000 after that eight. Raises ValueError unless the data hold exactly the pixels of `shape`.
    """
    octets = np.frombuffer(data, np.uint8)
    size = shape[0] * shape[1]
    keep = np.ones(len(octets), np.bool_)
    longer: list[tuple[int, int]] = []
    position = 0
    for candidate in np.flatnonzero(octets == 0x80).tolist():
        if candidate < position:
            continue
        value, position = _long_difference(data, candidate + 1)
        keep[candidate + 1 : position] = False
        longer.append((candidate, value))
    differences = octets.view(np.int8).astype(np.int64)
    if longer:
        where, values = zip(*longer, strict=True)
        differences[list(where)] = values
    differences = differences[keep]
    if len(differences) != size:
        raise ValueError(f"byte-offset data hold {len(differences)} pixels, not the {size} of the header")
    return np.cumsum(differences).astype(np.int32).reshape(shape)


def _long_difference(data: bytes | memoryview, start: int) -> tuple[int, int]:
    """The difference that follows an escape byte, and the position after it."""
    for width in (2, 4, 8):
        end = start + width
        if end > len(data):
            raise ValueError("byte-offset data end in the middle of a pixel")
        value = int.from_bytes(data[start:end], "little", signed=True)
        if width == 8 or value != -(1 << (8 * width - 1)):
            return value, end
        start = end
    raise AssertionError("unreachable: eight bytes always end a difference")


def _varies(
    m: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], parameters: DispersionParameters
) -> Mask:
    """Where the variance-to-mean ratio of the box is more than Poisson noise gives: the variance test."""
    slow, fast = parameters.kernel_size
    fewest = parameters.min_local if parameters.min_local > 0 else (2 * slow + 1) * (2 * fast + 1)
    degrees = np.maximum(m - 1, 0)
    limit = parameters.gain * x * (degrees + parameters.n_sigma_b * np.sqrt(2 * degrees))
    return (m >= fewest) & (x >= 0) & (m * y - x * x > limit)


def _box_sums(
    image: Image, usable: Mask, half: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Number, sum and sum of squares of the usable pixels in the box around each pixel."""
    counted = usable & (image < TOO_LARGE)
    exact = np.int64 if image.dtype.kind in "iu" else np.float64
    values = np.where(counted, image, 0).astype(exact)
    sums = (counted.astype(np.int64), values, values * values)
    m, x, y = (_box_sum(array, half).astype(np.float64) for array in sums)
    return m, x, y


def _box_sum(array: NDArray[Any], half: tuple[int, int]) -> NDArray[Any]:
    """Sum over the box around each pixel, clipped at the edge of the image."""
    for axis in (0, 1):
        array = _slide(array, half[axis], axis)
    return array


def _slide(array: NDArray[Any], half: int, axis: int) -> NDArray[Any]:
    length = array.shape[axis]
    padding = [(half, half) if each == axis else (0, 0) for each in (0, 1)]
    padded = np.moveaxis(np.pad(array, padding), axis, 0)
    total = np.zeros_like(padded[:length])
    for offset in range(2 * half + 1):
        total += padded[offset : offset + length]
    return np.moveaxis(total, 0, axis)


def _erode(mask: Mask, distance: int) -> Mask:
    """Pixels all of whose neighbours up to a Chebyshev distance are set; those off the image count as set."""
    return _box_sum((~mask).astype(np.int64), (distance, distance)) == 0


def _edges(indices: NDArray[np.int64], step: int, allowed: Mask) -> NDArray[np.int64]:
    """Positions in the list of pixels that have a neighbour `step` further on, and of those neighbours."""
    position = np.searchsorted(indices, indices + step)
    inside = np.minimum(position, len(indices) - 1)
    found = allowed & (indices[inside] == indices + step)
    return np.stack([np.flatnonzero(found), inside[found]])
