"""Messages as STOMP frames."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis.transport.base import Message, Send, own_headers
from parvis.transport.stomp_frames import Frame, Parser, encode
from parvis.transport.stomp_messages import LONGEST_HEADER, clip, dead_letter, received, send_frame


def header_on_the_wire(value: str) -> bytes:
    return encode(Frame("SEND", {"x": value}))[len(b"SEND\nx:") : -len(b"\n\n\0")]


def test_headers_as_the_field_expects_them() -> None:
    send = Send("mailnotification", b"{}", {"workflows-recipe": "True"}, delay=1.5, priority=7)
    frame = send_frame(send, "zocalo")
    assert frame.headers == {
        "workflows-recipe": "True",
        "destination": "/queue/zocalo.mailnotification",
        "persistent": "true",
        "priority": "7",
        "AMQ_SCHEDULED_DELAY": "1500",
    }
    assert b"\ncontent-length:2\n" in encode(frame)


def test_expiry_is_a_moment_in_milliseconds() -> None:
    before = time.time()
    frame = send_frame(Send("transient.status", b"", kind="topic", persistent=False, expiration=15), "")
    assert frame.headers.keys() == {"destination", "expires"}
    assert frame.headers["destination"] == "/topic/transient.status"
    assert (before + 15) * 1000 - 1 <= int(frame.headers["expires"]) <= (time.time() + 15) * 1000 + 1


@pytest.mark.parametrize("name", ["destination", "receipt", "transaction", "content-length"])
def test_headers_of_the_transport_cannot_be_given(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        send_frame(Send("work", b"", {name: "x"}), "")


def test_names_without_namespace() -> None:
    def name(destination: str, namespace: str) -> str:
        frame = Frame("MESSAGE", {"destination": destination, "message-id": "m"})
        return received(frame, namespace, 1, 1).destination

    assert name("/queue/zocalo.reduce.xray", "zocalo") == "reduce.xray"
    assert name("/topic/zocalo.transient.status", "zocalo") == "transient.status"
    assert name("/queue/DLQ.zocalo.work", "zocalo") == "DLQ.zocalo.work"
    assert name("/queue/work", "") == "work"


def test_dead_letter_of_a_message_that_was_sent_with_everything() -> None:
    headers = {
        "destination": "/queue/zocalo.work",
        "message-id": "ID:1",
        "ack": "ID:2",
        "subscription": "3",
        "expires": "1234",
        "persistent": "true",
        "priority": "9",
        "redelivered": "true",
        "timestamp": "5678",
        "content-length": "4",
        "scheduledJobId": "ID:job",
        "AMQ_SCHEDULED_DELAY": "1000",
        "AMQ_SCHEDULED_REPEAT": "99999",
        "JMSXGroupID": "group",
        "workflows-recipe": "True",
    }
    message = Message("work", b"body", headers, "ID:1", 3)
    assert own_headers(headers) == {"workflows-recipe": "True"}
    letter = dead_letter(message, "zocalo", {"parvis-reason": "because"})
    assert letter == Send(
        "DLQ.zocalo.work",
        b"body",
        {
            "workflows-recipe": "True",
            "original-destination": "/queue/zocalo.work",
            "parvis-reason": "because",
        },
        absolute=True,
    )


def test_short_values_are_not_clipped() -> None:
    assert clip("a: b\n") == "a: b\n"
    assert clip("x" * LONGEST_HEADER) == "x" * LONGEST_HEADER


def test_long_values_keep_their_beginning_and_end() -> None:
    clipped = clip("begin" + "µ\n" * 10_000 + "end")
    assert clipped.startswith("begin")
    assert clipped.endswith("end")
    assert LONGEST_HEADER - 20 < len(header_on_the_wire(clipped)) <= LONGEST_HEADER


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.integers(40, 200))
def test_clipped_values_fit(value: str, limit: int) -> None:
    clipped = clip(value, limit)
    assert len(header_on_the_wire(clipped)) <= limit
    assert clipped == value or len(header_on_the_wire(value)) > limit


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_every_header_can_be_sent(headers: dict[str, str]) -> None:
    frame = send_frame(Send("work", b"body", {f"x-{name}": value for name, value in headers.items()}), "")
    (parsed,) = Parser().feed(encode(frame))
    assert isinstance(parsed, Frame)
    assert parsed.headers == {**frame.headers, "content-length": "4"}
    assert parsed.body == b"body"
