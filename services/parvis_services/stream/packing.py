"""Packing counts as detectors do: bitshuffle and LZ4, as a chunk of HDF5 with the filter 32008."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pack(counts: NDArray[Any]) -> bytes:
    """Return an image, packed, behind the 12 bytes that say its size and that of its blocks.

    HDF5 does it, with its own filter, in a file that exists in memory only.

    Args:
        counts: Of any integer type, (rows, columns).
    """
    import h5py
    import hdf5plugin

    with h5py.File("image", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("data", data=counts, chunks=counts.shape, **hdf5plugin.Bitshuffle())
        file.flush()
        return bytes(dataset.id.read_direct_chunk((0, 0))[1])
