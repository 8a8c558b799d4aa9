"""How a ring lies in shared memory.

    header      64 words of 8 bytes, see the `..._WORD` below
    controls    for each slot 8 words: the position that is being written, the position that is whole, number
                of the record, its bytes, its slots, its parts, and two that are not used
    data        slots x slot bytes

Words are native. Positions count slots from the first ever written, and never come back: position p lies in
slot p % slots. A record takes as many slots in a row as it needs, from the last on to the first if need be:
first a word for the bytes of each part, then the parts.
"""

from __future__ import annotations

import mmap
import os
import platform
import stat
from pathlib import Path
from typing import Final

from parvis_services.stream.addresses import check_ring_name
from parvis_services.stream.sources import SourceError

DIRECTORY: Final = Path("/dev/shm")  # noqa: S108 - who may use what is there is checked
MAGIC: Final = int.from_bytes(b"parvisR1", "little")

WORD: Final = 8
MAGIC_WORD, SLOTS_WORD, SLOT_BYTES_WORD, GENERATION_WORD = 0, 1, 2, 3
HEAD_WORD, RECORDS_WORD, START_WORD, CLOSED_WORD = 4, 5, 6, 7
"""Of the header: how far it is written; how many records; position of the last record that was kept, plus 1;
whether nothing more will be written."""

HEADER_WORDS: Final = 64
CONTROL_WORDS: Final = 8
BEGUN, WHOLE, RECORD, BYTES, SPAN, PARTS = range(6)
"""Words of a control. The first two hold position + 1, so that 0 is nothing. A slot in which a record goes on
has a span of 0."""

KEPT_WORDS: Final = 5
"""Words before a record that is kept in a file of its own: magic, generation, position, number, parts."""

MOST_PARTS: Final = 256
"""So many parts may a message have."""

_ORDERED: Final = frozenset({"x86_64", "amd64", "i686"})


class RingError(SourceError):
    """A ring cannot be used; the text says why and what to do."""


def path_of(name: str) -> Path:
    """Where a ring lies. Raises ValueError if nothing can be called so."""
    return DIRECTORY / f"parvis-ring-{check_ring_name(name)}"


def kept_path(path: Path) -> Path:
    """Where the last record that was kept lies."""
    return path.with_name(f"{path.name}.start")


def size_of(slots: int, slot_bytes: int) -> int:
    """Bytes of a ring."""
    return data_offset(slots) + slots * slot_bytes


def data_offset(slots: int) -> int:
    """Where the data begins."""
    words = HEADER_WORDS + slots * CONTROL_WORDS
    return -(-words * WORD // mmap.PAGESIZE) * mmap.PAGESIZE


class RingMemory:
    """The memory of a ring, mapped.

    Attributes:
        words: Header and controls.
        data: The slots.
        slots, slot_bytes: How many, and of what size.
        inode: Which file it is.

    Raises:
        RingError: It is no ring.
    """

    def __init__(self, file: int, *, writable: bool) -> None:
        status = os.fstat(file)
        if status.st_size < HEADER_WORDS * WORD:
            raise RingError("it is no ring")
        self.inode = status.st_ino
        self._map = mmap.mmap(file, 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        whole = memoryview(self._map)
        header = whole[: HEADER_WORDS * WORD].cast("Q")
        self.slots, self.slot_bytes = header[SLOTS_WORD], header[SLOT_BYTES_WORD]
        fits = 0 < self.slots < 1 << 24 and status.st_size == size_of(self.slots, self.slot_bytes)
        good = header[MAGIC_WORD] == MAGIC and fits
        header.release()
        offset = data_offset(self.slots) if good else 0
        self.words = whole[: offset - offset % WORD].cast("Q")
        self.data = whole[offset:]
        whole.release()
        if not good:
            self.close()
            raise RingError("it is no ring of this version of Parvis")

    def control(self, position: int) -> int:
        """Index of the control of a position among the words."""
        return HEADER_WORDS + position % self.slots * CONTROL_WORDS

    def pieces(self, position: int, size: int) -> list[memoryview]:
        """The memory of a record, in one piece or two."""
        offset = position % self.slots * self.slot_bytes
        first = self.data[offset : offset + size]
        return [first] if first.nbytes == size else [first, self.data[: size - first.nbytes]]

    def close(self) -> None:
        """Let go of the memory; the ring itself stays."""
        self.words.release()
        self.data.release()
        self._map.close()


def check_machine() -> None:
    """Raise RingError on a machine whose memory a ring cannot rely on."""
    if platform.machine().lower() not in _ORDERED:
        raise RingError(
            "the ring needs a processor that shows in order what is written in order, and "
            f"{platform.machine()} does not: take the stream from the detector itself, without a ring"
        )


def check_trust(path: object, status: os.stat_result) -> None:
    """Raise RingError unless a file is ours or of a group of ours alone: anybody may make files there."""
    ours = status.st_uid == os.geteuid()
    shared = status.st_gid in {os.getegid(), *os.getgroups()} and not status.st_mode & stat.S_IRWXO
    if not stat.S_ISREG(status.st_mode) or not (ours or shared):
        raise RingError(f"{path} belongs to somebody else (user {status.st_uid}), and is not used")
