"""An object of a directory store as one file: its content, what is known of it, and how long these are.

The content comes first, so that a part of it is read without reading anything else, and other programs can
map it. All is in one file, since one name can be made in one step, and two cannot: there is never a content
without its checksum. What extended attributes hold is lost by most copies, and some file systems have none.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from parvis_services.stores.store import Bytes

_MARK: Final = b"PARVOBJ1"
_FOOT: Final = struct.Struct("<QI8s")  # bytes of the content, bytes of the notes, mark
_LONGEST_NOTES: Final = 64 << 10
_AT_ONCE: Final = 4096  # most notes and foot are read with one look


class BadObjectFile(ValueError):
    """A file is no whole object."""


@dataclass(frozen=True, slots=True)
class ObjectNotes:
    """What is known of an object: the bytes of its content, its checksum, and its metadata."""

    size: int
    sha256: str
    metadata: Mapping[str, str]


def notes_of(data: Bytes, metadata: Mapping[str, str]) -> ObjectNotes:
    """What is to be known of an object with this content."""
    return ObjectNotes(memoryview(data).nbytes, hashlib.sha256(data).hexdigest(), metadata)


def write_object(descriptor: int, data: Bytes, notes: ObjectNotes) -> None:
    """Write an object into an empty file. Raises OSError."""
    told = orjson.dumps({"sha256": notes.sha256, "metadata": dict(notes.metadata)})
    pieces = [
        memoryview(data).cast("B"),
        memoryview(told),
        memoryview(_FOOT.pack(notes.size, len(told), _MARK)),
    ]
    while pieces:
        written = os.writev(descriptor, pieces)
        while pieces and written >= pieces[0].nbytes:
            written -= pieces.pop(0).nbytes
        if pieces:
            pieces[0] = pieces[0][written:]


def read_notes(descriptor: int) -> ObjectNotes:
    """Read what is known of an object.

    Raises:
        BadObjectFile: The file was cut short, or is none of ours.
    """
    length = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, min(length, _AT_ONCE), max(0, length - _AT_ONCE))
    if len(tail) < _FOOT.size:
        raise BadObjectFile("the file is cut short")
    size, told, mark = _FOOT.unpack(tail[-_FOOT.size :])
    if mark != _MARK or told > _LONGEST_NOTES or size + told + _FOOT.size != length:
        raise BadObjectFile("the file was not written whole, or by another program")
    rest = told + _FOOT.size
    if len(tail) < rest:
        tail = os.pread(descriptor, rest, length - rest)
    try:
        content: Any = orjson.loads(tail[-rest : -_FOOT.size])
        sha256, metadata = content["sha256"], content["metadata"]
    except (ValueError, KeyError, TypeError):
        raise BadObjectFile("what the file says of its content cannot be read") from None
    if not isinstance(sha256, str) or not isinstance(metadata, dict):
        raise BadObjectFile("what the file says of its content cannot be read")
    texts = {str(name): str(text) for name, text in cast("dict[Any, Any]", metadata).items()}
    return ObjectNotes(size, sha256, texts)


def read_content(descriptor: int, start: int, length: int) -> bytes:
    """Read a part of the content, which must be within it. Raises BadObjectFile if there is less."""
    pieces: list[bytes] = []
    while length > 0:
        piece = os.pread(descriptor, length, start)
        if not piece:
            raise BadObjectFile("the file is cut short")
        pieces.append(piece)
        start, length = start + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
