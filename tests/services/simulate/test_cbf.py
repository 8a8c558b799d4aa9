"""Mini-CBF files, read back by fabio."""

from __future__ import annotations

import bz2
import threading
from io import BytesIO
from typing import Any

import fabio
import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parvis_services.simulate.cbf import BINARY_START, byte_offset, cbf_bytes, write_cbf
from parvis_services.simulate.header import Header
from parvis_services.simulate.placing import Slowly
from real_data import real_data
from waiting import wait_until

HEADER = Header("PILATUS3 X", 1.0, 0.2, (30.0, 20.0), (172e-6, 172e-6), 450e-6, 100000)


def unpack(packed: bytes, number: int) -> list[int]:
    """The definition of byte offset, one value after the other."""
    values, position, last = [], 0, 0
    while len(values) < number:
        for width in (1, 2, 4, 8):
            delta = int.from_bytes(packed[position : position + width], "little", signed=True)
            position += width
            if width == 8 or delta != -(1 << (8 * width - 1)):
                break
        last += delta
        values.append(last)
    assert position == len(packed)
    return values


@given(
    hnp.arrays(
        np.int32,
        st.tuples(st.integers(1, 4), st.integers(1, 30)),
        elements=st.one_of(
            st.integers(-2, 3),
            st.integers(-300, 300),
            st.integers(-70_000, 70_000),
            st.integers(-(2**31), 2**31 - 1),
        ),
    )
)
def test_every_integer_is_packed_as_defined(image):
    assert unpack(byte_offset(image), image.size) == image.ravel().tolist()


@pytest.mark.parametrize("delta", [127, 128, 32767, 32768, 2**31 - 1, 2**31])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_and_smallest_of_each_width(delta, sign):
    image = np.array([[0, sign * delta, 0]], dtype=np.int64)
    assert unpack(byte_offset(image), 3) == [0, sign * delta, 0]


def test_only_integers_are_packed():
    with pytest.raises(TypeError, match="float64"):
        byte_offset(np.zeros((2, 2)))


@pytest.mark.parametrize("suffix", ["cbf", "cbf.gz", "cbf.bz2"])
def test_fabio_reads_the_same_pixels_and_header(tmp_path, suffix):
    random = np.random.default_rng(5)
    image = random.poisson(3, (40, 60)).astype(np.int32)
    image[7, 8:11] = [90, 5000, 1_000_000]
    image[20:23] = -1
    image[3, 3] = -2
    path = tmp_path / f"frame_00001.{suffix}"
    write_cbf(path, image, HEADER)
    with fabio.open(str(path)) as read:
        np.testing.assert_array_equal(read.data, image)
        assert "# Beam_xy (30.0, 20.0) pixels" in read.header["_array_data.header_contents"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_real_image_is_packed_to_the_same_bytes():
    real = bz2.decompress((real_data("thaumatin_grid") / "thau_3_2_0003.cbf.bz2").read_bytes())
    packed_at = real.index(BINARY_START) + len(BINARY_START)
    image = unpack_with_fabio(real)
    packed = byte_offset(image)
    assert packed == real[packed_at : packed_at + len(packed)]
    ours = cbf_bytes(image, Header.from_mini_cbf(real[:1400].decode()), "thau_3_2_0003")
    binary_header = real[real.index(b"--CIF-BINARY") : packed_at]
    assert binary_header in ours
    assert ours.endswith(real[packed_at:])


def unpack_with_fabio(data: bytes) -> np.ndarray:
    image: Any = CbfImage()
    return image.read(BytesIO(data)).data


def test_what_is_there_is_not_overwritten(tmp_path):
    path = tmp_path / "frame_00001.cbf"
    path.write_bytes(b"precious")
    for slowly in (None, Slowly()):
        with pytest.raises(FileExistsError, match="frame_00001"):
            write_cbf(path, np.zeros((2, 2), np.int32), HEADER, slowly=slowly)
    assert path.read_bytes() == b"precious"


def test_a_slow_file_is_seen_unfinished(tmp_path):
    path = tmp_path / "frame_00001.cbf"
    image = np.arange(3000, dtype=np.int32).reshape(50, 60)
    whole = len(cbf_bytes(image, HEADER, "frame_00001"))
    writer = threading.Thread(
        target=write_cbf, args=(path, image, HEADER), kwargs={"slowly": Slowly(pieces=20, pause=0.01)}
    )
    writer.start()
    wait_until(lambda: path.exists() and 0 < path.stat().st_size < whole, 10, "part of the file")
    writer.join(10)
    assert path.stat().st_size == whole
    with fabio.open(str(path)) as read:
        np.testing.assert_array_equal(read.data, image)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2, 2), np.int32), np.zeros((0, 3), np.int32), np.full((2, 2), 2**31, np.int64)]
)
def test_what_a_mini_cbf_cannot_hold_is_refused(image):
    with pytest.raises(ValueError, match=r"image"):
        cbf_bytes(image, HEADER, "x")


def test_a_hostile_name_cannot_add_lines():
    data = cbf_bytes(np.zeros((2, 2), np.int32), HEADER, "x\r\n_evil 1\r\n")
    assert b"data_x___evil_1__\r\n" in data
