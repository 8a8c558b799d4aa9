"""NXmx files of a detector's stream: what is in them, by readers that are not ours, and by ours."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fabio
import fabio.eigerimage
import h5py
import hdf5plugin  # noqa: F401  # pyright: ignore[reportUnusedImport] - its filters unpack the images
import numpy as np
import pytest

from detector_frames import HEADER, SHAPE, counts, frame, mask, start
from parvis_services.acquire.data_files import UnfitFrame
from parvis_services.acquire.nxmx_file import SeriesFile
from parvis_services.stream import stream_v1, stream_v2
from parvis_services.stream.decoder import StreamDecoder
from parvis_services.stream.events import Encoding, Frame, SeriesEnd, SeriesStart
from parvis_services.xray.analysis import analyse
from parvis_services.xray.errors import UnfinishedImageError
from parvis_services.xray.images import count_frames, open_image
from parvis_services.xray.stored_image import FrameDecoder
from real_data import real_data
from stored_frames import THAUMATIN, pack, thaumatin, thaumatin_mask

KINDS: list[tuple[Any, Encoding, str]] = [
    (stream_v1, "none", "uint16"),
    (stream_v1, "lz4", "uint32"),
    (stream_v1, "bslz4", "uint8"),
    (stream_v1, "bslz4", "uint16"),
    (stream_v1, "bslz4", "uint32"),
    (stream_v2, "none", "uint8"),
    (stream_v2, "hdf5-lz4", "uint32"),
    (stream_v2, "bslz4", "uint16"),
]


def opened(path: Path) -> Any:
    """The file, open to read; what is in it is known only when it is looked at."""
    return h5py.File(path, "r")


def by_fabio(master: Path, images: int) -> list[np.ndarray]:
    """What fabio finds, which looks at the master and follows its links."""
    file = fabio.eigerimage.EigerImage().read(str(master))
    return [file.getframe(number).data for number in range(images)]


def through_the_wire(protocol: Any, event: SeriesStart | Frame | SeriesEnd) -> Any:
    """An event as it arrives in a message."""
    message = protocol.encode(event)
    (arrived,) = StreamDecoder().decode(message if isinstance(message, list) else [message])
    return arrived


@pytest.mark.parametrize(("protocol", "encoding", "dtype"), KINDS)
def test_others_read_what_the_detector_sent(
    tmp_path: Path, protocol: Any, encoding: Encoding, dtype: str
) -> None:
    series = SeriesFile.begin(
        through_the_wire(protocol, start(dtype=dtype, images=5)), tmp_path, "x", images_per_file=3
    )
    for number in range(5):
        sent = frame(number, encoding=encoding, dtype=dtype)
        assert series.append(through_the_wire(protocol, sent))
    summary = series.finish("end message")
    expected = [counts(number, dtype) for number in range(5)]
    np.testing.assert_array_equal(by_fabio(tmp_path / "x.nxs", 5), expected)
    with opened(tmp_path / "x.nxs") as master:
        data = master["entry/data/data"]
        assert data.dtype == dtype
        np.testing.assert_array_equal(data[()], expected)
        detector = master["entry/instrument/detector"]
        np.testing.assert_array_equal(detector["pixel_mask"][()], mask())
    assert (summary.written, summary.missing) == (5, [])
    ours = open_image(tmp_path / "x.nxs", 4)
    np.testing.assert_array_equal(ours.data[0], expected[4])
    assert not ours.mask[0][21].any()  # pyright: ignore[reportOptionalSubscript]


def test_chunks_are_the_bytes_of_the_detector(tmp_path: Path) -> None:
    series = SeriesFile.begin(start(), tmp_path, "x")
    sent = frame(0)
    series.append(sent)
    series.finish("end message")
    with opened(tmp_path / "x_000001.h5") as file:
        assert file["data"].id.read_direct_chunk((0, 0, 0)) == (0, bytes(sent.data))


def test_the_master_says_what_nxmx_demands(tmp_path: Path) -> None:
    series = SeriesFile.begin(start(), tmp_path, "x", detector="i99", dcid=4711)
    series.append(frame(0))
    series.finish("end message")
    with opened(tmp_path / "x.nxs") as file:
        entry, instrument = file["entry"], file["entry/instrument"]
        detector, module = instrument["detector"], instrument["detector/module"]
        assert entry["definition"][()] == b"NXmx"
        for name in ("start_time", "end_time", "end_time_estimated"):
            assert entry[name][()].startswith(b"20")
        assert instrument["name"][()] == b"i99"
        assert entry["source/name"][()]
        assert entry["sample/name"][()] == b"data collection 4711"
        assert entry["sample/depends_on"][()] == b"/entry/sample/transformations/omega"
        np.testing.assert_allclose(entry["data/omega"][()], 15 + 0.1 * np.arange(10))
        np.testing.assert_allclose(entry["sample/transformations/omega_end"][()], 15.1 + 0.1 * np.arange(10))
        assert entry["sample/goniometer/chi_start"][()] == 30
        assert instrument["beam/incident_wavelength"][()] == HEADER.wavelength
        numbers = {name: detector[name][()] for name in ("saturation_value", "distance", "sensor_thickness")}
        assert numbers == {"saturation_value": 121774, "distance": 0.1714, "sensor_thickness": 450e-6}
        assert (detector["beam_center_x"][()], detector["beam_center_y"][()]) == (30.4, 19.7)
        assert (detector["x_pixel_size"][()], detector["y_pixel_size"][()]) == (75e-6, 80e-6)
        assert (detector["count_time"][()], detector["frame_time"][()]) == (0.0099, 0.01)
        assert detector["sensor_material"][()] == b"Si"
        assert tuple(module["data_size"][()]) == SHAPE
        assert module["fast_pixel_direction"][()] == 75e-6
        assert module["slow_pixel_direction"][()] == 80e-6
        offset = module["module_offset"]
        corner = offset[()] * offset.attrs["vector"]
        np.testing.assert_allclose(corner, (30.4 * 75e-6, 19.7 * 80e-6, 0), atol=1e-15)
        assert offset.attrs["depends_on"] == detector["depends_on"][()]
        assert file[detector["depends_on"][()]][0] == pytest.approx(171.4)
    with opened(tmp_path / "x_meta.h5") as meta:
        told = json.loads(meta["config"][()])
        assert json.loads(told["appendix"]) == {"dcid": 4711}
        assert meta["_dectris/bit_depth_image"][0] == 32


def test_a_recorded_stream_gives_the_same_analysis_from_the_file(tmp_path: Path) -> None:
    decoder = StreamDecoder()
    messages = [real_data(f"eiger_stream/tickit_stream2_{name}.cbor") for name in ("start", "image")]
    begun, image = (decoder.decode([path.read_bytes()])[0] for path in messages)
    assert isinstance(begun, SeriesStart)
    assert isinstance(image, Frame)
    series = SeriesFile.begin(begun, tmp_path, "eiger")
    series.append(image)
    series.finish("end message")
    direct = FrameDecoder(begun.header, begun.mask).image(
        image.data, "frame", encoding=image.encoding, shape=image.shape, dtype=image.dtype
    )
    (recorded,) = by_fabio(tmp_path / "eiger.nxs", 1)
    np.testing.assert_array_equal(recorded, direct.data[0])
    from_file = open_image(tmp_path / "eiger.nxs", 0)
    assert analyse(from_file) == analyse(direct)


def test_a_real_image_gives_the_same_analysis_from_the_file(tmp_path: Path) -> None:
    spotty = pack(thaumatin(7))
    begun = SeriesStart(1, header=replace(THAUMATIN, images=1), mask=thaumatin_mask())
    assert THAUMATIN.shape is not None
    series = SeriesFile.begin(begun, tmp_path, "thau")
    series.append(Frame(1, 0, memoryview(spotty), "bslz4", "uint32", THAUMATIN.shape))
    series.finish("end message")
    from_file = analyse(tmp_path / "thau.nxs")
    direct = analyse(FrameDecoder(begun.header, begun.mask).image(spotty, "frame"))
    # NXmx gives the corner of the detector as a unit vector and a length, which costs the last digit.
    assert asdict(from_file) == pytest.approx(asdict(direct), rel=1e-12)
    assert from_file.n_spots_total == direct.n_spots_total > 10


def test_what_is_missing_has_no_counts_and_is_named(tmp_path: Path) -> None:
    series = SeriesFile.begin(start(), tmp_path, "x", images_per_file=4)
    for number in (0, 2, 3, 9):
        series.append(frame(number))
    assert not series.append(frame(3))
    summary = series.finish("end message")
    assert summary.missing == [(2, 2), (5, 9)]
    assert (summary.written, summary.expected, summary.duplicates) == (4, 10, 1)
    written = json.loads((tmp_path / "x_summary.json").read_text())
    assert written["missing"] == [[2, 2], [5, 9]]
    with opened(tmp_path / "x.nxs") as file:
        data, told = file["entry/data/data"], file["entry/completeness"]
        assert data.shape == (10, *SHAPE)
        assert (data[1] == 2**32 - 1).all()
        assert (data[5] == 2**32 - 1).all()
        np.testing.assert_array_equal(data[9], counts(9))
        assert told["missing"][()].tolist() == [[2, 2], [5, 9]]
        assert (told["images_written"][()], told["images_expected"][()]) == (4, 10)
    assert not (tmp_path / "x_000002.h5").exists()
    with pytest.raises(UnfinishedImageError):
        open_image(tmp_path / "x.nxs", 1)


_LOOK = """
import sys
from parvis_services.watch.sources import Hdf5Images
print([Hdf5Images(sys.argv[1]).is_there(number) for number in (1, 2, 3)])
"""


def seen_by_others(master: Path) -> str:
    """Which of the first three images another process sees."""
    look = [sys.executable, "-c", _LOOK, str(master)]
    return subprocess.run(look, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_readers_see_images_although_more_come_without_a_pause(tmp_path: Path) -> None:
    series = SeriesFile.begin(start(), tmp_path, "x")
    series.append(frame(0))
    series.append(frame(1))
    assert seen_by_others(tmp_path / "x.nxs") == "[True, False, False]"
    series.append(frame(2))  # long after the first
    assert seen_by_others(tmp_path / "x.nxs") == "[True, True, True]"
    series.finish("end message")


def test_a_series_of_unknown_length_has_what_came(tmp_path: Path) -> None:
    series = SeriesFile.begin(start(images=None, dtype=None), tmp_path, "x", images_per_file=4)
    for number in (0, 1, 4, 6):
        series.append(frame(number))
    assert not (tmp_path / "x.nxs").exists()
    assert series.finish("time-out").missing == [(3, 4), (6, 6)]
    assert count_frames(tmp_path / "x.nxs") == 7
    with opened(tmp_path / "x.nxs") as file:
        np.testing.assert_array_equal(file["entry/data/data"][6], counts(6))


def test_what_is_announced_wrongly_is_as_the_images_are(tmp_path: Path) -> None:
    series = SeriesFile.begin(start(dtype="uint8", shape=(3, 3)), tmp_path, "x")
    assert (tmp_path / "x.nxs").exists()
    series.append(frame(0))
    series.finish("end message")
    with opened(tmp_path / "x.nxs") as file:
        np.testing.assert_array_equal(file["entry/data/data"][0], counts(0))


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    series = SeriesFile.begin(start(), tmp_path, "x")
    series.append(frame(0))
    with pytest.raises(UnfitFrame, match="image 11 is not one of 10"):
        series.append(frame(10))
    with pytest.raises(UnfitFrame, match="uint16"):
        series.append(frame(1, dtype="uint16"))
    with pytest.raises(UnfitFrame, match="packed as lz4"):
        series.append(frame(1, encoding="lz4"))
    with pytest.raises(UnfitFrame, match="float32"):
        series.append(Frame(7, 1, memoryview(b"x"), "none", "float32", SHAPE))
    assert series.append(frame(1, encoding="none"))  # which every file can have
    summary = series.finish("end message")
    assert (summary.unfit, summary.written) == (4, 2)
    np.testing.assert_array_equal(by_fabio(tmp_path / "x.nxs", 2)[1], counts(1))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for name in ("x.nxs", "x_2_meta.h5", "x_3_000002.h5", "x_4_summary.json"):
        (tmp_path / name).write_text("precious")
    series = SeriesFile.begin(start(), tmp_path, "x")
    series.append(frame(0))
    assert series.finish("end message").master == tmp_path / "x_5.nxs"
    assert [path.read_text() for path in sorted(tmp_path.glob("x[._]*")) if "x_5" not in path.name] == [
        "precious"
    ] * 4
    assert not list(tmp_path.glob(".*"))


def test_a_series_without_images_leaves_no_master(tmp_path: Path) -> None:
    series = SeriesFile.begin(start(), tmp_path, "x")
    assert (tmp_path / "x.nxs").exists()
    assert series.finish("end message").missing == [(1, 10)]
    assert [path.name for path in tmp_path.iterdir()] == ["x_summary.json"]


def test_hostile_facts_cost_only_themselves(tmp_path: Path) -> None:
    begun = start(
        images=10**15,
        frame_time=1e300,
        saturation=10**30,
        description="bad\0name\udc80" * 1000,
        axes={"omega/../../x": (0.0, 1.0), "omega": (0.0, 0.5)},
        appendix={"dcid": 1, "deep": "\ud800"},
    )
    begun.config.update({"a/b": 1, "large": 10**40, "nimages": float("inf")})  # pyright: ignore[reportAttributeAccessIssue]
    series = SeriesFile.begin(begun, tmp_path, "x")
    series.append(frame(0))
    assert series.finish("end message").expected is None
    with opened(tmp_path / "x.nxs") as file:
        assert set(file["entry/sample/goniometer"]) == {"omega_start", "omega_increment"}
    np.testing.assert_array_equal(by_fabio(tmp_path / "x.nxs", 1)[0], counts(0))
