"""The detectors that others wrote stream what tests give them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import cbor2
import numpy as np
import pytest
import zmq

from simplon_peer import Maker, PeerImages, Simplon, StartSimplon, pack

SHAPE = (24, 40)


@pytest.fixture
def images() -> PeerImages:
    random = np.random.default_rng(5)
    return PeerImages(
        pack([random.poisson(9, SHAPE).astype(np.uint16) for _ in range(3)]), SHAPE, "uint16", wavelength=0.98
    )


def messages_of(detector: Simplon) -> Iterator[list[bytes]]:
    """What the detector says of a series, until it has nothing more to say."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.connect(detector.address)
        detector.collect()
        while socket.poll(10_000):
            parts = socket.recv_multipart()
            yield parts
            if b"dseries_end" in parts[-1] or parts[-1][4:12] == b"dtypecen":
                return
    raise AssertionError("the series did not end")


@pytest.mark.parametrize("maker", ["tickit-devices", "eiger-simulator"])
def test_stream_v1_has_the_packed_images(simplon: StartSimplon, images: PeerImages, maker: Maker) -> None:
    detector = simplon(images, format="legacy", rate=50, number=4, maker=maker)
    parts = [part for message in messages_of(detector) for part in message]
    told = [json.loads(part) for part in parts if part.startswith(b"{")]
    config = next(one for one in told if "x_pixels_in_detector" in one)
    assert (config["y_pixels_in_detector"], config["x_pixels_in_detector"]) == SHAPE
    assert config["wavelength"] == 0.98
    frames = [one for one in told if one.get("htype") == "dimage_d-1.0"]
    assert [(one["shape"], one["type"], one["encoding"]) for one in frames] == [
        ([40, 24], "uint16", "bs16-lz4<")
    ] * 4
    assert [part for part in parts if not part.startswith(b"{")] == [*images.packed, images.packed[0]]


def test_stream_v2_has_the_packed_images(simplon: StartSimplon, images: PeerImages) -> None:
    detector = simplon(images, rate=50, dcid=17)
    messages = [part for parts in messages_of(detector) for part in parts]
    assert {message[:3] for message in messages} == {b"\xd9\xd9\xf7"}
    said: list[dict[str, Any]] = [cbor2.loads(message[3:]) for message in messages]
    assert [one["type"] for one in said] == ["start", "image", "image", "image", "end"]
    assert (said[0]["image_size_y"], said[0]["image_size_x"]) == SHAPE
    assert said[0]["user_data"] == {"dcid": 17}
    shapes, counts = zip(*(one["data"]["threshold_1"].value for one in said[1:4]), strict=True)
    assert [tuple(shape) for shape in shapes] == [SHAPE] * 3
    assert [tuple(array.value.value) for array in counts] == [("bslz4", 2, one) for one in images.packed]
