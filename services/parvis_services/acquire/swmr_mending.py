"""Puts HDF5 files right whose writer was killed while others read (SWMR).

Such a file says that somebody is writing it: it opens for SWMR readers only, and nobody can write on. Its
content is sound: the order in which a SWMR writer writes sees to that. What has to be put right stands in its
first 48 bytes.

Source: the HDF5 file format specification, version 3.0, section II.A (superblock of version 3). The checksum
is lookup3 of Bob Jenkins, in the public domain.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_VERSION: Final = 3
_SUPERBLOCK: Final = struct.Struct("<8s4B4QI")
_WORD: Final = 0xFFFFFFFF
_MIXING: Final = ((4, "cb"), (6, "ac"), (8, "ba"), (16, "cb"), (19, "ac"), (4, "ba"))
_FINAL: Final = (14, 11, 25, 16, 4, 14, 24)


def mend(path: Path) -> bool:
    """Let a file be opened as if its writer had closed it. No process may be writing it any more.

    Returns:
        Whether there was something to put right.

    Raises:
        ValueError: It is no such file, or damaged.
        OSError: It cannot be read or written.
    """
    with path.open("r+b") as file:
        block = file.read(_SUPERBLOCK.size)
        if len(block) < _SUPERBLOCK.size:
            raise ValueError(f"{path} is no HDF5 file: it has only {len(block)} bytes")
        signature, version, offset_size, length_size, flags, *addresses, checksum = _SUPERBLOCK.unpack(block)
        if signature != _SIGNATURE or (version, offset_size, length_size) != (_VERSION, 8, 8):
            raise ValueError(f"{path} is no HDF5 file that can be read while it is written")
        if checksum != lookup3(block[:-4]):
            raise ValueError(f"{path} is damaged: the checksum of its superblock is wrong")
        if not flags:
            return False
        base, extension, _, root = addresses
        size = os.fstat(file.fileno()).st_size
        fields = (signature, version, offset_size, length_size, 0, base, extension, size, root)
        head = _SUPERBLOCK.pack(*fields, 0)[:-4]
        file.seek(0)
        file.write(head + struct.pack("<I", lookup3(head)))
    return True


def lookup3(data: bytes) -> int:
    """Checksum (32 bits) of what HDF5 calls metadata."""
    state = dict.fromkeys("abc", (0xDEADBEEF + len(data)) & _WORD)
    padded = data + bytes(-len(data) % 12)
    blocks = list(struct.iter_unpack("<3I", padded))
    for number, words in enumerate(blocks, start=1):
        for name, word in zip("abc", words, strict=True):
            state[name] = (state[name] + word) & _WORD
        if number < len(blocks):
            _mix(state)
    if blocks:
        _finish(state)
    return state["c"]


def _mix(state: dict[str, int]) -> None:
    """Mix three words reversibly."""
    for (shift, (source, other)), target in zip(_MIXING, "abcabc", strict=True):
        state[target] = ((state[target] - state[source]) & _WORD) ^ _turned(state[source], shift)
        state[source] = (state[source] + state[other]) & _WORD


def _finish(state: dict[str, int]) -> None:
    """Mix three words into the last one."""
    for shift, (target, source) in zip(_FINAL, ("cb", "ac", "ba", "cb", "ac", "ba", "cb"), strict=True):
        state[target] = ((state[target] ^ state[source]) - _turned(state[source], shift)) & _WORD


def _turned(word: int, shift: int) -> int:
    return ((word << shift) | (word >> (32 - shift))) & _WORD
