"""Frames as a detector packs them, made from the real ones: with their header and mask, in every encoding."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from parvis_services.stream.events import Encoding, Header
from parvis_services.xray.images import Image, open_image
from real_data import real_data

PREFIX = struct.Struct(">QI")
BLOCK = struct.Struct(">I")

#: What the headers of the real grid scan say.
THAUMATIN = Header(
    shape=(2527, 2463),
    dtype="uint32",
    images=19,
    pixel_size=(172e-6, 172e-6),
    beam_centre=(1306.96, 1261.61),
    distance=0.35100,
    wavelength=0.96859,
    saturation=115897,
    thickness=0.000450,
    material="Silicon",
)


def pack(counts: NDArray[Any], encoding: Encoding = "bslz4") -> bytes:
    """Counts as a detector packs them."""
    data = np.ascontiguousarray(counts)
    if encoding == "none":
        return data.tobytes()
    if encoding == "bslz4":
        return _chunk(data, hdf5plugin.Bitshuffle(cname="lz4"))
    whole = _chunk(data, hdf5plugin.LZ4(nbytes=0 if encoding == "hdf5-lz4" else data.nbytes))
    if encoding == "hdf5-lz4":
        return whole
    (size,) = BLOCK.unpack_from(whole, PREFIX.size)
    bare = whole[PREFIX.size + BLOCK.size :]
    assert len(bare) == size < data.nbytes
    return bare


def _chunk(data: NDArray[Any], how: Mapping[str, Any]) -> bytes:
    with h5py.File("chunk", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("data", data=data, chunks=data.shape, **how)
        file.flush()
        filters_skipped, chunk = dataset.id.read_direct_chunk((0,) * data.ndim)
        assert not filters_skipped
        return bytes(chunk)


def thaumatin_file(number: int) -> Any:
    """The path of a frame of the real grid scan, from 1."""
    return real_data(f"thaumatin_grid/thau_3_2_{number:04d}.cbf.bz2")


def unsigned(image: Image) -> NDArray[np.uint32]:
    """The counts of an image of a PILATUS, as an EIGER has them: the highest number for no count."""
    (counts,) = image.data
    return counts.astype(np.uint32)  # -1 becomes the highest


@cache
def thaumatin(number: int) -> NDArray[np.uint32]:
    """The counts of a frame of the real grid scan, as `unsigned`."""
    counts = unsigned(open_image(thaumatin_file(number)))
    counts.setflags(write=False)
    return counts


def thaumatin_mask() -> NDArray[np.uint32]:
    """The gaps of that detector, bit 0, as NXmx has them."""
    image = open_image(thaumatin_file(1))
    assert image.mask[0] is not None
    return np.where(image.mask[0], 0, 1).astype(np.uint32)
