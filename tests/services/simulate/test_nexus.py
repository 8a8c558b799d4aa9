"""NXmx files: what is in them, and what a reader sees while they are written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # pyright: ignore[reportUnusedImport] - its filters unpack the images
import numpy as np
import pytest

from parvis_services.nxmx_files import Series, no_count
from parvis_services.simulate.header import Header
from parvis_services.simulate.nexus import NexusWriter, frames_to_nexus
from parvis_services.stream.image_files import DEAD_PIXEL, NO_PIXEL, pixel_mask
from parvis_services.xray.kernels.bitshuffle_lz4 import decode

HEADER = Header(
    detector="EIGER2 Si X",
    wavelength=0.9795,
    distance=0.1714,
    beam_xy=(30.4, 19.7),
    pixel_size=(75e-6, 80e-6),
    sensor_thickness=450e-6,
    count_cutoff=121774,
    start_angle=15.0,
    angle_increment=0.1,
)
SHAPE = (48, 70)


def opened(path: Path) -> Any:
    """The file, open to read; what is in it is known only when it is looked at."""
    return h5py.File(path, "r", swmr=True)


def images(number: int) -> list[np.ndarray]:
    random = np.random.default_rng(number)
    made = random.poisson(2, (number, *SHAPE)).astype(np.int32)
    made[:, 20:23] = -1
    made[:, 5, 6] = -2
    made[0, 40, 40] = 3_000_000
    return list(made)


def expected(image: np.ndarray) -> np.ndarray:
    return np.where(image < 0, np.int64(no_count("uint32")), image.astype(np.int64))


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("per_file", [3, 7, 1000])
def test_all_images_are_read_through_the_master(tmp_path, linked, per_file):
    made = images(7)
    series = Series(tmp_path, "thau_1", 7, SHAPE, per_file, linked)
    master = frames_to_nexus(made, HEADER, series)
    assert master == tmp_path / "thau_1.nxs"
    with opened(master) as file:
        data = file["/entry/data/data"]
        assert data.is_virtual
        sources = {(Path(source.file_name).suffix, source.dset_name) for source in data.virtual_sources()}
        assert data.shape == (7, *SHAPE)
        for number, image in enumerate(made):
            np.testing.assert_array_equal(data[number], expected(image))
    files = range(1, -(-7 // per_file) + 1)
    assert sources == ({("", f"/entry/data/data_{f:06d}") for f in files} if linked else {(".h5", "data")})
    present = sorted(path.name for path in tmp_path.iterdir())
    parts = [f"thau_1_{part:06d}.h5" for part in files]
    assert present == sorted(["thau_1.nxs", "thau_1_meta.h5", *parts])


def test_a_frame_is_one_chunk_as_the_detector_sends_it(tmp_path):
    (image,) = images(1)
    frames_to_nexus([image], HEADER, Series(tmp_path, "x", 1, SHAPE))
    with opened(tmp_path / "x_000001.h5") as file:
        left_out, chunk = file["data"].id.read_direct_chunk((0, 0, 0))
    assert left_out == 0
    assert int.from_bytes(chunk[:8], "big") == image.size * 4
    assert int.from_bytes(chunk[8:12], "big") == 8192
    np.testing.assert_array_equal(decode(chunk, SHAPE, np.uint32), expected(image))


def position(file: Any, path: str) -> np.ndarray:
    """Where a chain of NeXus translations leads, in mm, with its own vector first."""
    place = np.zeros(3)
    while path != ".":
        axis = file[path]
        millimetres = {"m": 1000.0, "mm": 1.0}[axis.attrs["units"].decode()]
        place += np.ravel(axis[()])[0] * millimetres * axis.attrs["vector"]
        path = axis.attrs["depends_on"].decode()
    return place


def test_geometry_is_that_of_the_cbf_header(tmp_path):
    frames_to_nexus(images(1), HEADER, Series(tmp_path, "x", 1, SHAPE))
    with opened(tmp_path / "x.nxs") as file:
        module = "/entry/instrument/detector/module"
        corner = position(file, f"{module}/module_offset")
        beside = position(file, f"{module}/fast_pixel_direction")
        below = position(file, f"{module}/slow_pixel_direction")
        wavelength = file["/entry/instrument/beam/incident_wavelength"][()]
        np.testing.assert_array_equal(file["/entry/data/omega"][()], [15.0])
    # NeXus looks against the beam of mini-CBF: x and z change their signs.
    turn = np.array([-1.0, 1.0, -1.0])
    origin = np.array([-30.4 * 75e-3, 19.7 * 80e-3, -171.4])
    np.testing.assert_allclose(turn * corner, origin, rtol=1e-14)
    np.testing.assert_allclose(turn * (beside - corner), [75e-3, 0, 0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(turn * (below - corner), [0, -80e-3, 0], rtol=0, atol=1e-14)
    assert wavelength == 0.9795


def test_the_detector_is_described(tmp_path):
    frames_to_nexus(images(3), HEADER, Series(tmp_path, "x", 3, SHAPE))
    with opened(tmp_path / "x.nxs") as file:
        detector = file["/entry/instrument/detector"]
        assert file["/entry/definition"][()] == b"NXmx"
        assert detector["saturation_value"][()] == 121774
        assert detector["countrate_correction_count_cutoff"][()] == 121774
        assert detector["underload_value"][()] == 0
        assert detector["sensor_material"][()] == b"Silicon"
        assert detector["sensor_thickness"][()] == 450e-6
        assert (detector["beam_center_x"][()], detector["beam_center_y"][()]) == (30.4, 19.7)
        assert detector["detector_distance"][()] == detector["distance"][()] == 0.1714
        mask = detector["pixel_mask"][()]
        np.testing.assert_array_equal(file["/entry/data/omega"][()], [15.0, 15.1, 15.2])
    with opened(tmp_path / "x_meta.h5") as meta:
        assert json.loads(meta["config"][()])["countrate_correction_count_cutoff"] == 121774
        assert meta["_dectris/bit_depth_readout"][0] == 16
    assert (mask[20:23] == NO_PIXEL).all()
    assert mask[5, 6] == DEAD_PIXEL
    assert np.count_nonzero(mask) == 3 * SHAPE[1] + 1


def test_beam_in_the_corner_needs_no_offset(tmp_path):
    frames_to_nexus(images(1), replace(HEADER, beam_xy=(0.0, 0.0)), Series(tmp_path, "x", 1, SHAPE))
    with opened(tmp_path / "x.nxs") as file:
        offset = file["/entry/instrument/detector/module/module_offset"]
        assert offset[()] == 0
        assert np.linalg.norm(offset.attrs["vector"]) == 1


LOOK = """
import json, sys, h5py
with h5py.File(sys.argv[1], "r", swmr=True) as file:
    data = file["data"]
    sizes = [data.id.get_chunk_info_by_coord((frame, 0, 0)).size for frame in range(len(data))]
with h5py.File(sys.argv[2], "r", swmr=True) as file:
    print(json.dumps([sizes, file["/entry/data/data"].shape]))
"""


def look(data_file: Path, master: Path) -> tuple[list[bool], list[int]]:
    """Which frames another process finds written, and how many it expects."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(data_file), str(master)], check=True, capture_output=True, timeout=60
    )
    sizes, shape = json.loads(done.stdout)
    return [size > 0 for size in sizes], shape


def test_readers_see_each_frame_when_it_is_written(tmp_path):
    made = images(5)
    series = Series(tmp_path, "x", 5, SHAPE, images_per_file=4)
    with NexusWriter(series, HEADER, pixel_mask(made[0])) as writer:
        assert series.master.exists()
        assert not series.data_files[0].exists()
        for image in made[:2]:
            writer.append(image)
        assert look(series.data_files[0], series.master) == ([True, True, False, False], [5, *SHAPE])
        assert not series.data_files[1].exists()
        for image in made[2:]:
            writer.append(image)
        assert look(series.data_files[1], series.master) == ([True], [5, *SHAPE])


def test_a_series_that_ends_early_keeps_what_it_has(tmp_path):
    series = Series(tmp_path, "x", 5, SHAPE)
    with NexusWriter(series, HEADER, np.zeros(SHAPE, np.uint32)) as writer:
        writer.append(images(1)[0])
    assert look(series.data_files[0], series.master)[0] == [True, False, False, False, False]


@pytest.mark.parametrize("suffix", [".nxs", "_meta.h5", "_000001.h5"])
def test_what_is_there_is_not_overwritten(tmp_path, suffix):
    (tmp_path / f"x{suffix}").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=f"x{suffix}"):
        frames_to_nexus(images(1), HEADER, Series(tmp_path, "x", 1, SHAPE))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one image"):
        Series(tmp_path, "x", 0, SHAPE)
    with pytest.raises(ValueError, match="no images"):
        frames_to_nexus([], HEADER, Series(tmp_path, "x", 1, SHAPE))
    with pytest.raises(ValueError, match="mask"):
        NexusWriter(Series(tmp_path, "y", 1, SHAPE), HEADER, np.zeros((3, 3), np.uint32))
    with pytest.raises(ValueError, match="only 2 were given"):
        frames_to_nexus(images(2), HEADER, Series(tmp_path, "z", 3, SHAPE))
    with NexusWriter(Series(tmp_path, "v", 1, SHAPE), HEADER, np.zeros(SHAPE, np.uint32)) as writer:
        with pytest.raises(ValueError, match=r"\(3, 3\)"):
            writer.append(np.zeros((3, 3), np.int32))
        writer.append(images(1)[0])
        with pytest.raises(ValueError, match="all 1 images"):
            writer.append(images(1)[0])
