"""AMQP 0-9-1 on the wire: frames from bytes, bytes for methods and messages. Nothing here knows a socket.

The methods, their arguments and the tables in headers are those of `pika.spec`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pika import frame, spec

from parvis.transport.wire import ProtocolError

PROTOCOL_HEADER: Final = b"AMQP\0\0\x09\x01"
HEARTBEAT: Final = b"\x08\0\0\0\0\0\0\xce"

_HEAD: Final = struct.Struct(">BHI")
_END: Final = b"\xce"
_PUBLISH: Final = struct.Struct(">HHH")
_DELIVER: Final = struct.Struct(">QB")
_BASIC_DELIVER: Final = struct.pack(">HH", 60, 60)
_OVERHEAD: Final = 8  # bytes of a frame around its payload
_METHOD, _HEADER, _BODY, _BEAT = 1, 2, 3, 8


@dataclass(frozen=True, slots=True)
class Delivery:
    """The beginning of a message for a consumer."""

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Content:
    """Size and properties of a message whose bytes follow."""

    size: int
    properties: spec.BasicProperties


Item = Delivery | Content | bytes | Any
"""What a frame holds: the beginning of a message, its properties, bytes of it, or a method of `pika.spec`."""


class Splitter:
    """Finds the frames in what a broker sends.

    Args:
        limit: Bytes of the largest frame that was agreed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, Item]]:
        """Give each whole frame as (channel, content); without heart-beats.

        Raises:
            ProtocolError: This is no AMQP.
        """
        data = self._rest + data if self._rest else data
        start = 0
        self._rest = b""
        while len(data) - start >= _HEAD.size:
            kind, channel, size = _HEAD.unpack_from(data, start)
            if size + _OVERHEAD > self._limit or kind not in (_METHOD, _HEADER, _BODY, _BEAT):
                raise ProtocolError(f"this is no AMQP frame: {data[start : start + 20]!r}")
            end = start + _HEAD.size + size
            if len(data) <= end:
                break
            if data[end : end + 1] != _END:
                raise ProtocolError("a frame does not end where it says")
            if kind != _BEAT:
                yield channel, _item(kind, data[start + _HEAD.size : end])
            start = end + 1
        self._rest = data[start:]


def _item(kind: int, payload: bytes) -> Item:
    if kind == _BODY:
        return payload
    if kind == _METHOD and payload.startswith(_BASIC_DELIVER):
        return _delivery(payload)
    try:
        if kind == _HEADER:
            size = struct.unpack_from(">Q", payload, 4)[0]
            properties = spec.BasicProperties()
            properties.decode(payload[12:])
            return Content(size, properties)
        method = spec.methods[struct.unpack_from(">I", payload)[0]]()
        method.decode(payload, 4)
    except Exception as error:
        raise ProtocolError(f"a frame cannot be read: {type(error).__name__}: {error}") from error
    return method


def _delivery(payload: bytes) -> Delivery:
    try:
        at = 5 + payload[4]
        tag, flags = _DELIVER.unpack_from(payload, at)
        at += _DELIVER.size
        key = at + 1 + payload[at]
        exchange = payload[at + 1 : key].decode()
        routing_key = payload[key + 1 : key + 1 + payload[key]].decode(errors="replace")
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"a delivery cannot be read: {error}") from None
    return Delivery(tag, bool(flags & 1), exchange, routing_key)


def method(channel: int, one: Any) -> bytes:
    """The frame of a method of `pika.spec`."""
    return frame.Method(channel, one).marshal()


def publication(
    channel: int,
    exchange: str,
    routing_key: str,
    properties: spec.BasicProperties,
    body: bytes,
    *,
    mandatory: bool,
    frame_max: int,
) -> bytes:
    """The frames that publish a message.

    Raises:
        ValueError: Its headers are too large for one frame, or there is one that AMQP cannot carry.
    """
    to, key = exchange.encode(), routing_key.encode()
    start = _PUBLISH.pack(60, 40, 0) + bytes((len(to),)) + to + bytes((len(key),)) + key + bytes((mandatory,))
    try:
        header = frame.Header(channel, len(body), properties).marshal()
    except Exception as error:
        raise ValueError(f"AMQP cannot carry the headers: {type(error).__name__}: {error}") from error
    if len(header) > frame_max:
        raise ValueError(f"headers of {len(header)} bytes are too large: the broker takes {frame_max}")
    parts = [_frame(_METHOD, channel, start), header]
    room = frame_max - _OVERHEAD
    parts += [_frame(_BODY, channel, body[at : at + room]) for at in range(0, len(body), room)]
    return b"".join(parts)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _HEAD.pack(kind, channel, len(payload)) + payload + _END
