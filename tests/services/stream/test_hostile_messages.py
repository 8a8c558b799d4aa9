"""Messages of strangers: read, or refused with the one exception that there is for it."""

from __future__ import annotations

import contextlib
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parvis_services.stream import stream_v1, stream_v2
from parvis_services.stream.cbor import read_cbor
from parvis_services.stream.dcid import dcid_of
from parvis_services.stream.decoder import StreamDecoder
from parvis_services.stream.events import MalformedStream, SeriesStart
from stream_vectors import V2_END, V2_PACKED, V2_RAW, frame, series_start

V1_MESSAGES = [[bytes(part) for part in stream_v1.encode(one)] for one in (series_start(), frame(1))]
V2_MESSAGES = [V2_RAW, V2_PACKED, V2_END, stream_v2.encode(series_start())]

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        | st.builds(cbor2.CBORTag, st.sampled_from([0, 1, 2, 30, 40, 64, 69, 70, 55799, 56500]), inner)
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "type",
        "series_id",
        "series_unique_id",
        "image_id",
        "data",
        "pixel_mask",
        "user_data",
        "goniometer",
        "threshold_energy",
        "image_size_x",
        "start_time",
        "detector_translation",
        "saturation_value",
    ]
)


def read(parts: list[bytes]) -> None:
    """Read a message; anything but a refusal in the stated form is an error of the test."""
    with contextlib.suppress(MalformedStream):
        for event in StreamDecoder().decode(parts):
            if isinstance(event, SeriesStart):
                dcid_of(event)


def changed(message: bytes, changes: list[tuple[int, int]], length: int | None) -> bytes:
    content = bytearray(message)
    for position, value in changes:
        content[position % len(content)] = value
    return bytes(content[:length])


CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=6))
def test_anything(parts: list[bytes]) -> None:
    read(parts)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(V2_MESSAGES), CHANGES, st.none() | st.integers(0, 500))
def test_changed_messages_of_v2(message: bytes, changes: list[tuple[int, int]], length: int | None) -> None:
    read([changed(message, changes, length)])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(V1_MESSAGES), st.integers(0, 9), CHANGES, st.none() | st.integers(0, 200))
def test_changed_messages_of_v1(
    message: list[bytes], which: int, changes: list[tuple[int, int]], length: int | None
) -> None:
    parts = [*message]
    parts[which % len(parts)] = changed(parts[which % len(parts)], changes, length)
    read(parts)
    read(parts[which % len(parts) :])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["start", "image", "end"]), st.dictionaries(KEYS, VALUES, max_size=6))
def test_maps_with_the_right_keys(kind: str, content: dict[str, Any]) -> None:
    read([cbor2.dumps({"series_id": 1, "image_id": 1, **content, "type": kind})])


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x81" * 100_000,
        b"\x9f" * 100_000,
        b"\xd8\x28" * 100_000,
        b"\xa1\x61a" * 100_000,
        b"\x5f" * 100_000,
        b"\xbf\x61a" * 100_000,
    ],
)
def test_nested_without_end(bomb: bytes) -> None:
    with pytest.raises(MalformedStream, match="levels"):
        read_cbor(bomb)


def test_json_nested_without_end() -> None:
    for depth in (500, 100_000):
        bomb = b'{"htype":"dheader-1.0","series":1,"header_detail":"basic"}'
        with pytest.raises(MalformedStream):
            StreamDecoder().decode([bomb, b'{"a":' + b"[" * depth + b"]" * depth + b"}"])


@pytest.mark.parametrize(
    "lie", [b"\x9b" + b"\xff" * 8, b"\xbb" + b"\xff" * 8, b"\x5b" + b"\xff" * 8, b"\x7a\x00\x7f" * 3]
)
def test_lengths_that_the_message_does_not_have(lie: bytes) -> None:
    with pytest.raises(MalformedStream, match="ends"):
        read_cbor(lie)


def test_more_items_than_any_detector_sends() -> None:
    with pytest.raises(MalformedStream, match="100,000 items"):
        read_cbor(cbor2.dumps([0] * 200_000))


def test_nothing() -> None:
    for parts in ([], [b""], [b"", b""]):
        with pytest.raises(MalformedStream):
            StreamDecoder().decode(parts)


@settings(deadline=None)
@given(VALUES)
def test_what_is_understood_is_what_others_understand(value: Any) -> None:
    """Tags aside, which are read as they are, and keys, which become texts."""
    packed = cbor2.dumps(value)
    if b"\xd8" in packed or any(head in packed for head in (b"\xc0", b"\xc1", b"\xc2", b"\xc3", b"\xd9")):
        return
    assert repr(_plain(read_cbor(packed))) == repr(_plain(cbor2.loads(packed)))


def _plain(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return {key: _plain(one) for key, one in value.items()} if hasattr(value, "items") else value
