"""Frames as a detector sends them: the numbers are those of files, and what is hostile is an error."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from made_nxmx import counts, dataset, describe
from parvis_services.stores.series_header import load_header
from parvis_services.stream.events import Encoding, Header
from parvis_services.xray.analysis import analyse, find_spots
from parvis_services.xray.errors import BrokenImageError
from parvis_services.xray.images import Buffers, open_image
from parvis_services.xray.stored_image import FrameDecoder, decode
from real_data import real_data
from stored_frames import PREFIX, THAUMATIN, pack, thaumatin, thaumatin_file, thaumatin_mask, unsigned

ENCODINGS: tuple[Encoding, ...] = ("bslz4", "hdf5-lz4", "lz4", "none")
SMALL = dataclasses.replace(
    THAUMATIN, shape=(24, 40), dtype="uint16", beam_centre=(11.0, 20.5), saturation=None
)


def test_the_real_frames_give_the_numbers_of_their_files() -> None:
    decoder, buffers = FrameDecoder(THAUMATIN, thaumatin_mask()), Buffers()
    for number in range(1, 20):
        file = open_image(thaumatin_file(number))
        image = decoder.image(pack(unsigned(file)), f"frame {number}", buffers=buffers)
        assert analyse(image) == analyse(file), f"frame {number}"


@pytest.mark.parametrize("with_mask", [True, False])
def test_a_frame_gives_the_numbers_of_an_nxmx_file_with_the_same_chunk(
    tmp_path: Path, with_mask: bool
) -> None:
    """Bad pixels, in the mask and out of it, and counts beyond what is trusted are left out alike."""
    frame = thaumatin(3).copy()
    mask = thaumatin_mask()
    spots = find_spots(FrameDecoder(THAUMATIN, mask).image(pack(frame), "frame 3")).spots
    bad = [(int(slow), int(fast)) for slow, fast in zip(spots.peak_slow, spots.peak_fast, strict=True)]
    for which, pixel in enumerate(bad[:300]):
        if which % 3 == 0:
            mask[pixel] = (2, 16, 1 << 8, 1 << 30)[which % 4]
        else:
            frame[pixel] = (2**32 - 1, 2**32 - 2, 115898, 115897)[which % 4]
    data = pack(frame)
    path = nxmx(tmp_path / "x.h5", THAUMATIN, data, mask if with_mask else None)
    stored = FrameDecoder(THAUMATIN, mask if with_mask else None).image(data, "frame 3")
    assert analyse(stored) == analyse(path)
    assert analyse(stored).n_spots_total < analyse(thaumatin_file(3)).n_spots_total


def test_a_real_eiger_frame_is_the_image_of_a_file_with_its_chunk(tmp_path: Path) -> None:
    chunk = real_data("eiger_stream/tickit_frame_sample").read_bytes()
    header = Header(
        shape=(4362, 4148),
        dtype="uint16",
        pixel_size=(7.5e-5, 7.5e-5),
        beam_centre=(2163.621048575148, 2049.3840906675064),
        distance=0.23715919962215962,
        wavelength=0.918381073013,
        saturation=21517,
        thickness=0.00045,
        material="Si",
    )
    mask = np.zeros((4362, 4148), np.uint32)
    mask[2000:2200, :] = 1 << 8
    stored = FrameDecoder(header, mask).image(chunk, "frame 1")
    file = open_image(nxmx(tmp_path / "x.h5", header, chunk, mask))
    assert np.array_equal(stored.data[0], file.data[0])
    assert sorted(np.unique(stored.data[0])) == [0, 1, 260, 2956, 6416, 65535]
    assert stored.mask_key == file.mask_key
    assert stored.mask[0] is not None
    assert np.array_equal(stored.mask[0], mask == 0)
    (ours,), (theirs,) = stored.detector.panels, file.detector.panels
    assert (ours.origin, ours.pixel_size, ours.trusted) == (theirs.origin, theirs.pixel_size, (0, 21517))
    # A file's wavelength has a unit, and so one more rounding.
    assert stored.beam.wavelength == pytest.approx(file.beam.wavelength, rel=1e-15)
    assert ours.attenuation == pytest.approx(theirs.attenuation, rel=1e-14)
    assert analyse(stored) == analyse(file)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_gives_back_the_counts(encoding: Encoding, dtype: str) -> None:
    made = counts(1, dtype, (300, 211))[0]
    made[7:90] = 0
    made[0, 0] = np.iinfo(dtype).max
    buffers = Buffers()
    for data in (pack(made, encoding), memoryview(pack(made, encoding))):
        assert np.array_equal(decode(data, encoding, made.shape, dtype, buffers), made)


def test_without_numba_the_counts_are_the_same(tmp_path: Path) -> None:
    made = counts(1, np.uint16, (90, 31))[0]
    made[7:50] = 0
    for encoding in ENCODINGS:
        (tmp_path / encoding).write_bytes(pack(made, encoding))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules['numba'] = None\n"
        "from parvis_services.xray.images import Buffers\n"
        "from parvis_services.xray.stored_image import decode\n"
        "for file in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    data, sums = file.read_bytes(), []\n"
        "    for packed in (data, data[:-1], data[:40] + b'x' + data[41:]):\n"
        "        try:\n"
        "            sums.append(int(decode(packed, file.name, (90, 31), 'uint16', Buffers()).sum()))\n"
        "        except ValueError:\n"
        "            sums.append(-1)\n"
        "    print(file.name, *sums)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert set(lines) == set(ENCODINGS)
    for encoding, sums in lines.items():
        first, cut, other = map(int, sums.split())
        assert (first, cut) == (made.sum(), -1), encoding
        assert other != first, encoding


def test_what_the_prototype_stored_is_read(tmp_path: Path) -> None:
    """Its header is the detector's configuration, and its frames have no metadata."""
    config = {
        "x_pixels_in_detector": 2463,
        "y_pixels_in_detector": 2527,
        "bit_depth_image": 32,
        "x_pixel_size": 172e-6,
        "y_pixel_size": 172e-6,
        "beam_center_x": 1261.61,
        "beam_center_y": 1306.96,
        "detector_distance": 0.351,
        "wavelength": 0.96859,
        "countrate_correction_count_cutoff": 115897,
        "sensor_material": "Si",
        "sensor_thickness": 0.00045,
    }
    for header in (json.dumps(config), repr(config)):  # it was found as either
        image = FrameDecoder(load_header(header.encode())).image(pack(thaumatin(7)), "000007")
        assert analyse(image) == analyse(thaumatin_file(7))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"distance": None}, "does not give the distance"),
        ({"distance": -0.1}, "must be more than 0 mm"),
        ({"distance": math.nan}, "is no number"),
        ({"wavelength": None}, "does not give the wavelength"),
        ({"wavelength": 0.0}, "must be more than 0"),
        ({"wavelength": math.inf}, "is no number"),
        ({"wavelength": None, "energy": -3.0}, "does not give the wavelength"),
        ({"pixel_size": None}, "does not give the pixel size"),
        ({"pixel_size": (0.0, 172e-6)}, "pixel size must be more than 0"),
        ({"beam_centre": None}, "does not give the beam centre"),
        ({"beam_centre": (math.nan, 1.0)}, "is no number"),
        ({"thickness": math.inf}, "is no number"),
        ({"shape": (40, 24)}, "the header of its series says (40, 24)"),
        ({"shape": None, "dtype": None}, "neither the frame nor the header"),
    ],
)
def test_a_header_that_lacks_something_is_named(change: dict[str, Any], reason: str) -> None:
    data = pack(counts(1, np.uint16)[0])
    header = dataclasses.replace(SMALL, **change)
    shape = (24, 40) if header.shape else None
    with pytest.raises(BrokenImageError, match=r"^frame 1: ") as error:
        FrameDecoder(header).image(data, "frame 1", shape=shape)
    assert reason in error.value.reason


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2**20, 2**20), "uint32"),
        ((2**13, 2**14), "uint32"),
        ((2**62, 2**62), "uint16"),
        ((0, 5), "uint16"),
        ((-24, -40), "uint16"),
        ((24, 41), "uint16"),
        ((24, 40), "uint8"),
        ((24, 40), "float64"),
        ((24, 40), "V999999999"),
        ((24, 40), "x" * 100_000),
    ],
)
def test_what_is_promised_and_cannot_be_takes_no_memory(
    encoding: Encoding, shape: tuple[int, int], dtype: str
) -> None:
    class Counted(Buffers):
        def array(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
            assert math.prod(shape) < 10_000
            return super().array(shape, dtype)

    data = pack(counts(1, np.uint16)[0], encoding)
    with pytest.raises(ValueError, match=r"."):
        decode(data, encoding, shape, dtype, Counted())


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(ENCODINGS),
    st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), max_size=5),
    st.integers(0, 1200),
    st.binary(max_size=30),
)
def test_damage_is_an_error_or_other_counts(
    encoding: Encoding, changes: list[tuple[int, int]], cut: int, more: bytes
) -> None:
    image = np.zeros((24, 40), np.uint16)
    image[3:9] = counts(1, np.uint16)[0][3:9]
    data = bytearray(pack(image, encoding))
    for place, value in changes:
        data[place % len(data)] = value
    damaged = bytes(data[: len(data) - cut % len(data)]) + more
    buffers = Buffers()
    memory = buffers.array((24 * 40 * 2 + 200,), np.uint8)
    memory[:] = 0xA5
    try:
        got = decode(damaged, encoding, image.shape, "uint16", buffers)
    except ValueError:
        return
    assert got.shape == image.shape
    assert got.dtype == np.uint16


@given(st.binary(max_size=200), st.sampled_from(ENCODINGS))
def test_noise_is_an_error(data: bytes, encoding: Encoding) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(data, encoding, (24, 40), "uint16", Buffers())


def test_a_block_that_says_it_is_endless_is_an_error() -> None:
    endless = PREFIX.pack(24 * 40 * 2, 2**32 - 1) + b"\xff\xff\xff\xff" + b"\xff" * 100
    for encoding in ("bslz4", "hdf5-lz4"):
        with pytest.raises(ValueError, match=r"."):
            decode(endless, encoding, (24, 40), "uint16", Buffers())


def test_a_mask_of_another_size_is_not_used_as_in_files(caplog: pytest.LogCaptureFixture) -> None:
    decoder = FrameDecoder(SMALL, np.ones((40, 24), np.uint32))
    for _ in range(3):
        assert decoder.image(pack(counts(1, np.uint16)[0]), "frame 1").mask == (None,)
    assert caplog.text.count("not used") == 1


def nxmx(path: Path, header: Header, chunk: bytes, mask: NDArray[np.uint32] | None) -> Path:
    """A file that says what the header says, with the very bytes of a frame in it."""
    assert header.shape is not None
    assert header.dtype is not None
    with h5py.File(path, "w") as file:
        detector = describe(file)
        for name, value in {
            "beam_center_x": header.beam_centre and header.beam_centre[1],
            "beam_center_y": header.beam_centre and header.beam_centre[0],
            "detector_distance": header.distance,
            "x_pixel_size": header.pixel_size and header.pixel_size[1],
            "y_pixel_size": header.pixel_size and header.pixel_size[0],
            "sensor_thickness": header.thickness,
        }.items():
            detector[name][()] = value  # pyright: ignore[reportIndexIssue]
        file["entry/instrument/beam/incident_wavelength"][()] = header.wavelength  # pyright: ignore[reportIndexIssue]
        dataset(detector, "saturation_value", header.saturation)
        if mask is not None:
            dataset(detector, "pixel_mask", mask)
        group = file["entry/data"]
        assert isinstance(group, h5py.Group)
        images = group.create_dataset(
            "data", (1, *header.shape), header.dtype, chunks=(1, *header.shape), **hdf5plugin.Bitshuffle()
        )
        images.id.write_direct_chunk((0, 0, 0), chunk)
    return path
