"""The one that writes a ring in shared memory."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from parvis_services.stream.events import Bytes
from parvis_services.stream.ring_layout import (
    BEGUN,
    BYTES,
    CLOSED_WORD,
    DIRECTORY,
    GENERATION_WORD,
    HEAD_WORD,
    MAGIC,
    MAGIC_WORD,
    MOST_PARTS,
    PARTS,
    RECORD,
    RECORDS_WORD,
    SLOT_BYTES_WORD,
    SLOTS_WORD,
    SPAN,
    START_WORD,
    WHOLE,
    WORD,
    RingError,
    RingMemory,
    check_machine,
    kept_path,
    path_of,
    size_of,
)

_log = logging.getLogger(__name__)

_SHARE_OF_FREE: Final = 0.9
_TRIES: Final = 100


class RingWriter:
    """Writes a ring. There is one writer at a time.

    If there is a ring of that name and size already, left by a writer that was killed, it goes on in it, and
    readers notice nothing. A ring of another size is put in its place.

    Args:
        name: Of the ring, among those of this machine.
        slots: How many.
        slot_bytes: Size of each.
        group: A group whose members may read it; by default only this user may.

    Attributes:
        records: How many were written.

    Raises:
        RingError: There is another writer, or not enough memory, or no such group, or this machine does not
            show in order what is written in order.
        ValueError: No ring can be called so.
    """

    def __init__(self, name: str, slots: int, slot_bytes: int, group: str | None = None) -> None:
        check_machine()
        self.name = name
        self.path = path_of(name)
        self._group = None if group is None else _group(group)
        slot_bytes = -(-slot_bytes // WORD) * WORD
        for _ in range(_TRIES):
            file = self._taken_over(slots, slot_bytes)
            if file is None:
                file = self._made(slots, slot_bytes)
            if file is not None:
                break
        else:
            raise RingError(f"{self.path} changes all the time: do two programs make rings of that name?")
        self._file = file
        _new_kept_path(self.path).unlink(missing_ok=True)  # of a writer that was killed
        self._memory = RingMemory(file, writable=True)
        self.records = self._memory.words[RECORDS_WORD]

    @property
    def largest(self) -> int:
        """Bytes that a message may take, with 8 for each part: half of the ring, so that it can be read."""
        return self._memory.slots // 2 * self._memory.slot_bytes

    def write(self, parts: Sequence[Bytes], *, keep: bool = False) -> None:
        """Write a message over the oldest.

        Args:
            parts: Its parts.
            keep: Whether it starts something, so that readers who come later begin with it.

        Raises:
            RingError: It is too large, or has too many parts. Nothing is written.
        """
        views = [memoryview(part) for part in parts]
        size = sum(view.nbytes for view in views) + WORD * len(views)
        if not 0 < len(views) <= MOST_PARTS or size > self.largest:
            raise RingError(
                f"ring {self.name}: a message of {len(views)} parts and {size:,} bytes does not fit: at most "
                f"{MOST_PARTS} parts and {self.largest:,} bytes do, half of the ring"
            )
        table = memoryview(b"".join(view.nbytes.to_bytes(WORD, "little") for view in views))
        memory, position = self._memory, self._memory.words[HEAD_WORD]
        span = -(-size // memory.slot_bytes)
        self._begin(position, span)
        _fill(memory.pieces(position, size), [table, *views])
        words, control = memory.words, memory.control(position)
        words[control + RECORD], words[control + BYTES] = self.records, size
        words[control + SPAN], words[control + PARTS] = span, len(views)
        words[control + WHOLE] = position + 1
        words[RECORDS_WORD] = self.records + 1
        words[HEAD_WORD] = position + span
        if keep:
            self._keep(position, table, views)
        self.records += 1

    def close(self, *, remove: bool = False) -> None:
        """End.

        Args:
            remove: Whether to take the ring away, too: readers read what is there to the end, and wait for
                the next ring of that name. Otherwise the next writer goes on in it.
        """
        if remove:
            self._memory.words[CLOSED_WORD] = 1
            for path in (self.path, kept_path(self.path)):
                path.unlink(missing_ok=True)
        self._memory.close()
        os.close(self._file)

    def _begin(self, position: int, span: int) -> None:
        """Say of each slot that it is written over, before the first byte of any of them is."""
        words = self._memory.words
        for at in range(position, position + span):
            control = self._memory.control(at)
            words[control + BEGUN] = at + 1
            words[control + WHOLE] = 0
            words[control + SPAN] = 0

    def _keep(self, position: int, table: memoryview, views: Sequence[memoryview]) -> None:
        words = self._memory.words
        told = (MAGIC, words[GENERATION_WORD], position, self.records, len(views))
        head = b"".join(word.to_bytes(WORD, "little") for word in told)
        path = kept_path(self.path)
        new = _new_kept_path(self.path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
                self._let_read(file.fileno())
                file.writelines([head, table, *views])
            new.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink()
            _log.warning(
                "readers that come late will miss the start of the series: %s: %s", path, error.strerror
            )
        words[START_WORD] = position + 1

    def _taken_over(self, slots: int, slot_bytes: int) -> int | None:
        """The file of a ring that is there, locked; None if there was none, or none of use."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RingError(f"{self.path} cannot be opened: {error.strerror}") from None
        try:
            if _fits(self._locked(file), slots, slot_bytes):
                self._let_read(file)
                return file
            self.path.unlink(missing_ok=True)
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return None

    def _locked(self, file: int) -> int:
        if os.fstat(file).st_uid != os.geteuid():
            raise RingError(f"{self.path} belongs to somebody else: remove it, or choose another name")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RingError(f"ring {self.name} has a writer already: only one can write it") from None
        return file

    def _made(self, slots: int, slot_bytes: int) -> int | None:
        """The file of a new ring, locked; None if somebody else was quicker.

        It has no name before it is ready, so that nothing is left if this process is killed meanwhile.
        """
        size = size_of(slots, slot_bytes)
        try:
            free = os.statvfs(DIRECTORY)
        except OSError as error:
            raise RingError(f"ring {self.name} cannot be made: {DIRECTORY}: {error.strerror}") from None
        most = int(free.f_bavail * free.f_frsize * _SHARE_OF_FREE)
        if size > most:
            raise RingError(
                f"ring {self.name} needs {size / 1e6:,.0f} MB, and may take {most / 1e6:,.0f} MB of "
                f"{DIRECTORY}: give it fewer or smaller slots, or the machine more shared memory"
            )
        directory = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        file = os.open(DIRECTORY, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
            fcntl.flock(file, fcntl.LOCK_EX)
            self._let_read(file)
            told = {MAGIC_WORD: MAGIC, SLOTS_WORD: slots, SLOT_BYTES_WORD: slot_bytes}
            for word, value in (told | {GENERATION_WORD: time.time_ns()}).items():
                os.pwrite(file, value.to_bytes(WORD, "little"), word * WORD)
            os.link(f"/proc/self/fd/{file}", self.path, src_dir_fd=directory)
        except FileExistsError:
            os.close(file)
            return None
        except OSError as error:
            os.close(file)
            raise RingError(f"ring {self.name} cannot be made: {error.strerror}") from None
        finally:
            os.close(directory)
        return file

    def _let_read(self, file: int) -> None:
        if self._group is None:
            os.fchmod(file, 0o600)
            return
        os.fchown(file, -1, self._group)
        os.fchmod(file, 0o640)


def _new_kept_path(path: Path) -> Path:
    """Where a record is written before it is the one that is kept."""
    kept = kept_path(path)
    return kept.with_name(f"{kept.name}.new")


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise RingError(f"there is no group {name!r} on this machine") from None


def _fits(file: int, slots: int, slot_bytes: int) -> bool:
    try:
        memory = RingMemory(file, writable=True)
    except RingError:
        return False
    fits = (memory.slots, memory.slot_bytes) == (slots, slot_bytes) and not memory.words[CLOSED_WORD]
    if not fits:
        memory.words[CLOSED_WORD] = 1
    memory.close()
    return fits


def _fill(target: Sequence[memoryview], parts: Sequence[memoryview]) -> None:
    """Copy parts, one after the other, into memory that lies in one piece or two."""
    room = list(target)
    for part in parts:
        source = part.cast("B") if part.nbytes and (part.format != "B" or part.ndim != 1) else part
        while source.nbytes:
            if not room[0].nbytes:
                room.pop(0)
            size = min(source.nbytes, room[0].nbytes)
            room[0][:size] = source[:size]
            room[0], source = room[0][size:], source[size:]
