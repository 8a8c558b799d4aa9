"""Frames of image files are what a detector would have sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from made_nxmx import SHAPE, axis, counts, dataset, group, write_images
from parvis_services.stream.geometry import experiment_of
from parvis_services.stream.image_files import NoSeries, PackedFrame, open_series
from parvis_services.xray.errors import UnfinishedImageError
from parvis_services.xray.images import open_image
from parvis_services.xray.kernels.bitshuffle_lz4 import decode
from real_data import real_data


def unpacked(frame: PackedFrame) -> NDArray[Any]:
    dtype = np.dtype(frame.dtype)
    return decode(bytes(frame.data), frame.shape, dtype, np.empty(frame.shape, dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_bitshuffled_chunks_are_not_touched(tmp_path: Path, dtype: type[np.generic]) -> None:
    images = counts(3, dtype)
    path = write_images(tmp_path / "a_master.h5", images)
    series = open_series([path])
    assert (series.images, series.header.dtype, series.header.shape) == (3, np.dtype(dtype).name, SHAPE)
    with h5py.File(path) as file:
        stored = file["entry/data/data"]
        assert isinstance(stored, h5py.Dataset)
        chunks = [stored.id.read_direct_chunk((place, 0, 0))[1] for place in range(3)]
    assert [bytes(frame.data) for frame in series.frames()] == chunks


@pytest.mark.parametrize(
    "how",
    [
        {"chunks": (1, *SHAPE), "compression": "gzip"},
        {"chunks": (2, *SHAPE), **hdf5plugin.Bitshuffle()},
        {"chunks": (1, *SHAPE), **hdf5plugin.Bitshuffle(cname="zstd")},
        {"chunks": None},
    ],
    ids=["gzip", "two in a chunk", "zstd", "not packed"],
)
def test_all_else_is_packed(tmp_path: Path, how: dict[str, Any]) -> None:
    images = counts(2)
    series = open_series([write_images(tmp_path / "a_master.h5", images, **how)])
    for frame, image in zip(series.frames(), images, strict=True):
        assert frame.encoding == "bslz4"
        np.testing.assert_array_equal(unpacked(frame), image)


def test_counts_below_0_are_no_pixels(tmp_path: Path) -> None:
    images = counts(1, np.int32)
    images[0, 3, 4] = -1
    series = open_series([write_images(tmp_path / "a_master.h5", images)])
    assert series.header.dtype == "uint32"
    assert unpacked(series.read(0))[3, 4] == 2**32 - 1


def test_the_geometry_is_that_of_the_file(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a_master.h5", counts(1))
    header = open_series([path]).header
    ours, theirs = experiment_of(header, SHAPE, np.dtype(np.uint32)), open_image(path, 0)
    assert ours.beam.wavelength == theirs.beam.wavelength
    (panel,), (other,) = ours.detector.panels, theirs.detector.panels
    corners = np.array([0.0, SHAPE[0]]), np.array([0.0, SHAPE[1]])
    np.testing.assert_allclose(panel.lab(*corners), other.lab(*corners), atol=1e-9)


def test_a_frame_that_is_not_written_is_not_sent(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a_master.h5", counts(2))
    with h5py.File(path, "r+") as file:
        stored = file["entry/data/data"]
        assert isinstance(stored, h5py.Dataset)
        data = stored[0]
        del file["entry/data/data"]
        new: Any = file["entry/data"]
        made = new.create_dataset(
            "data", (2, *SHAPE), np.uint32, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle()
        )
        made[0] = data
    series = open_series([path])
    series.read(0)
    with pytest.raises(UnfinishedImageError):
        series.read(1)


def test_a_detector_that_is_not_straight_is_refused(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a_master.h5", counts(1))
    with h5py.File(path, "r+") as file:
        detector = file["entry/instrument/detector"]
        assert isinstance(detector, h5py.Group)
        turned = group(detector, "transformations", "NXtransformations")
        axis(turned, "two_theta", 20.0, "rotation", (0, 1, 0), ".", units="deg")
        module = group(detector, "module", "NXdetector_module")
        dataset(module, "data_origin", np.array([0, 0]))
        dataset(module, "data_size", np.array(SHAPE))
        on = "/entry/instrument/detector/transformations/two_theta"
        axis(module, "fast_pixel_direction", 0.075, "translation", (-1, 0, 0), on)
        axis(module, "slow_pixel_direction", 0.08, "translation", (0, -1, 0), on)
        axis(module, "module_offset", 150.0, "translation", (0, 0, 1), on)
    with pytest.raises(NoSeries, match="not at right angles"):
        open_series([path])


def test_a_swung_out_pilatus_is_refused() -> None:
    files = sorted(real_data("l_cysteine").glob("*.cbf*"))
    with pytest.raises(NoSeries, match="not at right angles"):
        open_series(files)
