"""Stream V2: what is read from messages whose meaning is known, and that others read what is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import numpy as np
import pytest

from parvis_services.stream import stream_v2
from parvis_services.stream.decoder import StreamDecoder, is_start
from parvis_services.stream.events import Event, Frame, MalformedStream, SeriesEnd, SeriesStart
from parvis_services.xray.kernels import bitshuffle_lz4
from real_data import real_data
from stream_vectors import HEADER, PACKED, V2_END, V2_PACKED, V2_RAW, frame, series_start

COUNTS = np.arange(64, dtype=np.uint16).reshape(8, 8)


def decoded(message: bytes | memoryview, channel: str | None = None) -> Event:
    (event,) = StreamDecoder(channel).decode([message])
    return event


def an_image(message: bytes, channel: str | None = None) -> Frame:
    event = decoded(message, channel)
    assert isinstance(event, Frame)
    return event


def a_start(message: bytes) -> SeriesStart:
    event = decoded(message)
    assert isinstance(event, SeriesStart)
    return event


def dumped(**content: Any) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(55799, {"series_id": 1, **content}))


def array(shape: list[int], tag: int, data: Any) -> cbor2.CBORTag:
    return cbor2.CBORTag(40, [shape, cbor2.CBORTag(tag, data)])


def image(data: Any) -> bytes:
    return dumped(type="image", image_id=3, data={"threshold_1": data})


def test_the_known_image_that_is_not_packed() -> None:
    read = an_image(V2_RAW)
    assert read == Frame(
        1, 0, memoryview(V2_RAW)[-12:], "none", "uint16", (2, 3), unique_id="u", channel="threshold_1"
    )
    assert np.frombuffer(read.data, "<u2").tolist() == [0, 1, 2, 3, 4, 5]
    assert read.data.obj is V2_RAW, "the frame is no view into the message"


def test_the_known_image_that_is_packed() -> None:
    read = an_image(V2_PACKED)
    assert (read.encoding, read.dtype, read.shape, bytes(read.data)) == ("bslz4", "uint16", (8, 8), PACKED)
    assert np.array_equal(bitshuffle_lz4.decode(read.data, read.shape, read.dtype), COUNTS)


def test_the_known_end() -> None:
    assert decoded(V2_END) == SeriesEnd(1, "u")


@pytest.mark.parametrize("known", [V2_RAW, V2_PACKED, V2_END])
def test_the_known_messages_are_written(known: bytes) -> None:
    assert stream_v2.encode(decoded(known)) == known


def test_a_message_need_not_describe_itself() -> None:
    assert decoded(V2_END.removeprefix(b"\xd9\xd9\xf7")) == decoded(V2_END)


def test_a_real_series() -> None:
    messages = [
        real_data(f"eiger_stream/tickit_stream2_{part}.cbor").read_bytes() for part in ("start", "end")
    ]
    assert [is_start([message]) for message in messages] == [True, False]
    start, end = a_start(messages[0]), decoded(messages[1])
    assert (start.series, start.unique_id, start.appendix) == (15614, "01HBV3JPF9T4ZDPADX6EMK6XMZ", None)
    assert end == SeriesEnd(15614, "01HBV3JPF9T4ZDPADX6EMK6XMZ")
    header = start.header
    assert (header.shape, header.dtype, header.images, header.saturation) == ((4362, 4148), None, 1, 21517)
    assert header.pixel_size == (7.5e-05, 7.5e-05)
    assert header.beam_centre == (2163.621048575148, 2049.3840906675064)
    assert (header.distance, header.wavelength) == (0.23715919962215962, 0.918381073013)
    assert (header.energy, header.threshold) == (13500.299829398293, 6750.149914699146)
    assert (header.thickness, header.material) == (0.00045, "Si")
    assert (header.count_time, header.frame_time) == (0.004317472232502031, 0.004317572232502031)
    assert (header.description, header.serial) == ("Dectris EIGER2 Si 16M", "E-32-0117")
    assert header.axes == {"chi": (30.0, 0.0), "omega": (0.0, 0.1), "phi": (0.0, 0.0)}
    assert (header.countrate_corrected, header.flatfield_corrected) == (True, True)
    assert start.config["arm_date"] == "2023-10-03T17:47:48.329000+02:00"


def test_a_real_image() -> None:
    message = real_data("eiger_stream/tickit_stream2_image.cbor").read_bytes()
    read = an_image(message)
    assert (read.series, read.number, read.channel, read.shape) == (15614, 0, "threshold_1", (4362, 4148))
    assert (read.encoding, read.dtype, read.data.nbytes) == ("bslz4", "uint16", 513082)
    assert (read.start_time, read.stop_time, read.real_time) == (0.0, 0.00431746, 0.00431746)
    theirs: Any = cbor2.loads(message)
    assert bytes(read.data) == theirs["data"]["threshold_1"].value[1].value.value[2]
    counts = bitshuffle_lz4.decode(read.data, read.shape, read.dtype)
    assert (int(counts.sum()), int((counts == 65535).sum())) == (82120283837, 1253075)


def test_what_others_read_of_a_start() -> None:
    theirs: Any = cbor2.loads(stream_v2.encode(series_start()))
    assert next(iter(theirs)) == "type"
    assert theirs["detector_translation"] == pytest.approx([4.5 * 75e-6, 3.5 * 75e-6, -0.2])
    assert theirs["goniometer"]["omega"] == {"start": 90.0, "increment": 0.1}
    mask = theirs["pixel_mask"]["threshold_1"]
    assert (mask.tag, list(mask.value[0]), mask.value[1].tag) == (40, [8, 8], 70)
    assert np.flatnonzero(np.frombuffer(mask.value[1].value, "<u4")).tolist() == [19]
    assert theirs["user_data"] == {"dcid": 4077358}


def test_a_start_comes_back() -> None:
    read = a_start(stream_v2.encode(series_start()))
    assert (read.header, read.appendix) == (HEADER, {"dcid": 4077358})
    assert read.mask is not None
    assert np.argwhere(read.mask).tolist() == [[2, 3]]
    assert "pixel_mask" not in read.config
    assert "user_data" not in read.config


@pytest.mark.parametrize("detail", ["basic", "none"])
def test_a_start_without_arrays(detail: Any) -> None:
    read = a_start(stream_v2.encode(series_start(), detail=detail))
    assert (read.mask, read.header.shape) == (None, (8, 8))


@pytest.mark.parametrize("encoding", ["bslz4", "hdf5-lz4", "none"])
def test_an_image_comes_back(encoding: Any) -> None:
    sent = frame(2, data=COUNTS.tobytes() if encoding == "none" else PACKED, encoding=encoding)
    sent = replace(sent, appendix={"x": 1})
    assert an_image(stream_v2.encode(sent)) == sent


def test_there_is_no_bare_lz4() -> None:
    with pytest.raises(ValueError, match="no compression 'lz4'"):
        stream_v2.encode(frame(2, encoding="lz4"))


def test_channels() -> None:
    data = {
        name: array([1, 2], 64, bytes([value, 0])) for name, value in (("threshold_2", 2), ("difference", 3))
    }
    message = dumped(type="image", image_id=0, data=data)
    assert bytes(an_image(message).data) == b"\2\0"
    assert bytes(an_image(message, "difference").data) == b"\3\0"
    with pytest.raises(MalformedStream, match=r"no channel 'threshold_1': threshold_2, difference"):
        decoded(message, "threshold_1")


def test_a_mask_that_is_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    read = a_start(dumped(type="start", pixel_mask={"threshold_1": b"AAAA"}))
    assert read.mask is None
    assert "pixel mask" in caplog.text


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (dumped(type="stop"), "must be start, image or end, it is 'stop'"),
        (cbor2.dumps({"type": "end"}), "'series_id' must be a whole number, it is None"),
        (cbor2.dumps({"type": "end", "series_id": -1}), "it is -1"),
        (cbor2.dumps([1]), "no map"),
        (cbor2.dumps({(1, 2): 1}), "a key of a CBOR map is a list"),
        (V2_RAW[:-1], "ends after"),
        (V2_RAW + b"\0", "1 bytes follow"),
        (image(b""), "image 3: the data is no array"),
        (image(array([2, 2], 64, b"123")), "image 3: a frame of 4 bytes came with 3"),
        (image(array([2, 2], 77, b"12345678")), "tag 77 is not understood"),
        (image(array([0, 2], 64, b"")), "0 x 2 pixels is not possible"),
        (image(array([2**20, 2**20], 64, b"1")), "is not possible"),
        (image(array([8, 8], 69, cbor2.CBORTag(56500, ["bslz4", 4, PACKED]))), "4 bytes does not fit"),
        (
            image(array([8, 8], 70, cbor2.CBORTag(56500, ["bslz4", 4, PACKED]))),
            "256 bytes says that it holds 128",
        ),
        (image(array([8, 8], 69, cbor2.CBORTag(56500, ["bszstd", 2, PACKED]))), "'bszstd' is not understood"),
    ],
)
def test_messages_that_are_no_good(message: bytes, reason: str) -> None:
    with pytest.raises(MalformedStream) as error:
        decoded(message)
    assert reason in str(error.value)
