"""AMQP frames: whatever way they are cut, and what is no frame."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import spec

from parvis.transport.amqp_frames import HEARTBEAT, Content, Delivery, Item, Splitter, method, publication
from parvis.transport.wire import ProtocolError

LIMIT = 4096


def delivery(channel: int, tag: int, body: bytes) -> bytes:
    """A message as a broker delivers it."""
    properties = spec.BasicProperties(headers={"number": tag, "text": "é"}, message_id="abc")
    sent = publication(channel, "", "work", properties, body, mandatory=True, frame_max=LIMIT)
    start = struct.unpack_from(">I", sent, 3)[0] + 8  # without basic.publish
    return method(channel, spec.Basic.Deliver("tag", tag, True, "news", "work")) + sent[start:]


@given(st.lists(st.integers(0, 3 * LIMIT), max_size=4), st.integers(1, 5000))
def test_frames_are_found_however_they_are_cut(sizes: list[int], step: int) -> None:
    sent = b"".join(
        HEARTBEAT + delivery(number, number, bytes(size)) for number, size in enumerate(sizes, start=1)
    )
    splitter = Splitter(LIMIT)
    items: list[tuple[int, Item]] = []
    for at in range(0, len(sent), step):
        items += splitter.feed(sent[at : at + step])
    for number, size in enumerate(sizes, start=1):
        of_one = [item for channel, item in items if channel == number]
        assert of_one[0] == Delivery(number, True, "news", "work")
        assert isinstance(of_one[1], Content)
        assert (of_one[1].size, of_one[1].properties.message_id) == (size, "abc")
        assert of_one[1].properties.headers == {"number": number, "text": "é"}
        bodies = [item for item in of_one[2:] if isinstance(item, bytes)]
        assert sum(map(len, bodies)) == size
        assert all(len(body) <= LIMIT - 8 for body in bodies)


@given(st.binary(min_size=8, max_size=200))
def test_anything_else_is_a_protocol_error_or_waits_for_more(data: bytes) -> None:
    splitter = Splitter(LIMIT)
    with contextlib.suppress(ProtocolError):
        list(splitter.feed(data))
        list(splitter.feed(bytes(2 * LIMIT)))


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack(">BHI", 1, 0, LIMIT + 1),
        HEARTBEAT[:-1] + b"\x00",
        struct.pack(">BHI", 1, 0, 4) + b"\xff\xff\xff\xff\xce",
        struct.pack(">BHI", 1, 1, 6) + struct.pack(">HH", 60, 60) + b"\xff\x00\xce",
        struct.pack(">BHI", 2, 1, 14) + bytes(12) + b"\xff\xff\xce",
    ],
)
def test_broken_frames_are_protocol_errors(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Splitter(LIMIT).feed(data))
