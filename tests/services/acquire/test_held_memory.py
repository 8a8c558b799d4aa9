"""What images that wait are said to take is what they do take."""

from __future__ import annotations

import cbor2
import zmq

from parvis_services.acquire.event_queue import EventQueue
from parvis_services.stream.decoder import StreamDecoder
from parvis_services.stream.events import Frame

ROWS, COLUMNS = 64, 64


def image_of_channels(count: int) -> bytes:
    """A message of Stream V2 with an image that has several energy thresholds."""
    counts = cbor2.CBORTag(40, [[ROWS, COLUMNS], cbor2.CBORTag(70, bytes(ROWS * COLUMNS * 4))])
    data = {f"threshold_{number}": counts for number in range(1, count + 1)}
    return cbor2.dumps({"type": "image", "series_id": 1, "image_id": 0, "data": data})


def received(message: bytes) -> memoryview:
    """A message as it comes out of a socket, not copied."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as sender, context.socket(zmq.PULL) as receiver:
        sender.bind("inproc://detector")
        receiver.connect("inproc://detector")
        sender.send(message)
        return receiver.recv(copy=False).buffer


def test_an_image_takes_as_much_as_the_message_with_its_other_channels() -> None:
    message = image_of_channels(4)
    (frame,) = StreamDecoder().decode([received(message)])
    assert isinstance(frame, Frame)
    assert frame.data.nbytes == ROWS * COLUMNS * 4
    assert frame.held_bytes == len(message)
    queue = EventQueue(2 * len(message) - 1)
    assert queue.put(frame)
    assert not queue.put(frame)
    assert queue.held_bytes == len(message)
