"""Decompression of LZ4 and bitshuffle-LZ4 in plain Python and numpy: slow, short, always available.

What the kernels must equal. Sources as of `kernels.lz4` and `kernels.bitshuffle_lz4`.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PREFIX = struct.Struct(">QI")


def decode_bitshuffle(
    chunk: bytes | memoryview, shape: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Counts of a chunk of HDF5 filter 32008. Raises ValueError on damaged data."""
    data, itemsize = memoryview(chunk), dtype.itemsize
    pixels = shape[0] * shape[1]
    block = _block_size(data, pixels * itemsize) // itemsize
    if block == 0 or block % 8:
        raise ValueError("a bitshuffle block must be a multiple of 8 elements")
    counts = np.empty(pixels, dtype)
    position, done = _PREFIX.size, 0
    while pixels - done >= 8:
        elements = min(block, (pixels - done) // 8 * 8)
        packed, position = _next_block(data, position)
        plain = np.frombuffer(_expand_block(packed, elements * itemsize), np.uint8)
        counts[done : done + elements] = _unshuffled(plain, itemsize).view(dtype)
        done += elements
    rest = data[position:]
    if len(rest) != (pixels - done) * itemsize:
        raise ValueError(f"{len(rest)} bytes end the bitshuffle-LZ4 data, not {(pixels - done) * itemsize}")
    counts[done:] = np.frombuffer(rest, dtype)
    return counts.reshape(shape)


def expand(data: bytes | memoryview, size: int, *, prefixed: bool) -> bytearray:
    """Expand one bare LZ4 block, or a chunk of HDF5 filter 32004. Raises ValueError on damaged data."""
    source = memoryview(data)
    if not prefixed:
        return _expand_block(source, size)
    block = _block_size(source, size)
    if block == 0:
        raise ValueError("an LZ4 block of 0 bytes cannot be")
    target, position = bytearray(), _PREFIX.size
    while len(target) < size:
        expected = min(block, size - len(target))
        packed, position = _next_block(source, position)
        target += packed if len(packed) == expected else _expand_block(packed, expected)
    if position < len(source):
        raise ValueError(f"{len(source) - position} bytes follow the end of the LZ4 data")
    return target


def _block_size(data: memoryview, expected: int) -> int:
    if len(data) < _PREFIX.size:
        raise ValueError(f"the data begin with {_PREFIX.size} bytes; there are only {len(data)}")
    size, block = _PREFIX.unpack_from(data)
    if size != expected:
        raise ValueError(f"the data hold {size} bytes, not {expected}")
    return block


def _next_block(data: memoryview, position: int) -> tuple[memoryview, int]:
    """The packed bytes of a block, behind their number; and where the next begins."""
    start = position + 4
    end = start + int.from_bytes(data[position:start], "big")
    if start > len(data) or end > len(data):
        raise ValueError("the compressed data are incomplete")
    return data[start:end], end


def _expand_block(source: memoryview, size: int) -> bytearray:
    target, position = bytearray(), 0
    try:
        while len(target) <= size:
            token = source[position]
            literals, position = _length(source, position + 1, token >> 4)
            if literals > len(source) - position:
                break
            target += source[position : position + literals]
            position += literals
            if position == len(source) and len(target) == size:
                return target
            offset = source[position] | source[position + 1] << 8
            match, position = _length(source, position + 2, token & 15)
            match += 4
            if offset == 0 or offset > len(target) or match > size - len(target):
                break
            start = len(target) - offset
            pattern = bytes(target[start : start + match])
            target += (pattern * (match // len(pattern) + 1))[:match]
    except IndexError:
        pass
    raise ValueError("the LZ4 data are damaged or incomplete")


def _length(source: memoryview, position: int, length: int) -> tuple[int, int]:
    if length < 15:
        return length, position
    while True:
        more = source[position]
        position += 1
        length += more
        if more != 255:
            return length, position


def _unshuffled(planes: NDArray[np.uint8], itemsize: int) -> NDArray[np.uint8]:
    """Elements, as their bytes, of planes that hold one bit of each."""
    bits = np.unpackbits(planes.reshape(8 * itemsize, -1), axis=1, bitorder="little")
    return np.ascontiguousarray(np.packbits(bits.T, axis=1, bitorder="little")).reshape(-1)
