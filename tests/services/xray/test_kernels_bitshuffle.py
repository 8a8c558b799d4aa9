"""Decompression of bitshuffle-LZ4 chunks, against what the HDF5 filter writes, and against damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from parvis_services.xray.kernels import bitshuffle_lz4
from real_data import real_data

KINDS = (np.uint8, np.uint16, np.uint32, np.int16, np.int32)


def chunk_of(image: NDArray[Any], block: int = 0) -> bytes:
    """The image as the HDF5 filter compresses it, in blocks of so many elements (0: as it likes)."""
    with h5py.File("chunk", "w", driver="core", backing_store=False) as file:
        filters = hdf5plugin.Bitshuffle(nelems=block, cname="lz4")
        data = file.create_dataset("data", data=image[np.newaxis], chunks=(1, *image.shape), **filters)
        filter_mask, chunk = data.id.read_direct_chunk((0, 0, 0))
        assert filter_mask == 0
        return bytes(chunk)


def counts(kind: type, shape: tuple[int, int], mean: float, seed: int = 1) -> NDArray[Any]:
    """Poisson noise, with the highest number of the type here and there."""
    rng = np.random.default_rng(seed)
    image = rng.poisson(mean, shape).astype(kind)
    image[rng.random(shape) < 0.01] = np.iinfo(kind).max
    return image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mean", [0.0, 0.1, 5.0, 100.0])
def test_gives_back_what_the_filter_wrote(kind: type, mean: float) -> None:
    image = counts(kind, (150, 131), mean)
    assert np.array_equal(bitshuffle_lz4.decode(chunk_of(image), image.shape, kind), image)


@settings(deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype(kind) for kind in KINDS]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=50),
        elements=st.integers(0, 127) | st.just(3),
        fill=st.just(0),
    ),
    st.sampled_from([0, 8, 24, 128, 1024]),
)
def test_gives_back_images_of_any_size_in_blocks_of_any_size(image: NDArray[Any], block: int) -> None:
    assert np.array_equal(bitshuffle_lz4.decode(chunk_of(image, block), image.shape, image.dtype), image)


def test_data_that_cannot_be_compressed() -> None:
    image = np.random.default_rng(3).integers(0, 2**32, (97, 103), np.uint32)
    assert np.array_equal(bitshuffle_lz4.decode(chunk_of(image), image.shape, np.uint32), image)


def test_fills_the_output_it_is_given_and_nothing_beside_it() -> None:
    image = counts(np.uint16, (40, 51), 2.0)
    memory = np.full(image.size + 200, 777, np.uint16)
    out = memory[100:-100].reshape(image.shape)
    assert bitshuffle_lz4.decode(chunk_of(image), image.shape, np.uint16, out) is out
    assert np.array_equal(out, image)
    assert np.all(memory[:100] == 777)
    assert np.all(memory[-100:] == 777)


def test_a_chunk_cut_short_anywhere_is_an_error() -> None:
    chunk = chunk_of(counts(np.uint16, (50, 47), 3.0))
    for length in range(len(chunk)):
        with pytest.raises(ValueError, match=r"damaged or incomplete|begins with 12 bytes"):
            bitshuffle_lz4.decode(chunk[:length], (50, 47), np.uint16)


def test_bytes_after_the_data_are_an_error() -> None:
    image = counts(np.uint16, (50, 47), 3.0)
    with pytest.raises(ValueError, match="5 bytes follow"):
        bitshuffle_lz4.decode(chunk_of(image) + b"extra", image.shape, np.uint16)


SMALL = counts(np.uint16, (61, 67), 1.0)
SMALL_CHUNK = chunk_of(SMALL)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(SMALL_CHUNK) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_chunk_is_an_error_or_another_image(changes: list[tuple[int, int]]) -> None:
    chunk = bytearray(SMALL_CHUNK)
    for position, value in changes:
        chunk[position] = value
    memory = np.full(SMALL.size + 2000, 777, np.uint16)
    out = memory[1000:-1000].reshape(SMALL.shape)
    try:
        bitshuffle_lz4.decode(bytes(chunk), SMALL.shape, np.uint16, out)
    except ValueError as error:
        assert str(error)  # noqa: PT017 (either outcome is right; what counts is the memory beside it)
    assert np.all(memory[:1000] == 777)
    assert np.all(memory[-1000:] == 777)


def chunk_with(block: bytes, size: int) -> bytes:
    """A chunk of one LZ4 block, of an image of so many bytes."""
    return size.to_bytes(8, "big") + (8192).to_bytes(4, "big") + len(block).to_bytes(4, "big") + block


@pytest.mark.parametrize(
    ("what", "block"),
    [
        ("a match before the beginning", bytes([0x10, 0, 2, 0, 0xF0, 44]) + bytes(59)),
        ("a match with offset 0", bytes([0x10, 0, 0, 0, 0xF0, 44]) + bytes(59)),
        ("a match longer than the block", bytes([0x1F, 0, 1, 0, 255, 255, 0, 0x00])),
        ("more literals than bytes", bytes([0xF0, 200]) + bytes(49)),
        ("more literals than the block holds", bytes([0xF0, 85]) + bytes(100)),
        ("far more literals than the block holds", bytes([0xF0]) + b"\xff" * 16_000 + bytes(4_080_016)),
        ("a length without end", bytes([0xF0, 255, 255, 255])),
        ("an end after a match", bytes([0x1F, 0, 1, 0, 44])),
        ("too few bytes", bytes([0x80]) + bytes(8)),
        ("nothing", b""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_impossible_lz4_block_is_an_error(what: str, block: bytes) -> None:
    with pytest.raises(ValueError, match="damaged or incomplete after 0 of 64 pixels"):
        bitshuffle_lz4.decode(chunk_with(block, 64), (8, 8), np.uint8)


def test_a_chunk_of_another_image_is_an_error() -> None:
    chunk = chunk_of(counts(np.uint16, (50, 47), 3.0))
    with pytest.raises(ValueError, match="image of 4700 bytes, not of 9400"):
        bitshuffle_lz4.decode(chunk, (50, 47), np.uint32)
    with pytest.raises(ValueError, match="bytes, not of 4800"):
        bitshuffle_lz4.decode(chunk, (50, 48), np.uint16)


@pytest.mark.parametrize("block", [0, 4, 12])
def test_an_impossible_block_size_is_an_error(block: int) -> None:
    chunk = (128).to_bytes(8, "big") + block.to_bytes(4, "big") + bytes(100)
    with pytest.raises(ValueError, match="multiple of 8 elements"):
        bitshuffle_lz4.decode(chunk, (8, 8), np.uint16)


@pytest.mark.parametrize("kind", [np.float32, np.uint64, ">u2"])
def test_other_types_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="native integers"):
        bitshuffle_lz4.decode(SMALL_CHUNK, SMALL.shape, kind)


def test_a_real_eiger_frame(tmp_path: Path) -> None:
    """HDF5's own filter decompresses the same chunk."""
    chunk = real_data("eiger_stream/tickit_frame_sample").read_bytes()
    shape = (4362, 4148)
    with h5py.File(tmp_path / "frame.h5", "w") as file:
        data = file.create_dataset(
            "data", (1, *shape), np.uint16, chunks=(1, *shape), **hdf5plugin.Bitshuffle()
        )
        data.id.write_direct_chunk((0, 0, 0), chunk)
        expected = data[0]
    assert np.array_equal(bitshuffle_lz4.decode(chunk, shape, np.uint16), expected)
