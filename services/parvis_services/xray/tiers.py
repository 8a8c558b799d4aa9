"""The fast way to do the arithmetic where numba is there, the plain numpy way where it is not.

Both give the same numbers. Numba is imported and the kernels are compiled at the first call, not before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from parvis_services.xray import oracle, plain_lz4
from parvis_services.xray.parameters import Algorithm, DispersionParameters
from parvis_services.xray.spots import Spots

_log = logging.getLogger(__name__)

Threshold = Callable[
    [NDArray[Any], NDArray[np.bool_] | None, tuple[float, float], DispersionParameters], NDArray[np.int64]
]


LZ4_ROOM = 32
"""Bytes beyond what is expanded that `decode_lz4` needs."""


@lru_cache(maxsize=1)
def _kernels() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType, ModuleType] | None:
    try:
        from parvis_services.xray.kernels import bitshuffle_lz4, byte_offset, label, lz4, threshold
    except ImportError as error:
        _log.warning("numba cannot be used (%s): spotfinding takes some thirty times longer", error)
        return None
    return byte_offset, bitshuffle_lz4, threshold, label, lz4


def decodes_bitshuffle_quickly() -> bool:
    """Whether `decode_bitshuffle` is quick; without numba, HDF5's own filters are quicker."""
    return _kernels() is not None


def decode_byte_offset(data: memoryview, shape: tuple[int, int], out: NDArray[np.int32]) -> NDArray[np.int32]:
    """Decode CBF byte-offset data, into `out` where that is possible. Raises ValueError on damaged data."""
    kernels = _kernels()
    return kernels[0].decode(data, shape, out) if kernels else oracle.decode_byte_offset(data, shape)


def decode_bitshuffle(
    chunk: bytes | memoryview, shape: tuple[int, int], dtype: DTypeLike, out: NDArray[Any]
) -> NDArray[Any]:
    """Decode a chunk of HDF5 filter 32008 into `out`. Raises ValueError on damaged data."""
    kernels = _kernels()
    if kernels is None:
        out[...] = plain_lz4.decode_bitshuffle(chunk, shape, np.dtype(dtype))
        return out
    return kernels[1].decode(chunk, shape, dtype, out)


def decode_lz4(
    data: bytes | memoryview, size: int, out: NDArray[np.uint8], *, prefixed: bool
) -> NDArray[np.uint8]:
    """Expand LZ4 data to exactly `size` bytes, the first ones of `out`, which are returned.

    Args:
        data: One bare block, or if `prefixed` a chunk of HDF5 filter 32004.
        size: How many bytes it must be.
        out: Memory of at least `LZ4_ROOM` bytes more.
        prefixed: As above.

    Raises:
        ValueError: The data are damaged.
    """
    kernels = _kernels()
    if kernels is None:
        out[:size] = np.frombuffer(plain_lz4.expand(data, size, prefixed=prefixed), np.uint8)
        return out[:size]
    return kernels[4].decode(data, size, out, prefixed=prefixed)


def threshold(algorithm: Algorithm) -> Threshold:
    """The function that finds strong pixels, as `oracle.dispersion` and `oracle.dispersion_extended` do."""
    kernels = _kernels()
    return getattr(kernels[2] if kernels else oracle, algorithm)


def spots(indices: NDArray[np.int64], values: NDArray[Any], shape: tuple[int, int]) -> Spots:
    """Group strong pixels into spots, as `oracle.spots` does."""
    kernels = _kernels()
    return kernels[3].spots(indices, values, shape) if kernels else oracle.spots(indices, values, shape)
