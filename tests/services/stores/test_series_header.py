"""The objects `header` and `mask`, the manifest, and the metadata of images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from parvis_services.stores.frame_metadata import BadMetadata, metadata_of, read_metadata
from parvis_services.stores.manifest import BadManifest, Manifest, count_in, ranges_of
from parvis_services.stores.series_header import (
    BadHeader,
    dump_header,
    dump_mask,
    load_header,
    load_mask,
)
from parvis_services.stores.store import check_metadata
from parvis_services.stream.events import Frame, Header, SeriesStart

HEADER = Header(
    shape=(4362, 4148),
    dtype="uint32",
    images=3600,
    pixel_size=(7.5e-5, 7.5e-5),
    beam_centre=(2231.5, 2070.25),
    distance=0.3,
    wavelength=0.9763,
    energy=12_699.3,
    saturation=33_204,
    thickness=4.5e-4,
    material="Si",
    count_time=0.0098,
    frame_time=0.01,
    description="Dectris EIGER2 Si 16M",
    serial="E-32-0117",
    axes={"omega": (90.0, 0.1), "chi": (0.0, 0.0)},
    threshold=6350.0,
    countrate_corrected=True,
    flatfield_corrected=False,
    bit_depth=16,
)
START = SeriesStart(14, "01HBV3JPF2", HEADER, appendix={"dcid": 7}, config={"ntrigger": 1})


@pytest.mark.parametrize("header", [HEADER, Header()])
def test_header_comes_back(header: Header) -> None:
    assert load_header(dump_header(SeriesStart(14, header=header), 7)) == header


def test_header_says_what_series_it_is_of() -> None:
    content = json.loads(dump_header(START, 7))
    assert (content["dcid"], content["series"], content["unique_id"]) == (7, 14, "01HBV3JPF2")
    assert content["appendix"] == {"dcid": 7}


def test_prototype_header_is_the_detectors_configuration() -> None:
    data = dump_header(START, 7, "prototype")
    content = json.loads(data)
    wanted = {"x_pixels_in_detector": 4148, "y_pixels_in_detector": 4362, "bit_depth_image": 32}
    assert content.items() >= wanted.items()
    assert load_header(data) == HEADER


def test_header_as_python_writes_it_is_read() -> None:
    text = "{'x_pixels_in_detector': 1030, 'y_pixels_in_detector': 1065, 'auto_summation': True}"
    assert load_header(text.encode()) == Header(shape=(1065, 1030))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"__import__('os').system('true')",
        b"(" * 10_000,
        b"\xff\xfe",
        b'{"format": "parvis-series-header", "version": 2}',
        b'{"format": "parvis-series-header", "version": 1, "header": {"shape": "large"}}',
        b'{"format": "parvis-series-header", "version": 1, "header": {"shape": [-1, 5]}}',
        b'{"x_pixels_in_detector": 1000000, "y_pixels_in_detector": 1000000}',
        b"{" + b" " * (5 << 20) + b"}",
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(BadHeader):
        load_header(data)


def test_mask_comes_back() -> None:
    mask = np.zeros((1065, 1030), np.uint32)
    mask[500:540] = 1
    mask[7, 9] = 0x80000002
    data, metadata = dump_mask(mask)
    assert len(data) < mask.nbytes / 50
    check_metadata(metadata)
    assert np.array_equal(load_mask(data, metadata), mask)


def test_what_is_no_mask() -> None:
    data, metadata = dump_mask(np.ones((16, 16), np.uint32))
    for wrong in (
        {},
        {**metadata, "shape": "16,17"},
        {**metadata, "dtype": "uint16"},
        {**metadata, "shape": "x"},
    ):
        with pytest.raises(BadHeader):
            load_mask(data, wrong)
    for damaged in (b"", data[:20], data + b"x"):
        with pytest.raises(BadHeader):
            load_mask(damaged, metadata)


def test_metadata_of_an_image_come_back() -> None:
    frame = Frame(14, 41, memoryview(b"x"), "bslz4", "uint16", (4362, 4148), hash="fc67\n f000ä")
    metadata = metadata_of(frame, 1_763_668_800.125)
    check_metadata(metadata)
    read = read_metadata({**metadata, "sha256": "ab"})
    assert (read.shape, read.dtype, read.encoding) == ((4362, 4148), "uint16", "bslz4")
    assert (read.frame, read.series, read.received, read.sha256) == (42, 14, 1_763_668_800.125, "ab")
    assert read.hash == "fc67?f000?"


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": "10"},
        {"shape": "0,10"},
        {"shape": "100000,100000"},
        {"shape": "10,10,10"},
        {"dtype": "float64"},
        {"dtype": "object"},
        {"encoding": "gzip"},
    ],
)
def test_metadata_that_do_not_tell_how_to_decode(wrong: dict[str, str]) -> None:
    good = {"shape": "10,10", "dtype": "uint16", "encoding": "lz4"}
    read_metadata(good)
    (name,) = wrong
    with pytest.raises(BadMetadata, match=name):
        read_metadata({**good, **wrong})
    with pytest.raises(BadMetadata, match="there is none"):
        read_metadata({key: text for key, text in good.items() if key != name})


def test_metadata_that_only_inform_are_left_out_if_wrong() -> None:
    read = read_metadata(
        {
            "shape": "1,1",
            "dtype": "uint8",
            "encoding": "none",
            "frame": "-1",
            "received": "nan",
            "series": "٣",
        }
    )
    assert (read.frame, read.received, read.series) == (None, None, None)


def test_manifest_comes_back() -> None:
    manifest = Manifest(
        dcid=7,
        series=14,
        expected=10,
        received=9,
        stored=7,
        missing=[(3, 4), (10, 10)],
        dropped=[(3, 4)],
        ended="time-out",
        first_seen=1.5,
        told=[(1, 2), (5, 9)],
    )
    assert Manifest.load(manifest.dump()) == manifest
    assert json.loads(manifest.dump())["missing"] == [[3, 4], [10, 10]]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"dcid": 7, "series": 1, "ended": "well"}',
        b'{"dcid": 7, "series": 1, "ended": "stopped", "missing": [[4, 3]]}',
        b'{"dcid": 7, "series": 1, "ended": "stopped", "missing": [[0, 3]]}',
    ],
)
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(BadManifest, match="no manifest"):
        Manifest.load(data)


def test_ranges() -> None:
    assert ranges_of([]) == []
    assert ranges_of([5, 1, 2, 3, 3, 9]) == [(1, 3), (5, 5), (9, 9)]
    assert count_in([(1, 3), (5, 5)]) == 4
