"""Spotfinding kernels, compiled when first used: the numbers of `parvis_services.xray.oracle`, quickly."""

from __future__ import annotations

from numpy.typing import DTypeLike

from parvis_services.xray.parameters import Algorithm, DispersionParameters

__all__ = ["warm_up"]


def warm_up(dtype: DTypeLike, algorithm: Algorithm = "dispersion") -> None:
    """Load, or compile, all that analysing images of this type takes, so that the first one is quick.

    Args:
        dtype: Type of the counts: int32 as in a CBF, or unsigned integers as in a bitshuffle-LZ4 chunk.
        algorithm: The threshold that will be used.

    Raises:
        ValueError: No kernel takes images of this type.
    """
    import numpy as np

    from parvis_services.xray.kernels import bitshuffle_lz4, byte_offset, label, threshold

    image = np.zeros((8, 8), dtype)
    if image.dtype == np.int32:
        byte_offset.decode(bytes(image.size), image.shape)
    elif image.dtype.kind == "u":
        bitshuffle_lz4.decode(_uncompressed_chunk(image.tobytes()), image.shape, image.dtype)
    find = threshold.dispersion if algorithm == "dispersion" else threshold.dispersion_extended
    strong = find(image, None, (0, 100), DispersionParameters())
    label.spots(strong, image.ravel()[strong], image.shape)


def _uncompressed_chunk(data: bytes) -> bytes:
    """A bitshuffle-LZ4 chunk whose one block, of 15 to 269 bytes, is stored as it is."""
    block = bytes([0xF0, len(data) - 15]) + data
    return len(data).to_bytes(8, "big") + (8192).to_bytes(4, "big") + len(block).to_bytes(4, "big") + block
