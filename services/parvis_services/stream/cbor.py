"""A reader of CBOR (RFC 8949) for what strangers send.

A byte string becomes a view into the message: a library would copy each frame. Nothing is made of a tag, so
that no message can have dates, expressions or references made that cost more than reading it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from parvis_services.stream.events import MalformedStream

_DEEPEST: Final = 16
_MOST_ITEMS: Final = 100_000
_LONGEST_TEXT: Final = 16 * 1024 * 1024

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_INDEFINITE: Final = 31
_FLOATS: Final = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_SIMPLES: Final = {20: False, 21: True, 22: None, 23: None}
_BREAK: Final = object()


@dataclass(frozen=True, slots=True)
class Tag:
    """A value and the number that says how it is meant."""

    number: int
    value: Any


def read_cbor(message: bytes | memoryview) -> Any:
    """Read a message that is one CBOR item.

    Returns:
        Numbers, texts, truth values, None, lists, dictionaries with texts as keys, `Tag`, and for a byte
        string a memoryview that keeps the message alive.

    Raises:
        MalformedStream: It is no CBOR, too deeply nested, has too many items, or something follows it.
    """
    view = memoryview(message)
    if not view.c_contiguous:
        raise MalformedStream("a message must lie in one piece")
    reader = _Reader(view.cast("B") if view.format != "B" or view.ndim != 1 else view)
    value = reader.item(_DEEPEST)
    if value is _BREAK:
        raise MalformedStream("the CBOR message begins with the end of something")
    if reader.position != len(view):
        raise MalformedStream(f"{len(view) - reader.position} bytes follow the end of the CBOR message")
    return value


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.position = 0
        self._data = data
        self._items = 0

    def item(self, depth: int) -> Any:  # noqa: PLR0911 - one for each kind of item
        """Read one item, which may have `depth` levels."""
        self._items += 1
        if depth < 0 or self._items > _MOST_ITEMS:
            raise MalformedStream(
                f"the CBOR message has more than {_DEEPEST} levels"
                if depth < 0
                else f"the CBOR message has more than {_MOST_ITEMS:,} items"
            )
        head = self._take(1)[0]
        major, detail = head >> 5, head & 31
        if major == _SIMPLE:
            return self._simple(detail)
        if detail == _INDEFINITE:
            return self._indefinite(major, depth)
        argument = self._argument(detail)
        if major == _UNSIGNED:
            return argument
        if major == _NEGATIVE:
            return -1 - argument
        if major == _BYTES:
            return self._take(argument)
        if major == _TEXT:
            return self._text(argument)
        if major == _ARRAY:
            return [self._value(depth) for _ in self._count(argument)]
        if major == _MAP:
            return dict(self._pair(depth) for _ in self._count(argument))
        return Tag(argument, self._value(depth))

    def _take(self, size: int) -> memoryview:
        end = self.position + size
        if end > len(self._data):
            raise MalformedStream(
                f"the CBOR message ends after {len(self._data)} bytes, where {end} are needed"
            )
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _argument(self, detail: int) -> int:
        if detail < 24:
            return detail
        if detail > 27:
            raise MalformedStream(
                f"no CBOR: byte {self.position - 1} gives a length of a kind that there is not"
            )
        return int.from_bytes(self._take(1 << detail - 24), "big")

    def _count(self, items: int) -> range:
        """For each of so many items; a count that the message cannot hold is found before it is believed."""
        if items > len(self._data) - self.position:
            raise MalformedStream(f"the CBOR message ends before {items} items")
        return range(items)

    def _value(self, depth: int) -> Any:
        value = self.item(depth - 1)
        if value is _BREAK:
            raise MalformedStream("no CBOR: something ends that did not begin")
        return value

    def _pair(self, depth: int) -> tuple[str, Any]:
        key = self._value(depth)
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise MalformedStream(f"a key of a CBOR map is a {type(key).__name__}, not a text")
        return str(key), self._value(depth)

    def _text(self, size: int) -> str:
        if size > _LONGEST_TEXT:
            raise MalformedStream(f"a text of {size:,} bytes is too long")
        try:
            return str(self._take(size), "utf-8")
        except UnicodeDecodeError:
            raise MalformedStream("a text of the CBOR message is not UTF-8") from None

    def _simple(self, detail: int) -> Any:
        if detail == _INDEFINITE:
            return _BREAK
        if detail in _FLOATS:
            kind = _FLOATS[detail]
            return kind.unpack(self._take(kind.size))[0]
        if detail == 24:
            self._take(1)
        elif detail > 24:
            raise MalformedStream(f"no CBOR: byte {self.position - 1} begins nothing that there is")
        return _SIMPLES.get(detail)

    def _indefinite(self, major: int, depth: int) -> Any:
        if major == _ARRAY:
            values: list[Any] = []
            while (value := self.item(depth - 1)) is not _BREAK:
                values.append(value)
            return values
        if major == _MAP:
            pairs: dict[str, Any] = {}
            while not self._ends():
                key, value = self._pair(depth)
                pairs[key] = value
            return pairs
        if major in {_BYTES, _TEXT}:
            return self._pieces(major, depth)
        raise MalformedStream(f"no CBOR: byte {self.position - 1} begins something without an end")

    def _ends(self) -> bool:
        """Whether the end of something follows; it is read then."""
        if self._take(1)[0] == 0xFF:
            return True
        self.position -= 1
        return False

    def _pieces(self, major: int, depth: int) -> Any:
        """A string that is sent in pieces. The pieces of a text are each whole texts."""
        pieces: list[Any] = []
        wanted = str if major == _TEXT else memoryview
        while (piece := self.item(depth - 1)) is not _BREAK:
            if not isinstance(piece, wanted):
                raise MalformedStream("no CBOR: a string in pieces has a piece of another kind")
            pieces.append(piece)
        return "".join(pieces) if major == _TEXT else memoryview(b"".join(pieces))
