"""Messages as STOMP frames, with the headers that brokers and other clients in the field expect."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from parvis.transport.base import (
    Kind,
    Message,
    Send,
    TransportError,
    own_headers,
)
from parvis.transport.stomp_frames import Frame, encode, pieces
from parvis.transport.stomp_receipts import Receipt

LONGEST_HEADER: Final = 8000
"""Bytes of a header value on the wire; ActiveMQ refuses header lines of more than 10 KiB."""

_OURS: Final = frozenset({"content-length", "destination", "receipt", "transaction"})


def address(namespace: str, name: str, kind: Kind, *, absolute: bool = False) -> str:
    """The destination as the broker knows it, such as `/queue/zocalo.mailnotification`."""
    return f"/{kind}/{name}" if absolute or not namespace else f"/{kind}/{namespace}.{name}"


def full_name(destination: str) -> str:
    """The name in a destination, with its namespace: `zocalo.x` of `/queue/zocalo.x`."""
    return destination.split("/", 2)[-1]


def received(frame: Frame, namespace: str, subscription: int, connection: int) -> Message:
    """The message in a MESSAGE frame."""
    headers = frame.headers
    name = full_name(headers.get("destination", ""))
    message_id = headers.get("message-id", "")
    return Message(
        destination=name.removeprefix(f"{namespace}.") if namespace else name,
        body=frame.body,
        headers=headers,
        message_id=message_id,
        subscription=subscription,
        redelivered=headers.get("redelivered") == "true",
        connection=connection,
        token=headers.get("ack") or message_id,
    )


def send_frame(send: Send, namespace: str) -> Frame:
    """The SEND frame of a message, without transaction and receipt.

    Raises:
        ValueError: It has a header that only the transport may set.
    """
    forbidden = _OURS.intersection(send.headers)
    if forbidden:
        raise ValueError(f"header {min(forbidden)!r} of a message to {send.destination} is the transport's")
    headers = {str(name): str(value) for name, value in send.headers.items()}
    text = "".join([*headers, *headers.values()])
    if not text.isascii() or "\0" in text:
        headers = {_sayable(name): _sayable(value) for name, value in headers.items()}
    headers["destination"] = address(namespace, send.destination, send.kind, absolute=send.absolute)
    if send.persistent:
        headers["persistent"] = "true"
    if send.priority is not None:
        headers["priority"] = str(send.priority)
    if send.delay > 0:
        headers["AMQ_SCHEDULED_DELAY"] = str(round(send.delay * 1000))
    if send.expiration is not None:
        headers["expires"] = str(round((time.time() + send.expiration) * 1000))
    return Frame("SEND", headers, send.body)


def transaction(number: str, acknowledge: Iterable[str], sends: Iterable[Frame]) -> tuple[bytes, Receipt]:
    """The bytes that do all of this or nothing, and the receipt that confirms it.

    Args:
        number: Name of the transaction and of the receipt.
        acknowledge: What ACK frames are to name.
        sends: SEND frames, which are completed here.
    """
    frames = [Frame("ACK", {"id": token}) for token in acknowledge]
    frames += sends
    if len(frames) == 1:
        frames[0].headers["receipt"] = number
        return encode(frames[0]), Receipt(number)
    name = number.encode()
    data = [b"BEGIN\ntransaction:%b\n\n\0" % name]
    for frame in frames:
        frame.headers["transaction"] = number
        data += pieces(frame)
    data.append(b"COMMIT\ntransaction:%b\nreceipt:%b\n\n\0" % (name, name))
    return b"".join(data), Receipt(number, "transaction")


def subscribing(
    number: str, headers: Mapping[str, str], then: Callable[[TransportError | None], None]
) -> tuple[bytes, Receipt]:
    """The bytes that subscribe, and the receipt that says whether the broker accepts it.

    Args:
        number: Name of the receipt.
        headers: Of the SUBSCRIBE frame.
        then: As of `Receipt`.
    """
    destination = headers["destination"]
    if not destination.endswith(">") and "*" not in destination:
        return encode(Frame("SUBSCRIBE", {**headers, "receipt": number})), Receipt(number, "frame", then)
    # Where ActiveMQ gives a receipt for a subscription it delivers nothing before, and then forgets to look
    # into the queues that a wildcard stands for. So the receipt is that of an empty transaction behind it.
    frames = [
        Frame("SUBSCRIBE", dict(headers)),
        Frame("BEGIN", {"transaction": number}),
        Frame("ABORT", {"transaction": number, "receipt": number}),
    ]
    return b"".join(map(encode, frames)), Receipt(number, "sequence", then)


def dead_letter(message: Message, namespace: str, headers: Mapping[str, str]) -> Send:
    """What moves `message` to the dead-letter queue that ActiveMQ itself would use."""
    destination = message.headers.get("destination") or address(namespace, message.destination, "queue")
    clipped = {name: clip(value) for name, value in headers.items()}
    return Send(
        f"DLQ.{full_name(destination)}",
        message.body,
        {**own_headers(message.headers), "original-destination": destination, **clipped},
        absolute=True,
    )


def clip(value: str, limit: int = LONGEST_HEADER) -> str:
    """Shorten a header value to `limit` bytes on the wire, keeping most of its end."""
    if _wire_length(value) <= limit:
        return value
    mark = " [...] "  # what is cut is the middle: of a traceback, the end says most
    head = _clipped(value, limit // 4)
    tail = _clipped(value[::-1], limit - limit // 4 - len(mark))[::-1]
    return f"{head}{mark}{tail}"


def _clipped(value: str, limit: int) -> str:
    """The longest beginning that takes at most `limit` bytes."""
    fits, too_long = 0, min(len(value), limit) + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if _wire_length(value[:middle]) <= limit:
            fits = middle
        else:
            too_long = middle
    return value[:fits]


def _wire_length(value: str) -> int:
    escaped = sum(map(value.count, "\\\n\r:"))
    return len(value.encode(errors="replace")) + escaped


def _sayable(text: str) -> str:
    """Replace what STOMP headers cannot carry: NUL and halves of surrogate pairs."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")
