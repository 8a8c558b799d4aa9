"""Grouping strong pixels into spots, in time linear in their number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.kernels.jit import kernel, part
from parvis_services.xray.spots import Spots


def spots(indices: NDArray[np.int64], values: NDArray[Any], shape: tuple[int, int]) -> Spots:
    """Group strong pixels that share an edge into spots.

    Args:
        indices: Sorted flat indices of the strong pixels of one panel.
        values: Their counts.
        shape: (slow, fast) size of the panel.

    A group whose counts sum to 0 or less has its unweighted mean as centroid.
    Source: union-find, Galler & Fischer (1964), Comm. ACM 7, 301-303.
    """
    if len(indices) != len(values):
        raise ValueError(f"{len(indices)} strong pixels cannot have {len(values)} counts")
    pixels = np.ascontiguousarray(indices, np.int64)
    counts = np.ascontiguousarray(values, np.float64)
    if len(pixels) and not (pixels[0] >= 0 and pixels[-1] < shape[0] * shape[1]):
        raise ValueError(f"strong pixels lie outside an image of {shape[0]} x {shape[1]} pixels")
    if np.any(pixels[1:] <= pixels[:-1]):
        raise ValueError("the indices of strong pixels must ascend")
    number, n = _label(pixels, shape[1])
    return Spots(*_measure(pixels, counts, number, n, shape[1]))


@part
def _root(parent: Any, pixel: int) -> int:
    """The first pixel of the group, on the way halving the path to it."""
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel


@kernel
def _label(indices: Any, width: int) -> Any:
    """The number of the group of each pixel, in the order of their first pixels, and how many there are.

    As the list is sorted, the pixel above is found by a second pointer that only moves on.
    """
    parent = np.arange(len(indices))
    above = 0
    for pixel in range(len(indices)):
        index = indices[pixel]
        if pixel > 0 and indices[pixel - 1] == index - 1 and index % width != 0:
            parent[pixel] = _root(parent, pixel - 1)
        while indices[above] < index - width:
            above += 1
        if indices[above] == index - width:
            here, there = _root(parent, pixel), _root(parent, above)
            parent[max(here, there)] = min(here, there)
    n = 0
    for pixel in range(len(indices)):  # a parent comes before its children, so it has its number already
        if parent[pixel] == pixel:
            parent[pixel] = n
            n += 1
        else:
            parent[pixel] = parent[parent[pixel]]
    return parent, n


@kernel
def _measure(indices: Any, counts: Any, number: Any, n: int, width: int) -> Any:
    """The columns of `Spots`, in their order."""
    n_pixels, intensity, brightest = np.zeros(n, np.int64), np.zeros(n), np.full(n, -np.inf)
    weighted, plain = np.zeros((2, n)), np.zeros((2, n))
    peak, bbox = np.zeros((2, n), np.int64), np.empty((n, 4), np.int64)
    for k in range(len(indices)):
        spot, count = number[k], counts[k]
        place = (indices[k] // width, indices[k] % width)
        if n_pixels[spot] == 0:
            bbox[spot, 0], bbox[spot, 1], bbox[spot, 2], bbox[spot, 3] = (
                place[0],
                place[0],
                place[1],
                place[1],
            )
        n_pixels[spot] += 1
        intensity[spot] += count
        for axis in range(2):
            weighted[axis, spot] += count * place[axis]
            plain[axis, spot] += place[axis]
            bbox[spot, 2 * axis] = min(bbox[spot, 2 * axis], place[axis])
            bbox[spot, 2 * axis + 1] = max(bbox[spot, 2 * axis + 1], place[axis])
        if count > brightest[spot]:
            brightest[spot] = count
            peak[0, spot], peak[1, spot] = place
    centroid = np.empty((2, n))
    for spot in range(n):
        bbox[spot, 1] += 1
        bbox[spot, 3] += 1
        for axis in range(2):
            if intensity[spot] > 0:
                centroid[axis, spot] = weighted[axis, spot] / intensity[spot] + 0.5
            else:
                centroid[axis, spot] = plain[axis, spot] / n_pixels[spot] + 0.5
    return n_pixels, intensity, centroid[0], centroid[1], peak[0], peak[1], bbox
