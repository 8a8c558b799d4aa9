"""CBF byte-offset decompression (International Tables for Crystallography G, 5.6.3.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.kernels.jit import LANES, leading_plain, part, running_sum

_ESCAPE_8 = -(2**7)
_ESCAPE_16 = -(2**15)
_ESCAPE_32 = -(2**31)


def decode(
    data: bytes | bytearray | memoryview | NDArray[np.uint8],
    shape: tuple[int, int],
    out: NDArray[np.int32] | None = None,
) -> NDArray[np.int32]:
    """Counts of a byte-offset compressed image.

    Args:
        data: The compressed bytes and nothing after them.
        shape: (slow, fast) size of the image in pixels.
        out: Where to put the counts, C-contiguous and of that shape; a new array otherwise.

    Raises:
        ValueError: The data hold fewer or more pixels than the image has, or end within one.
    """
    source = np.frombuffer(data, np.int8)
    source.setflags(write=False)
    target = np.empty(shape, np.int32) if out is None else out
    if target.shape != tuple(shape) or target.dtype != np.int32 or not target.flags.c_contiguous:
        raise ValueError(f"the output must be a C-contiguous int32 array of shape {tuple(shape)}")
    pixels, position = _decode(source, target.reshape(-1))
    if pixels < target.size:
        raise ValueError(
            f"byte-offset data end after {pixels} of {target.size} pixels: the image is incomplete"
        )
    if position < len(source):
        raise ValueError(
            f"byte-offset data have {len(source) - position} bytes more than the {target.size} pixels need"
        )
    return target


@part
def _little_endian(source, start, width):  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    for i in range(width):
        value |= np.uint64(np.uint8(source[start + i])) << np.uint64(8 * i)
    return value


@part
def _decode(source, target):  # type: ignore[no-untyped-def]
    """Fill `target`; gives how many pixels were found and where in the source the next would begin."""
    length, size = len(source), len(target)
    position, pixel, value = 0, 0, np.int32(0)
    while pixel < size and position < length:
        if position + LANES <= length and pixel + LANES <= size:
            # Past an escape this writes nonsense, which the next rounds put right.
            last = running_sum(target, pixel, source, position, value)
            plain = leading_plain(source, position)
            position += plain
            pixel += plain
            if plain == LANES:
                value = last
                continue
            if plain > 0:
                value = target[pixel - 1]
        elif source[position] != _ESCAPE_8:
            value += source[position]
            target[pixel] = value
            position += 1
            pixel += 1
            continue
        if position + 3 > length:
            break
        step = np.int64(np.int16(_little_endian(source, position + 1, 2)))
        after = position + 3
        if step == _ESCAPE_16:
            if after + 4 > length:
                break
            step = np.int64(np.int32(_little_endian(source, after, 4)))
            after += 4
            if step == _ESCAPE_32:
                if after + 8 > length:
                    break
                step = np.int64(_little_endian(source, after, 8))
                after += 8
        value = np.int32(value + step)
        target[pixel] = value
        position = after
        pixel += 1
    return pixel, position
