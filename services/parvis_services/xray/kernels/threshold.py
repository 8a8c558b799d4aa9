"""Which pixels are strong: the dispersion thresholds of DIALS, compiled.

Source: Winter et al. (2018), Acta Cryst. D74, 85-97. The results are those of `parvis_services.xray.oracle`
for every image. Counts, with a trusted range that does not reach below 0, take the quick way of `screened`;
anything else that of `direct`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.kernels import direct, extended, screened
from parvis_services.xray.kernels.limits import Limits, Pixels, trusted_limits
from parvis_services.xray.parameters import DispersionParameters

_KINDS = ("u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8")


def dispersion(
    image: NDArray[Any],
    mask: NDArray[np.bool_] | None,
    trusted: tuple[float, float],
    parameters: DispersionParameters,
) -> NDArray[np.int64]:
    """Flat indices, sorted, of the strong pixels of a 2-D image by the dispersion threshold.

    Args:
        image: Counts, integers of up to 4 bytes or floats.
        mask: True where a pixel may be used; None if all may. Of the shape of the image.
        trusted: Lowest and highest value of a usable pixel, both included.
        parameters: Size of the box, and the limits.

    Raises:
        ValueError: The image or the mask is of a type or shape that cannot be used.
    """
    pixels = _pixels(image, mask, trusted)
    if pixels is None:
        return np.empty(0, np.int64)
    limits = Limits.of(parameters, (image.shape[0], image.shape[1]))
    if _quick(pixels, limits):
        return screened.strong(_unsigned(pixels), limits, _screen(limits))
    return direct.strong(pixels, limits, *_room(pixels, limits))


def dispersion_extended(
    image: NDArray[Any],
    mask: NDArray[np.bool_] | None,
    trusted: tuple[float, float],
    parameters: DispersionParameters,
) -> NDArray[np.int64]:
    """Flat indices, sorted, of the strong pixels by the extended dispersion threshold; see `dispersion`."""
    pixels = _pixels(image, mask, trusted)
    if pixels is None:
        return np.empty(0, np.int64)
    limits = Limits.of(parameters, (image.shape[0], image.shape[1]))
    if _quick(pixels, limits):
        pixels = _unsigned(pixels)
        state = screened.lively(pixels, limits, _screen(limits))
    else:
        state = direct.lively(pixels, limits, *_room(pixels, limits))
    return extended.strong(pixels, state, limits, _sum_type(pixels)(0))


def _pixels(
    image: NDArray[Any], mask: NDArray[np.bool_] | None, trusted: tuple[float, float]
) -> Pixels | None:
    """The image for the compiled code; None if none of its pixels can be usable."""
    kind = image.dtype
    if image.ndim != 2:
        raise ValueError(f"an image has two dimensions, not {image.ndim}")
    if kind.str[1:] not in _KINDS or not kind.isnative:
        raise ValueError(f"an image must be of native integers of up to 4 bytes or floats, not {kind.str}")
    if mask is not None and (mask.shape != image.shape or mask.dtype != np.bool_):
        raise ValueError(
            f"the mask must be boolean and {image.shape} as the image, not {mask.dtype} and {mask.shape}"
        )
    low, high = trusted_limits(kind, trusted)
    if image.size == 0 or not low <= high:
        return None
    allowed = np.ones((1, image.shape[1]), np.uint8) if mask is None else mask.view(np.uint8)
    return Pixels(_constant(image), _constant(allowed), low, high)


def _constant(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view without gaps, so that a kernel is compiled for one kind of array only."""
    array = np.ascontiguousarray(array).view()
    array.setflags(write=False)
    return array


def _quick(pixels: Pixels, limits: Limits) -> bool:
    """Whether the screens hold for these pixels."""
    return pixels.values.dtype.kind in "iu" and pixels.low >= 0 and limits.box <= screened.LARGEST_BOX


def _unsigned(pixels: Pixels) -> Pixels:
    """The same bits as unsigned numbers: one that was negative is now far above any trusted range."""
    unsigned = np.dtype(f"u{pixels.values.itemsize}")
    return Pixels(pixels.values.view(unsigned), pixels.mask, np.uint32(pixels.low), np.uint32(pixels.high))


def _sum_type(pixels: Pixels) -> type[np.int64 | np.float64]:
    """The type in which counts are added."""
    return np.float64 if pixels.values.dtype.kind == "f" else np.int64


def _room(pixels: Pixels, limits: Limits) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Room for the sums over the boxes of a row."""
    width = pixels.values.shape[1] + 2 * limits.fast
    return np.zeros((2, width), np.int64), np.zeros((4, width), _sum_type(pixels))


@lru_cache(maxsize=16)
def _screen(limits: Limits) -> screened.Screen:
    return screened.Screen.of(limits)
