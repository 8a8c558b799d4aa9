"""The STOMP codec: what is written is read back, in any pieces; hostile bytes are refused, quickly."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis.transport.stomp_frames import (
    HEARTBEAT,
    VERSIONS,
    Frame,
    Item,
    Parser,
    ProtocolError,
    encode,
    negotiate,
)

ALPHABET = st.characters(exclude_characters="\0", exclude_categories=("Cs",))
HEADERS = st.dictionaries(
    st.text(ALPHABET, min_size=1).filter(lambda name: name != "content-length"), st.text(ALPHABET), max_size=6
)
FRAMES = st.builds(Frame, st.just("SEND"), HEADERS, st.binary(max_size=60))


def read(data: bytes, version: str = "1.2", piece: int = 1_000_000, **limits: int) -> list[Item]:
    parser = Parser(**limits)
    parser.version = version
    pieces = range(0, len(data), piece)
    return [item for start in pieces for item in parser.feed(data[start : start + piece])]


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_frames_written_are_read_back_in_any_pieces(frames: list[Frame], sizes: list[int]) -> None:
    data = b"\n".join(encode(frame) for frame in frames)
    parser, got, position, turn = Parser(), [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        got += [item for item in parser.feed(data[position : position + size]) if item is not HEARTBEAT]
        position, turn = position + size, turn + 1
    for frame in frames:
        if frame.body:
            frame.headers["content-length"] = str(len(frame.body))
    assert got == frames


@given(st.binary(max_size=300))
def test_any_bytes_give_items_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert all(item is HEARTBEAT or isinstance(item, Frame) for item in read(data))


@pytest.mark.parametrize(
    ("version", "on_the_wire", "read_back"),
    [
        ("1.2", b"a\\cb:\\n\\r\\\\", {"a:b": "\n\r\\"}),
        ("1.1", b"a\\cb:\\n \\\\", {"a:b": "\n \\"}),
        ("1.0", b"a b:  \\", {"a b": "\\"}),
    ],
)
def test_each_version_has_its_escapes(version: str, on_the_wire: bytes, read_back: dict[str, str]) -> None:
    data = encode(Frame("SEND", {"a:b": "\n\r\\"}), version)
    assert data == b"SEND\n" + on_the_wire + b"\n\n\0"
    assert read(data, version) == [Frame("SEND", read_back)]


def test_connect_is_not_escaped_and_cannot_carry_line_ends() -> None:
    data = encode(Frame("CONNECT", {"passcode": "a:b\\n"}))
    assert data == b"CONNECT\npasscode:a:b\\n\n\n\0"
    assert read(data) == [Frame("CONNECT", {"passcode": "a:b\\n"})]
    with pytest.raises(ProtocolError, match="passcode"):
        encode(Frame("CONNECT", {"passcode": "a\nlogin:admin"}))


def test_nul_in_a_header_cannot_be_written() -> None:
    with pytest.raises(ProtocolError, match="NUL"):
        encode(Frame("SEND", {"a": "\0"}))


def test_content_length_written_is_the_true_one() -> None:
    data = encode(Frame("SEND", {"content-length": "9"}, b"a\0b"))
    assert data == b"SEND\ncontent-length:3\n\na\0b\0"


def test_body_without_content_length_ends_at_nul() -> None:
    assert read(b"SEND\ndestination:/queue/a\n\nhello\0") == [
        Frame("SEND", {"destination": "/queue/a"}, b"hello")
    ]


def test_duplicate_headers_first_wins() -> None:
    assert read(b"SEND\na:1\na:2\na\\n:3\na\\n:4\n\n\0") == [Frame("SEND", {"a": "1", "a\n": "3"})]


@pytest.mark.parametrize("version", VERSIONS)
def test_lines_may_end_in_cr_lf(version: str) -> None:
    data = b"SEND\r\na:b\r\ncontent-length:2\r\n\r\nxy\0\r\n\r\nABORT\r\n\r\n\0"
    expected = [Frame("SEND", {"a": "b", "content-length": "2"}, b"xy"), HEARTBEAT, Frame("ABORT")]
    assert read(data, version) == expected


def test_headers_of_1_0_are_trimmed_and_those_of_1_2_are_not() -> None:
    data = b"SEND\na : b \n\n\0"
    assert read(data, "1.0") == [Frame("SEND", {"a": "b"})]
    assert read(data, "1.2") == [Frame("SEND", {"a ": " b "})]


def test_heartbeats_between_frames_are_told_once_a_run() -> None:
    assert read(b"\n\nABORT\n\n\0\n") == [HEARTBEAT, Frame("ABORT"), HEARTBEAT]


def test_the_version_follows_connect_for_frames_in_the_same_piece() -> None:
    connect = b"CONNECT\naccept-version:1.0,1.1\n\n\0"
    with pytest.raises(ProtocolError, match="undefined escape"):
        read(connect + b"SEND\na:\\r\n\n\0")
    assert read(b"CONNECT\n\n\0SEND\na:\\r\n\n\0")[1] == Frame("SEND", {"a": "\\r"})
    assert read(b"CONNECTED\nversion:1.0\n\n\0RECEIPT\na:\\r\n\n\0")[1] == Frame("RECEIPT", {"a": "\\r"})


@pytest.mark.parametrize(
    ("offered", "version"),
    [(None, "1.0"), ("1.0,1.1", "1.1"), ("1.1, 1.2,2.0", "1.2"), ("3.0", None), ("", None)],
)
def test_the_best_common_version_is_negotiated(offered: str | None, version: str | None) -> None:
    assert negotiate(offered) == version


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "unknown command 'GET"),
        (b"SEND\nnocolon\n\n\0", "not 'name:value'"),
        (b"SEND\n:x\n\n\0", "not 'name:value'"),
        (b"SEND\na:\\t\n\n\0", "undefined escape"),
        (b"SEND\na:x\\\n\n\0", "undefined escape"),
        (b"SEND\na:\xff\n\n\0", "UTF-8"),
        (b"SEND\na:\0SEND\nb:c\n\n\0", "NUL"),
        (b"SEND\ncontent-length:-1\n\n\0", "not a number"),
        (b"SEND\ncontent-length:\xc2\xb2\n\n\0", "not a number"),
        (b"SEND\ncontent-length:" + b"9" * 5000 + b"\n\n\0", "not a number"),
        (b"SEND\ncontent-length:1001\n\n", "1001 bytes or more"),
        (b"SEND\ncontent-length:2\n\nabc\0", "no NUL"),
        (b"SEND\n\n" + b"x" * 1001, "1001 bytes or more"),
        (b"SEND\n" + b"x" * 10_000, "longer than 9000"),
        (b"SEND\n" + b"a:b\n" * 21 + b"\n\0", "more than 20 headers"),
    ],
)
def test_hostile_input_is_refused_in_any_pieces(data: bytes, says: str) -> None:
    for piece in (1_000_000, 1):
        with pytest.raises(ProtocolError, match=says):
            read(data, piece=piece, max_head=9000, max_headers=20, max_body=1000)


def test_what_came_before_an_error_is_kept_and_the_parser_stays_shut() -> None:
    parser = Parser()
    with pytest.raises(ProtocolError) as caught:
        parser.feed(b"ABORT\n\n\0NONSENSE\n\n\0")
    assert caught.value.before == [Frame("ABORT")]
    with pytest.raises(ProtocolError, match="NONSENSE"):
        parser.feed(b"ABORT\n\n\0")


def test_limits_allow_what_they_say() -> None:
    head = b"SEND\na:" + b"x" * 20
    assert read(head + b"\r\n\r\n" + b"y" * 50 + b"\0", max_head=len(head) + 1, max_headers=1, max_body=50)
    with pytest.raises(ProtocolError):
        read(head + b"\n\n\0", max_head=len(head) - 3)
