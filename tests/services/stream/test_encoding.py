"""How frames are packed: the names, and that HDF5 reads what is written as it came."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from parvis_services.stream import encoding as encodings
from parvis_services.stream.decoder import StreamDecoder
from parvis_services.stream.events import Encoding, Frame, MalformedStream
from parvis_services.xray.kernels import bitshuffle_lz4
from real_data import real_data
from stream_vectors import PACKED, frame

COUNTS = np.arange(64, dtype=np.uint16).reshape(8, 8)


@pytest.mark.parametrize(
    ("text", "dtype", "encoding"),
    [
        ("<", "uint16", "none"),
        ("lz4<", "uint32", "lz4"),
        ("bs16-lz4<", "uint16", "bslz4"),
        ("bs32-lz4<", "uint32", "bslz4"),
        ("bs8-lz4<", "uint8", "bslz4"),
        ("bs8-lz4>", "uint8", "bslz4"),
        ("bs16lz4<", "uint16", "bslz4"),
        ("lz4", "uint16", "lz4"),
    ],
)
def test_names_of_stream_v1(text: str, dtype: str, encoding: Encoding) -> None:
    assert encodings.parse_v1(text, dtype) == encoding


@pytest.mark.parametrize("text", ["bs16<", "bs32-lz4<", "lz4>", "bs12-lz4<", "lz5<", "<<", "BS16-LZ4<"])
def test_names_that_are_not_understood(text: str) -> None:
    with pytest.raises(MalformedStream, match=text):
        encodings.parse_v1(text, "uint16")


def through_hdf5(path: Path, sent: Frame) -> NDArray[Any]:
    """The counts as HDF5 reads them from a file into which the frame was written as it came."""
    compression = encodings.hdf5_filter(sent.encoding)
    options = (
        {}
        if compression is None
        else {"compression": compression.number, "compression_opts": compression.options}
    )
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (1, *sent.shape), sent.dtype, chunks=(1, *sent.shape), **options)
        data.id.write_direct_chunk((0, 0, 0), bytes(encodings.hdf5_chunk(sent)))
    with h5py.File(path) as file:
        return file["data"][0]  # pyright: ignore[reportIndexIssue, reportReturnType]


def chunk_of(path: Path, counts: NDArray[Any]) -> bytes:
    """What HDF5's own LZ4 filter makes of counts."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=counts, chunks=counts.shape, **hdf5plugin.LZ4())
        return data.id.read_direct_chunk((0, 0))[1]


def test_hdf5_reads_bitshuffle_lz4(tmp_path: Path) -> None:
    assert np.array_equal(through_hdf5(tmp_path / "a.h5", frame(0)), COUNTS)


def test_hdf5_reads_counts_that_are_not_packed(tmp_path: Path) -> None:
    sent = frame(0, data=COUNTS.tobytes(), encoding="none")
    assert np.array_equal(through_hdf5(tmp_path / "a.h5", sent), COUNTS)


def test_hdf5_reads_lz4_with_and_without_prefix(tmp_path: Path) -> None:
    counts = np.zeros((8, 8), np.uint16)
    counts[3, 4] = 1000
    chunk = chunk_of(tmp_path / "made.h5", counts)
    assert struct.unpack(">QII", chunk[:16]) == (128, 128, len(chunk) - 16)
    framed = frame(0, data=chunk, encoding="hdf5-lz4")
    bare = frame(0, data=chunk[16:], encoding="lz4")
    assert encodings.hdf5_chunk(framed) is framed.data, "a chunk that is right already is copied"
    for sent in (framed, bare):
        assert np.array_equal(through_hdf5(tmp_path / "a.h5", sent), counts)


def test_a_block_that_hdf5_would_misread() -> None:
    with pytest.raises(MalformedStream, match="image 5: an LZ4 block as long as its counts"):
        encodings.hdf5_chunk(frame(5, data=bytes(128), encoding="lz4"))


@pytest.mark.parametrize("name", ["tickit_frame_sample", "tickit_stream2_image.cbor"])
def test_a_real_frame_has_the_same_pixels_through_hdf5(tmp_path: Path, name: str) -> None:
    content = real_data(f"eiger_stream/{name}").read_bytes()
    if name.endswith("cbor"):
        (sent,) = StreamDecoder().decode([content])
        assert isinstance(sent, Frame)
    else:
        sent = replace(frame(0, data=content), shape=(4362, 4148))
    ours = bitshuffle_lz4.decode(sent.data, sent.shape, sent.dtype)
    assert np.array_equal(ours, through_hdf5(tmp_path / "a.h5", sent))


def test_the_known_answer() -> None:
    assert np.array_equal(bitshuffle_lz4.decode(PACKED, (8, 8), np.uint16), COUNTS)
