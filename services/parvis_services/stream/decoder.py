"""Reads the messages of a detector's stream, whichever format it speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from parvis_services.stream import stream_v1, stream_v2
from parvis_services.stream.events import Event, MalformedStream

MOST_PARTS: Final = 64
"""So many parts may a message have."""

_JSON_STARTS: Final = b"{ \t\r\n"
_LOOKED_AT: Final = 256  # bytes in which a message says what it is
_V2_START: Final = b"dtypeestart"  # in CBOR, type: start
_V1_START: Final = b'"dheader-1.0"'


def is_start(parts: Sequence[bytes | memoryview]) -> bool:
    """Whether a message, which is not read further, says that it starts a series."""
    head = bytes(memoryview(parts[0])[:_LOOKED_AT]) if parts else b""
    return (_V1_START if head[:1] in _JSON_STARTS else _V2_START) in head


class StreamDecoder:
    """Reads messages. What a message is, it says itself: nothing is kept from one to the next.

    Args:
        channel: Which energy threshold to take of images that have several, `threshold_1` for instance; by
            default the first of each image.
    """

    def __init__(self, channel: str | None = None) -> None:
        self._channel = channel

    def decode(self, parts: Sequence[bytes | memoryview]) -> list[Event]:
        """Read a message.

        Args:
            parts: Its parts. The frames are views into them, and keep them alive.

        Returns:
            What it says, in order; a message of Stream V1 may hold the start of a series and an image.

        Raises:
            MalformedStream: It cannot be read. Nothing else is raised, whatever the message holds.
        """
        if not 0 < len(parts) <= MOST_PARTS:
            raise MalformedStream(f"a message of {len(parts)} parts")
        views = [memoryview(part) for part in parts]
        if views[0].nbytes and views[0][0] in _JSON_STARTS:
            return stream_v1.decode(views)
        return [stream_v2.decode(view, self._channel) for view in views]
