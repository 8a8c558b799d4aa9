"""CBF byte-offset decompression, against the encoder below, fabio and the oracle."""

from __future__ import annotations

import bz2
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from parvis_services.xray import oracle
from parvis_services.xray.kernels import byte_offset
from real_data import real_data


def encode(image: NDArray[np.int32]) -> bytes:
    """Byte-offset compression, straight from its definition."""
    parts: list[bytes] = []
    before = 0
    for value in image.ravel().tolist():
        step, before = value - before, value
        for width, announcement in ((1, b""), (2, b"\x80"), (4, b"\x00\x80"), (8, b"\x00\x00\x00\x80")):
            parts.append(announcement)
            if abs(step) < 1 << (8 * width - 1):
                parts.append(step.to_bytes(width, "little", signed=True))
                break
    return b"".join(parts)


smooth = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(-2, 90)
)
steep = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.sampled_from([0, -1, 126, 127, 128, 129, -128, 32767, 32768, -32768, 2**31 - 1, -(2**31)]),
)


@settings(deadline=None)
@given(smooth | steep)
def test_gives_back_what_was_encoded(image: NDArray[np.int32]) -> None:
    assert np.array_equal(byte_offset.decode(encode(image), image.shape), image)


def test_long_steps_anywhere_among_short_ones() -> None:
    rng = np.random.default_rng(7)
    image = rng.integers(0, 100, (64, 61)).astype(np.int32)
    for share, size in ((0.05, 1_000), (0.02, 1_000_000), (0.01, 2**31 - 1)):
        image[rng.random(image.shape) < share] = size
    assert np.array_equal(byte_offset.decode(encode(image), image.shape), image)


@settings(deadline=None)
@given(st.binary(max_size=80), st.integers(1, 9), st.integers(1, 9))
def test_agrees_with_the_oracle_on_any_bytes(data: bytes, slow: int, fast: int) -> None:
    try:
        expected = oracle.decode_byte_offset(data, (slow, fast))
    except ValueError:
        with pytest.raises(ValueError, match="byte-offset data"):
            byte_offset.decode(data, (slow, fast))
    else:
        assert np.array_equal(byte_offset.decode(data, (slow, fast)), expected)


def test_truncated_data_say_how_much_is_there() -> None:
    data = encode(np.full((10, 50), 1000, np.int32))
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"end after \d+ of 500 pixels"):
            byte_offset.decode(data[:length], (10, 50))


def test_too_much_data_say_how_much() -> None:
    with pytest.raises(ValueError, match="3 bytes more than the 6 pixels need"):
        byte_offset.decode(bytes(9), (2, 3))


def test_nothing_is_written_beside_the_image() -> None:
    memory = np.full(300, -77, np.int32)
    image = np.arange(200, dtype=np.int32).reshape(10, 20) * 50
    byte_offset.decode(encode(image), image.shape, memory[50:250].reshape(10, 20))
    assert np.array_equal(memory[50:250].reshape(10, 20), image)
    assert np.all(memory[:50] == -77)
    assert np.all(memory[250:] == -77)
    with pytest.raises(ValueError, match="bytes more"):
        byte_offset.decode(bytes(400), (10, 20), memory[50:250].reshape(10, 20))
    assert np.all(memory[250:] == -77)


@pytest.mark.parametrize(
    "out", [np.empty((3, 2), np.int32), np.empty((2, 3), np.uint32), np.empty((2, 6), np.int32)[:, ::2]]
)
def test_an_output_that_does_not_fit_is_refused(out: NDArray[np.int32]) -> None:
    with pytest.raises(ValueError, match="output must be"):
        byte_offset.decode(bytes(6), (2, 3), out)


@pytest.mark.parametrize(
    "name", ["thaumatin_grid/thau_3_2_0003.cbf.bz2", "l_cysteine/l-cyst_01_00001.cbf.bz2"]
)
def test_real_images_are_those_of_fabio(name: str) -> None:
    from fabio.compression import decByteOffset

    file = bz2.decompress(real_data(name).read_bytes())
    start = file.index(b"\x0c\x1a\x04\xd5") + 4
    header = file[:start].decode("latin-1")
    size, fast, slow = (
        int(re.findall(rf"{key}:\s*(\d+)", header)[0])
        for key in ("X-Binary-Size", "X-Binary-Size-Fastest-Dimension", "X-Binary-Size-Second-Dimension")
    )
    data = memoryview(file)[start : start + size]
    expected = np.asarray(decByteOffset(bytes(data), size=slow * fast)).reshape(slow, fast)
    assert np.array_equal(byte_offset.decode(data, (slow, fast)), expected)
