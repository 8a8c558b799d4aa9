"""Decompression of LZ4: of blocks, bare or one after the other as HDF5 filter 32004 writes them.

Sources: the descriptions of the LZ4 block format and of the HDF5 filter. Made for hostile data: nothing is
read or written out of bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.kernels.jit import WIDE, copy_wide, fill_wide, kernel, part

_PREFIX = 12


def decode(
    data: bytes | memoryview, size: int, out: NDArray[np.uint8], *, prefixed: bool
) -> NDArray[np.uint8]:
    """Expand LZ4 data to exactly `size` bytes, the first ones of `out`, which are returned.

    Args:
        data: One bare block, or blocks with their 12-byte prefix, and nothing after them.
        size: How many bytes it must be.
        out: Memory of at least `WIDE` bytes more.
        prefixed: Whether there is a prefix.

    Raises:
        ValueError: The data are damaged, incomplete, or of another size.
    """
    if len(out) < size + WIDE:
        raise ValueError(f"{size} bytes need {WIDE} more to be expanded in, there are only {len(out)}")
    source = np.frombuffer(data, np.uint8)
    source.setflags(write=False)
    done, position = _blocks(source, size, out) if prefixed else _block(source, out, size)
    if done < size:
        raise ValueError(f"the LZ4 data are damaged or incomplete after {done} of {size} bytes")
    if position < len(source):
        raise ValueError(f"{len(source) - position} bytes follow the end of the LZ4 data")
    return out[:size]


def _blocks(source: NDArray[np.uint8], size: int, out: NDArray[np.uint8]) -> tuple[int, int]:
    if len(source) < _PREFIX:
        raise ValueError(f"LZ4 data of HDF5 begin with {_PREFIX} bytes; there are only {len(source)}")
    told = int.from_bytes(source[:8].tobytes(), "big")
    if told != size:
        raise ValueError(f"the LZ4 data hold {told} bytes, not {size}")
    block = int.from_bytes(source[8:_PREFIX].tobytes(), "big")
    if block == 0:
        raise ValueError("an LZ4 block of 0 bytes cannot be")
    return _decode(source, out, size, block)


@kernel
def _decode(source: Any, target: Any, size: int, block: int) -> Any:
    """Fill `target`; gives how many bytes were written and where in the source the next would begin."""
    position, done = _PREFIX, 0
    while done < size:
        expected = min(block, size - done)
        if position + 4 > len(source):
            return done, position
        compressed = np.int64(0)
        for i in range(4):
            compressed = compressed << 8 | np.int64(source[position + i])
        start = position + 4
        if compressed == expected:  # what does not get smaller is stored as it is
            if compressed > len(source) - start:
                return done, position
            target[done : done + expected] = source[start : start + expected]
        elif not decompress(source, start, compressed, target[done : done + expected + WIDE], expected):
            return done, position
        position = start + compressed
        done += expected
    return done, position


@kernel
def _block(source: Any, target: Any, size: int) -> Any:
    """As `_decode`, of one bare block."""
    if decompress(source, 0, len(source), target, size):
        return size, len(source)
    return 0, 0


@part
def _extended_length(source: Any, position: int, end: int, length: Any) -> Any:
    """A length of 15 goes on in the bytes that follow, up to one that is not 255; -1 if there is none."""
    if length < 15:
        return length, position
    while position < end:
        more = np.int64(source[position])
        position += 1
        length += more
        if more != 255:
            return length, position
    return -1, position


@part
def decompress(source: Any, start: int, compressed: int, target: Any, size: int) -> bool:
    """Expand one LZ4 block to exactly `size` bytes of `target`, which must have room for `WIDE` more."""
    if compressed > len(source) - start:
        return False
    position, end, written = start, start + compressed, 0
    while position < end:
        token = np.int64(source[position])
        literals, position = _extended_length(source, position + 1, end, token >> 4)
        if literals < 0 or literals > end - position or literals > size - written:
            return False
        _copy_literals(source, position, target, written, literals)
        position += literals
        written += literals
        if position == end:
            return written == size
        if position + 2 > end:
            return False
        offset = np.int64(source[position]) | np.int64(source[position + 1]) << 8
        match, position = _extended_length(source, position + 2, end, token & 15)
        if match < 0 or match + 4 > size - written or offset == 0 or offset > written:
            return False
        _copy_match(target, written, offset, match + 4)
        written += match + 4
    return False


@part
def _copy_literals(source: Any, position: int, target: Any, written: int, length: int) -> None:
    if length <= WIDE and position + WIDE <= len(source):
        copy_wide(target, written, source, position)
    elif position + length + WIDE <= len(source):
        for copied in range(0, length, WIDE):
            copy_wide(target, written + copied, source, position + copied)
    else:
        for i in range(length):
            target[written + i] = source[position + i]


@part
def _copy_match(target: Any, written: int, offset: int, length: int) -> None:
    """Repeat what was written `offset` bytes ago; where that overlaps, what is being written repeats."""
    end = written + length
    if offset == 2:  # so runs of equal bytes come out of the usual compressor
        word = np.uint64(target[written - 2]) | np.uint64(target[written - 1]) << np.uint64(8)
        word *= np.uint64(0x0001000100010001)
        while written < end:
            fill_wide(target, written, word)
            written += WIDE
        return
    while offset < WIDE and written < end:
        copy_wide(target, written, target, written - offset)
        written += offset
        offset *= 2
    while written < end:
        copy_wide(target, written, target, written - offset)
        written += WIDE
