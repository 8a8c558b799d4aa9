"""Decompression of bitshuffle-LZ4 chunks, as EIGER detectors and HDF5 filter 32008 write them.

Source: Masui et al. (2015), Astronomy and Computing 12, 181-190. Made for hostile data: nothing is read or
written out of bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from parvis_services.xray.kernels.jit import WIDE, kernel, part
from parvis_services.xray.kernels.lz4 import decompress

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
        if not decompress(source, start, compressed, scratch, elements * itemsize):
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
