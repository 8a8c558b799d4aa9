"""Stream V1: the layout of its messages, read by what the parts say of themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from parvis_services.stream import stream_v1
from parvis_services.stream.decoder import StreamDecoder, is_start
from parvis_services.stream.events import Event, Frame, MalformedStream, SeriesEnd, SeriesStart
from parvis_services.xray.kernels import bitshuffle_lz4
from stream_vectors import HEADER, PACKED, frame, series_start

CONFIG = {
    "x_pixels_in_detector": 3,
    "y_pixels_in_detector": 2,
    "bit_depth_image": 32,
    "nimages": 5,
    "ntrigger": 2,
    "photon_energy": 12700.0,
    "wavelength": 0.976,
    "beam_center_x": 1.5,
    "beam_center_y": 1.0,
    "detector_distance": 0.25,
    "x_pixel_size": 7.5e-5,
    "y_pixel_size": 8e-5,
    "countrate_correction_count_cutoff": 133343,
    "omega_start": 10.0,
    "omega_increment": 0.5,
    "description": "Dectris Eiger 1M",
}
MASK = np.array([[0, 1, 0], [0, 0, 16]], "<u4")
HEADER_PARTS = {
    "none": [b'{"htype":"dheader-1.0","series":14,"header_detail":"none"}'],
    "basic": [b'{"htype":"dheader-1.0","series":14,"header_detail":"basic"}', json.dumps(CONFIG).encode()],
    "all": [
        b'{"htype":"dheader-1.0","series":14,"header_detail":"all"}',
        json.dumps(CONFIG).encode(),
        b'{"htype":"dflatfield-1.0","shape":[3,2],"type":"float32"}',
        np.ones(6, "<f4").tobytes(),
        b'{"htype":"dpixelmask-1.0","shape":[3,2],"type":"uint32"}',
        MASK.tobytes(),
        b'{"htype":"dcountrate_table-1.0","shape":[2,2],"type":"float32"}',
        np.zeros(4, "<f4").tobytes(),
    ],
}
COUNTS = np.arange(6, dtype="<u4").reshape(2, 3)
IMAGE_PARTS = [
    b'{"htype":"dimage-1.0","series":14,"frame":2,"hash":"fc67f000d08fe6b380ea9434b8362d22"}',
    b'{"htype":"dimage_d-1.0","shape":[3,2],"type":"uint32","encoding":"<","size":24}',
    COUNTS.tobytes(),
    b'{"htype":"dconfig-1.0","start_time":2000000,"stop_time":2990000,"real_time":990000}',
]


def decoded(parts: list[Any]) -> list[Event]:
    return StreamDecoder().decode(parts)


def a_start(parts: list[Any]) -> SeriesStart:
    (event,) = decoded(parts)
    assert isinstance(event, SeriesStart)
    return event


def an_image(parts: list[Any]) -> Frame:
    (event,) = decoded(parts)
    assert isinstance(event, Frame)
    return event


@pytest.mark.parametrize("detail", ["none", "basic", "all"])
@pytest.mark.parametrize("appendix", [b'{"acqID": "77"}', b"77", None])
def test_a_header(detail: str, appendix: bytes | None) -> None:
    parts = [*HEADER_PARTS[detail], *([] if appendix is None else [appendix])]
    start = a_start(parts)
    assert is_start(parts)
    assert (start.series, start.unique_id) == (14, None)
    assert start.appendix == {b'{"acqID": "77"}': {"acqID": "77"}, b"77": 77, None: None}[appendix]
    assert start.config == ({} if detail == "none" else CONFIG)
    assert (start.mask is not None) == (detail == "all")


def test_what_a_header_says() -> None:
    start = a_start(HEADER_PARTS["all"])
    header = start.header
    assert (header.shape, header.dtype, header.images) == ((2, 3), "uint32", 10)
    assert (header.pixel_size, header.beam_centre) == ((8e-5, 7.5e-5), (1.0, 1.5))
    assert (header.distance, header.wavelength, header.energy) == (0.25, 0.976, 12700.0)
    assert (header.saturation, header.axes) == (133343, {"omega": (10.0, 0.5)})
    assert (header.description, header.material) == ("Dectris Eiger 1M", None)
    assert start.mask is not None
    assert np.array_equal(start.mask, MASK)


def test_an_image() -> None:
    read = an_image(IMAGE_PARTS)
    assert (read.series, read.number, read.shape, read.dtype) == (14, 2, (2, 3), "uint32")
    assert (read.encoding, read.hash) == ("none", "fc67f000d08fe6b380ea9434b8362d22")
    assert (read.start_time, read.stop_time, read.real_time) == pytest.approx((0.002, 0.00299, 0.00099))
    assert np.array_equal(np.frombuffer(read.data, "<u4").reshape(read.shape), COUNTS)
    assert read.data.obj is IMAGE_PARTS[2], "the frame is no view into the message"


def test_an_image_that_is_packed() -> None:
    described = {
        "htype": "dimage_d-1.0",
        "shape": [8, 8],
        "type": "uint16",
        "encoding": "bs16-lz4<",
        "size": 55,
    }
    read = an_image([IMAGE_PARTS[0], json.dumps(described).encode(), PACKED, IMAGE_PARTS[3], b"note"])
    assert (read.encoding, read.appendix) == ("bslz4", "note")
    counts = bitshuffle_lz4.decode(read.data, read.shape, read.dtype)
    assert counts.reshape(-1).tolist() == list(range(64))


def test_the_end() -> None:
    assert decoded([b'{"htype":"dseries_end-1.0","series":14}']) == [SeriesEnd(14)]


def test_a_header_and_an_image_in_one_message() -> None:
    one, other = decoded([*HEADER_PARTS["all"], b'{"dcid": 3}', *IMAGE_PARTS])
    assert isinstance(one, SeriesStart)
    assert one.appendix == {"dcid": 3}
    assert isinstance(other, Frame)
    assert other == an_image(IMAGE_PARTS)


def test_names_that_lack_their_first_letter() -> None:
    parts = [part.replace(b'"dflat', b'"flat').replace(b'"dpixel', b'"pixel') for part in HEADER_PARTS["all"]]
    assert a_start(parts).mask is not None


def test_a_mask_of_another_size_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    parts = [*HEADER_PARTS["all"]]
    parts[5] = b'{"blob": "blob"}'
    assert a_start(parts).mask is None
    assert "pixel mask" in caplog.text


@pytest.mark.parametrize("encoding", ["bslz4", "lz4", "none"])
def test_an_image_comes_back(encoding: Any) -> None:
    sent = frame(2, data=bytes(128) if encoding == "none" else PACKED, encoding=encoding)
    sent = replace(sent, hash="h", appendix={"x": 1}, unique_id=None, channel=None)
    assert an_image(stream_v1.encode(sent)) == sent


def test_a_start_comes_back() -> None:
    read = a_start(stream_v1.encode(series_start()))
    assert (read.header, read.appendix) == (HEADER, {"dcid": 4077358})
    assert read.mask is not None
    assert np.argwhere(read.mask).tolist() == [[2, 3]]


def test_the_parts_of_a_start() -> None:
    parts = [bytes(part) for part in stream_v1.encode(series_start())]
    kinds = [json.loads(parts[index])["htype"] for index in (0, 2, 4, 6)]
    assert kinds == ["dheader-1.0", "dflatfield-1.0", "dpixelmask-1.0", "dcountrate_table-1.0"]
    assert json.loads(parts[8]) == {"dcid": 4077358}
    assert len(stream_v1.encode(series_start(), detail="basic")) == 3
    assert len(stream_v1.encode(series_start(), detail="none")) == 2


def with_image(**changes: Any) -> list[bytes]:
    described = json.loads(IMAGE_PARTS[1]) | changes
    return [IMAGE_PARTS[0], json.dumps(described).encode(), *IMAGE_PARTS[2:]]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([b"{}"], "part 1 of the message does not say what it is"),
        (
            [b'{"htype":"dheader-1.0","series":1,"header_detail":"some"}'],
            "must be all, basic or none, it is 'some'",
        ),
        ([b'{"htype":"dheader-1.0","header_detail":"none"}'], "'series' must be a whole number"),
        (HEADER_PARTS["all"][:1], "ends after 1 parts, before the configuration"),
        (HEADER_PARTS["all"][:5], "before the data of dpixelmask-1.0"),
        (IMAGE_PARTS[3:], "is a 'dconfig-1.0' on its own"),
        (IMAGE_PARTS[:1], "image 2 does not say its shape"),
        (IMAGE_PARTS[:2], "before the data of image 2"),
        (with_image(size=25), "said to have 25 bytes, and has 24"),
        (with_image(shape=[3, 3]), "a frame of 36 bytes came with 24"),
        (with_image(type="float32"), "'float32' are not understood"),
        (with_image(encoding=">"), "high byte first"),
        (with_image(encoding="bs16-lz4<"), "does not fit counts of type 'uint32'"),
        (with_image(encoding="zip"), "encoding 'zip' is not understood"),
        ([b'{"htype":"dseries_end-1.0","series":1}'] * 65, "65 parts"),
    ],
)
def test_messages_that_are_no_good(parts: list[bytes], reason: str) -> None:
    with pytest.raises(MalformedStream) as error:
        decoded(parts)
    assert reason in str(error.value)
