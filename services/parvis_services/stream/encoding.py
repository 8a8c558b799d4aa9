"""How detectors and HDF5 name the ways in which counts are packed.

Source: the descriptions of the SIMPLON stream interfaces and of the HDF5 filters 32004 and 32008.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from parvis_services.stream.events import Encoding, Frame, MalformedStream

ITEM_SIZES: Final = {"uint8": 1, "uint16": 2, "uint32": 4}
"""Types of counts that are understood, and their bytes."""

MOST_BYTES: Final = 1 << 30
"""So large may a frame be, unpacked."""

BSHUF_BLOCK: Final = 8192
"""Bytes that detectors shuffle and pack at a time."""

_PREFIX: Final = 12
_V1 = re.compile(r"(?:bs(?P<bits>8|16|32))?-?(?P<lz4>lz4)?(?P<order>[<>]?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hdf5Filter:
    """A filter of HDF5: its registered number, and the options of a dataset that uses it."""

    number: int
    options: tuple[int, ...]


_FILTERS: Final[dict[Encoding, Hdf5Filter | None]] = {
    "bslz4": Hdf5Filter(32008, (0, 2)),
    "hdf5-lz4": Hdf5Filter(32004, (0,)),
    "lz4": Hdf5Filter(32004, (0,)),
    "none": None,
}


def hdf5_filter(encoding: Encoding) -> Hdf5Filter | None:
    """The filter by which HDF5 reads what is so packed, once `hdf5_chunk` has made a chunk of it."""
    return _FILTERS[encoding]


def hdf5_chunk(frame: Frame) -> bytes | memoryview:
    """What to write into a file as the chunk of a frame, for a dataset with the filter `hdf5_filter`.

    The frame's own bytes are not copied, except that the filter wants a bare LZ4 block to have a prefix.

    Raises:
        MalformedStream: A bare LZ4 block is exactly as long as what it holds, which the filter takes for
            counts that are not packed.
    """
    if frame.encoding != "lz4":
        return frame.data
    raw, packed = raw_size(frame.shape, frame.dtype), frame.data.nbytes
    if raw == packed:
        raise MalformedStream(
            f"image {frame.number}: an LZ4 block as long as its counts cannot be put into HDF5"
        )
    return b"".join((struct.pack(">QII", raw, raw, packed), frame.data))


def raw_size(shape: tuple[int, int], dtype: str) -> int:
    """Bytes of a frame, unpacked.

    Raises:
        MalformedStream: Nobody has frames of that type or size.
    """
    if dtype not in ITEM_SIZES:
        raise MalformedStream(
            f"counts of type {dtype[:40]!r} are not understood, only {', '.join(ITEM_SIZES)}"
        )
    size = shape[0] * shape[1] * ITEM_SIZES[dtype]
    if min(shape) < 1 or size > MOST_BYTES:
        raise MalformedStream(f"a frame of {shape[0]} x {shape[1]} pixels is not possible")
    return size


def parse_v1(text: str, dtype: str) -> Encoding:
    """Read the `encoding` of Stream V1: `[bs<BITS>][[-]lz4][<|>]`.

    Raises:
        MalformedStream: It is none, or none that is understood for counts of that type.
    """
    found = _V1.fullmatch(text)
    if found is None:
        raise MalformedStream(f"encoding {text[:40]!r} is not understood")
    bits, lz4, order = found["bits"], found["lz4"], found["order"]
    width = 8 * ITEM_SIZES.get(dtype, 0)
    if order == ">" and width != 8:
        raise MalformedStream(f"encoding {text!r}: counts with the high byte first are not understood")
    if bits is None:
        return "lz4" if lz4 else "none"
    if lz4 is None or int(bits) != width:
        raise MalformedStream(f"encoding {text!r} does not fit counts of type {dtype[:40]!r}")
    return "bslz4"


def v1_name(encoding: Encoding, dtype: str) -> str:
    """Return what Stream V1 calls it. Raises ValueError for `hdf5-lz4`, which it does not have."""
    if encoding == "hdf5-lz4":
        raise ValueError("Stream V1 has no LZ4 with a prefix")
    return {"none": "<", "lz4": "lz4<", "bslz4": f"bs{8 * ITEM_SIZES[dtype]}-lz4<"}[encoding]


def parse_v2(algorithm: str, element: int, dtype: str) -> Encoding:
    """Read what the compression tag of Stream V2 says.

    Args:
        algorithm: Its name.
        element: Bytes that are shuffled together; 0 or any for LZ4, which has no such thing.
        dtype: Type of a count.

    Raises:
        MalformedStream: It is not understood for counts of that type.
    """
    if algorithm == "lz4":
        return "hdf5-lz4"
    if algorithm != "bslz4":
        raise MalformedStream(f"compression {algorithm[:40]!r} is not understood, only bslz4 and lz4")
    if element != ITEM_SIZES.get(dtype):
        raise MalformedStream(
            f"compression bslz4 of {element} bytes does not fit counts of type {dtype[:40]!r}"
        )
    return "bslz4"


def v2_name(encoding: Encoding) -> str:
    """Return what Stream V2 calls a compression. Raises ValueError for `none` and `lz4`: it has no such."""
    if encoding not in {"bslz4", "hdf5-lz4"}:
        raise ValueError(f"Stream V2 has no compression {encoding!r}")
    return "bslz4" if encoding == "bslz4" else "lz4"


def check_size(data: memoryview, encoding: Encoding, shape: tuple[int, int], dtype: str) -> None:
    """Raise MalformedStream unless data so packed can be a frame of that shape and type."""
    raw, there = raw_size(shape, dtype), data.nbytes
    if encoding == "none" and there != raw:
        raise MalformedStream(f"a frame of {raw} bytes came with {there}")
    if encoding in {"bslz4", "hdf5-lz4"}:
        told = int.from_bytes(data[:8], "big")
        if there <= _PREFIX or told != raw:
            raise MalformedStream(f"the data of a frame of {raw} bytes says that it holds {told}, in {there}")
    if there == 0:
        raise MalformedStream("a frame came without data")
