"""Those that read a ring in shared memory, as many as there are."""

from __future__ import annotations

import os
import time
from typing import Final

from parvis_services.stream.events import Bytes
from parvis_services.stream.ring_layout import (
    BEGUN,
    BYTES,
    CLOSED_WORD,
    GENERATION_WORD,
    HEAD_WORD,
    KEPT_WORDS,
    MAGIC,
    MOST_PARTS,
    PARTS,
    RECORD,
    SPAN,
    START_WORD,
    WHOLE,
    WORD,
    RingError,
    RingMemory,
    check_machine,
    check_trust,
    kept_path,
    path_of,
)
from parvis_services.stream.sources import Source

_PAUSES: Final = (0.0001, 0.002, 0.01)  # s: the first, the longest, and the longest after a second of silence
_SILENCE: Final = 1.0
_LOOK_AGAIN: Final = 0.25  # s of silence after which to look whether there is another ring of that name


class RingReader(Source):
    """Reads a ring, which need not be there yet and may be made anew.

    The first message is the start of the last series, if there was one, else the oldest message.

    Raises:
        RingError: This machine does not show in order what is written in order.
        ValueError: No ring can be called so.
    """

    def __init__(self, name: str) -> None:
        check_machine()
        self.name = name
        self.path = path_of(name)
        self._memory: RingMemory | None = None
        self._position = 0
        self._next_record: int | None = None
        self._kept: tuple[int, list[Bytes]] | None = None
        self._lost = 0
        self._is_first = True

    @property
    def lost(self) -> int:
        """How many messages were written over before they were read."""
        return self._lost

    def receive(self, timeout: float) -> list[Bytes] | None:
        """As `Source.receive`. The parts are copies.

        Raises:
            RingError: There is something of that name that is no ring, or that may not be read.
        """
        begun = looked = time.monotonic()
        pause = _PAUSES[0]
        while True:
            message = self._next()
            if message is not None:
                return message
            now = time.monotonic()
            if self._memory is None or self._is_closed() or now - looked > _LOOK_AGAIN:
                looked = now
                if self._attach():
                    continue
            left = begun + timeout - now
            if left <= 0:
                return None
            time.sleep(min(pause, left))
            pause = min(2 * pause, _PAUSES[1] if now - begun < _SILENCE else _PAUSES[2])

    def close(self) -> None:
        """As `Source.close`. The ring stays."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _is_closed(self) -> bool:
        return self._memory is not None and bool(self._memory.words[CLOSED_WORD])

    def _attach(self) -> bool:
        """Take the ring of our name, if it is another than the one that we have."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise RingError(f"{self.path} cannot be read: {error.strerror}") from None
        try:
            if self._memory is not None and os.fstat(file).st_ino == self._memory.inode:
                return False
            check_trust(self.path, os.fstat(file))
            memory = RingMemory(file, writable=False)
        except RingError as error:
            raise RingError(f"{self.path}: {error}") from None
        finally:
            os.close(file)
        self.close()
        self._memory = memory
        self._position, self._next_record = 0, None
        start = memory.words[START_WORD]
        if self._is_first and start:
            self._position = start - 1
        self._is_first = False
        return True

    def _next(self) -> list[Bytes] | None:
        """The next message that is whole, or None if there is none yet."""
        memory = self._memory
        if memory is None:
            return None
        while self._position < (head := memory.words[HEAD_WORD]):
            if head - self._position <= memory.slots:
                message = self._copied(memory)
                if message is not None:
                    return message
            kept = self._catch_up(memory)
            if kept is not None:
                return kept
        return None

    def _copied(self, memory: RingMemory) -> list[Bytes] | None:
        """The message at our position, or None if it is written over."""
        words, control, stamp = memory.words, memory.control(self._position), self._position + 1
        if words[control + BEGUN] != stamp or words[control + WHOLE] != stamp:
            return None
        record, size, span, parts = (words[control + word] for word in (RECORD, BYTES, SPAN, PARTS))
        if not 0 < span <= memory.slots or not 0 < parts <= MOST_PARTS or size > span * memory.slot_bytes:
            return None
        pieces = memory.pieces(self._position, size)
        copy = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        if words[control + BEGUN] != stamp:
            return None
        message = _split(copy, parts)
        if message is not None:
            self._position += span
            self._count(record)
        return message

    def _count(self, record: int) -> None:
        if self._next_record is not None:
            self._lost += max(0, record - self._next_record)
        self._next_record = record + 1

    def _catch_up(self, memory: RingMemory) -> list[Bytes] | None:
        """Go on with a message that will stay for a while, a quarter of the ring behind the oldest.

        Returns:
            The start of a series, if that was passed over.
        """
        words, before, head = memory.words, self._position, memory.words[HEAD_WORD]
        position = max(before + 1, head - memory.slots + memory.slots // 4)
        while position < head:
            control, stamp = memory.control(position), position + 1
            if words[control + BEGUN] == words[control + WHOLE] == stamp and words[control + SPAN]:
                break
            position += 1
        self._position = position
        start = words[START_WORD]
        return self._kept_message(memory, start - 1) if before < start <= position else None

    def _kept_message(self, memory: RingMemory, position: int) -> list[Bytes] | None:
        """The message that starts the series, from its file; None if it is another's by now."""
        try:
            with open(kept_path(self.path), "rb") as file:  # noqa: PTH123 - opened beside the ring, as that was
                check_trust(self.path, os.fstat(file.fileno()))
                head = memoryview(file.read(KEPT_WORDS * WORD))
                content = file.read()
        except OSError:
            return None
        if head.nbytes != KEPT_WORDS * WORD:
            return None
        magic, generation, at, record, parts = head.cast("Q")
        if (magic, generation, at) != (MAGIC, memory.words[GENERATION_WORD], position) or parts > MOST_PARTS:
            return None
        message = _split(content, parts)
        if message is not None:
            self._count(record)
        return message


def _split(content: bytes, parts: int) -> list[Bytes] | None:
    """The parts of a message, whose sizes stand in front of them; None if they do not fit."""
    table = parts * WORD
    if len(content) < table:
        return None
    view = memoryview(content)
    sizes = view[:table].cast("Q").tolist()
    if sum(sizes) != len(content) - table:
        return None
    message: list[Bytes] = []
    for size in sizes:
        message.append(view[table : table + size])
        table += size
    return message
