"""Decompression of bitshuffle-LZ4 chunks, as EIGER detectors and HDF5 filter 32008 write them.

Sources: Masui et al. (2015), Astronomy and Computing 12, 181-190, for the format, and the description of the
LZ4 block format. Made for hostile data: nothing is read or written out of bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from parvis_services.xray.kernels.jit import WIDE, copy_wide, fill_wide, kernel, part

_PREFIX = 12
_PIECE = 64  # bytes of a plane that are looked at at once
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}

# Which bits of a 64-bit word, seen as an 8 x 8 matrix of bits, the three steps of its transposition exchange.
_NEAR, _FAR, _FARTHEST = np.uint64(0x00AA00AA00AA00AA), np.uint64(0x0000CCCC0000CCCC), np.uint64(0xF0F0F0F0)


def decode(
    chunk: bytes | bytearray | memoryview | NDArray[np.uint8],
    shape: tuple[int, int],
    dtype: DTypeLike,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Counts of a bitshuffle-LZ4 compressed image.

    Args:
        chunk: The compressed bytes with their 12-byte prefix, and nothing after them.
        shape: (slow, fast) size of the image in pixels.
        dtype: Little-endian integers of 1, 2 or 4 bytes.
        out: Where to put the counts, C-contiguous, of that shape and type; a new array otherwise.

    Raises:
        ValueError: The chunk is damaged, incomplete, or of an image of another size.
    """
    kind = np.dtype(dtype)
    if kind.kind not in "iu" or kind.itemsize not in _UNSIGNED or not kind.isnative:
        raise ValueError(f"bitshuffle-LZ4 data must be native integers of 1, 2 or 4 bytes, not {kind.str}")
    target = np.empty(shape, kind) if out is None else out
    if target.shape != tuple(shape) or target.dtype != kind or not target.flags.c_contiguous:
        raise ValueError(f"the output must be a C-contiguous {kind} array of shape {tuple(shape)}")
    source = np.frombuffer(chunk, np.uint8)
    source.setflags(write=False)
    block = _block_size(source, target.nbytes, kind.itemsize)
    pixels, position = _decode(source, target.reshape(-1).view(_UNSIGNED[kind.itemsize]), block)
    if pixels < target.size:
        raise ValueError(
            f"the bitshuffle-LZ4 chunk is damaged or incomplete after {pixels} of {target.size} pixels"
        )
    if position < len(source):
        raise ValueError(f"{len(source) - position} bytes follow the end of the bitshuffle-LZ4 data")
    return target


def _block_size(source: NDArray[np.uint8], expected: int, itemsize: int) -> int:
    """Elements in a block, from the prefix."""
    if len(source) < _PREFIX:
        raise ValueError(f"a bitshuffle-LZ4 chunk begins with {_PREFIX} bytes; there are only {len(source)}")
    size = int.from_bytes(source[:8].tobytes(), "big")
    if size != expected:
        raise ValueError(f"the chunk holds an image of {size} bytes, not of {expected}")
    block = int.from_bytes(source[8:_PREFIX].tobytes(), "big")
    if block == 0 or block % (8 * itemsize):
        raise ValueError(f"a bitshuffle block of {block} bytes is not a multiple of 8 elements")
    return block // itemsize


@kernel
def _decode(source: Any, target: Any, block: int) -> Any:
    """Fill `target`; gives how many pixels were decoded and where in the source the next would begin."""
    size, itemsize = len(target), target.itemsize
    largest = min(block, size - size % 8)
    scratch = np.empty(largest * itemsize + WIDE, np.uint8)
    words = np.empty(largest // 8, np.uint64)
    position, done = _PREFIX, 0
    while size - done >= 8:
        elements = min(block, (size - done) // 8 * 8)
        if position + 4 > len(source):
            return done, position
        compressed = np.int64(0)
        for i in range(4):
            compressed = compressed << 8 | np.int64(source[position + i])
        start = position + 4
        if not _decompress(source, start, compressed, scratch, elements * itemsize):
            return done, position
        _unshuffle(scratch, words[: elements // 8], target[done : done + elements])
        position = start + compressed
        done += elements
    return _copy_rest(source, position, target, done)


@part
def _copy_rest(source: Any, position: Any, target: Any, done: int) -> Any:
    """The last elements, too few for a group of eight, which are stored as they are."""
    itemsize = target.itemsize
    while done < len(target) and position + itemsize <= len(source):
        value = np.uint32(0)
        for i in range(itemsize):
            value |= np.uint32(source[position + i]) << np.uint32(8 * i)
        target[done] = value
        position += itemsize
        done += 1
    return done, position


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
def _decompress(source: Any, start: int, compressed: int, target: Any, size: int) -> bool:
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


@part
def _unshuffle(shuffled: Any, words: Any, target: Any) -> None:
    """Put elements together again from planes that hold one bit of each."""
    plane, low = len(words), words.view(np.uint8)
    _transpose(shuffled[: 8 * plane].reshape(8, plane), words)
    for i in range(len(target)):
        target[i] = low[i]
    for byte in range(1, target.itemsize):
        planes = shuffled[8 * byte * plane : 8 * (byte + 1) * plane].reshape(8, plane)
        for first in range(0, plane, _PIECE):
            last = min(first + _PIECE, plane)
            if _any_set(planes[:, first:last]):
                _transpose(planes[:, first:last], words[first:last])
                _add_byte(low[8 * first : 8 * last], target[8 * first : 8 * last], 8 * byte)


@part
def _add_byte(low: Any, target: Any, shift: int) -> None:
    for i in range(len(target)):
        target[i] |= np.uint32(low[i]) << np.uint32(shift)


@part
def _any_set(planes: Any) -> bool:
    """Counts are small: but for gaps the planes of the high bits are empty, which is cheap to see."""
    a, b, c, d = planes[0], planes[1], planes[2], planes[3]
    e, f, g, h = planes[4], planes[5], planes[6], planes[7]
    found = np.uint8(0)
    for i in range(len(a)):
        found |= a[i] | b[i] | c[i] | d[i] | e[i] | f[i] | g[i] | h[i]
    return found != 0


@part
def _transpose(planes: Any, words: Any) -> None:
    """From eight planes of bits to one byte an element, eight bytes a word."""
    for i in range(len(words)):
        x = np.uint64(planes[0, i])
        for bit in range(1, 8):
            x |= np.uint64(planes[bit, i]) << np.uint64(8 * bit)
        swap = (x ^ (x >> np.uint64(7))) & _NEAR
        x ^= swap ^ (swap << np.uint64(7))
        swap = (x ^ (x >> np.uint64(14))) & _FAR
        x ^= swap ^ (swap << np.uint64(14))
        swap = (x ^ (x >> np.uint64(28))) & _FARTHEST
        x ^= swap ^ (swap << np.uint64(28))
        words[i] = x
