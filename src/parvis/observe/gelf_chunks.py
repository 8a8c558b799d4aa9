"""Puts messages together that come by UDP in chunks, in any order, within bounds of time and memory."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from parvis.observe.gelf_message import NotGelf

_MAGIC: Final = b"\x1e\x0f"
_HEAD: Final = 12  # magic, eight bytes of identity, number, how many
_MOST_CHUNKS: Final = 128
_PATIENCE: Final = 5.0  # seconds that a message may take, as the format says
_MOST_SETS: Final = 1000
_MOST_BYTES: Final = 32_000_000


@dataclass(slots=True)
class _Set:
    """The chunks of a message that have come."""

    count: int
    begun: float
    pieces: dict[int, bytes] = field(default_factory=dict[int, bytes])
    size: int = 0


_Key = tuple[str, bytes]


class Chunks:
    """The messages that are not whole yet. If there are too many, whoever sent the most loses the oldest."""

    def __init__(self) -> None:
        self._sets: dict[_Key, _Set] = {}
        self._bytes = 0
        self._held: Counter[str] = Counter()  # bytes of each sender, and some for each set

    def __len__(self) -> int:
        return len(self._sets)

    def take(self, sender: str, data: bytes, now: float | None = None) -> bytes | None:
        """Take a datagram; return the message, if it is whole now.

        Raises:
            NotGelf: It is a chunk, and damaged.
        """
        if data[:2] != _MAGIC:
            return data
        moment = time.monotonic() if now is None else now
        if len(data) < _HEAD:
            raise NotGelf("a chunk without its head")
        number, count = data[10], data[11]
        if not 0 < count <= _MOST_CHUNKS or number >= count:
            raise NotGelf(f"chunk {number} of {count}")
        key = sender, data[2:10]
        known = self._sets.get(key)
        if known is None or moment - known.begun > _PATIENCE:
            self._forget(key)
            self._make_room(len(data))
            known = self._sets[key] = _Set(count, moment)
        if known.count != count:
            self._forget(key)
            raise NotGelf("two chunks of one message say differently how many there are")
        if number not in known.pieces:
            known.pieces[number] = data[_HEAD:]
            self._count(key, known, len(data))
        if len(known.pieces) < count:
            return None
        self._forget(key)
        return b"".join(known.pieces[place] for place in range(count))

    def forget_old(self, now: float | None = None) -> None:
        """Forget what has not become whole in time."""
        moment = time.monotonic() if now is None else now
        for key in [key for key, one in self._sets.items() if moment - one.begun > _PATIENCE]:
            self._forget(key)

    def _count(self, key: _Key, one: _Set, size: int) -> None:
        one.size += size
        self._bytes += size
        self._held[key[0]] += size
        if self._bytes > _MOST_BYTES:
            self._make_room(0)

    def _make_room(self, size: int) -> None:
        while self._sets and (len(self._sets) >= _MOST_SETS or self._bytes + size > _MOST_BYTES):
            greediest = max(self._held, key=self._held.__getitem__)
            self._forget(next(key for key in self._sets if key[0] == greediest))

    def _forget(self, key: _Key) -> None:
        one = self._sets.pop(key, None)
        if one is None:
            return
        self._bytes -= one.size
        self._held[key[0]] -= one.size
        if self._held[key[0]] <= 0:
            del self._held[key[0]]
