"""Geometry, trusted range and sensor of HDF5 files."""

from __future__ import annotations

import gzip
import math
import shutil
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from made_nxmx import SHAPE, axis, counts, dataset, group, write_images
from parvis_services.nxmx_files import Series
from parvis_services.simulate.cbf import write_cbf
from parvis_services.simulate.header import Header
from parvis_services.simulate.nexus import frames_to_nexus
from parvis_services.xray.errors import BrokenImageError, UnfinishedImageError
from parvis_services.xray.images import Image, open_image
from parvis_services.xray.resolution import d_star_squared
from real_data import real_data

DETECTOR = "entry/instrument/detector"
CORNERS = np.array([0.0, 0.0, 24.0, 12.5]), np.array([0.0, 40.0, 0.0, 33.0])


def resolutions(image: Image) -> np.ndarray:
    return d_star_squared(image.detector.panels[0], image.beam, *CORNERS)


def changed(path: Path, **values: Any) -> Image:
    """A file of one frame in which datasets of the detector have other values; None removes one."""
    if not path.exists():
        write_images(path, counts(1))
    with h5py.File(path, "a") as file:
        detector = file[DETECTOR]
        assert isinstance(detector, h5py.Group)
        for name, value in values.items():
            if name in detector:
                del detector[name]
            if value is not None:
                detector[name] = value
    return open_image(path)


def test_beam_centre_and_distance(tmp_path):
    image = open_image(write_images(tmp_path / "x.h5", counts(1)))
    (panel,) = image.detector.panels
    assert panel.pixel_size == pytest.approx((0.08, 0.075))
    assert panel.thickness == pytest.approx(0.45)
    assert panel.attenuation == pytest.approx(4.21, abs=0.02)
    assert image.beam.wavelength == pytest.approx(1)
    assert d_star_squared(panel, image.beam, np.array([11.0]), np.array([20.5])) == pytest.approx(
        0, abs=1e-20
    )


def test_the_same_geometry_as_a_cbf_of_the_same_header(tmp_path):
    header = Header(
        detector="EIGER2",
        wavelength=0.9795,
        distance=0.1714,
        beam_xy=(30.4, 19.7),
        pixel_size=(75e-6, 80e-6),
        sensor_thickness=450e-6,
        count_cutoff=121774,
    )
    made = counts(1, np.int32)
    nexus = open_image(frames_to_nexus(list(made), header, Series(tmp_path, "x", 1, SHAPE)))
    write_cbf(tmp_path / "x.cbf", made[0], header)
    cbf = open_image(tmp_path / "x.cbf")
    assert resolutions(nexus) == pytest.approx(resolutions(cbf), rel=1e-12)
    assert nexus.detector.panels[0].trusted == cbf.detector.panels[0].trusted == (0, 121774)


def module(detector: h5py.Group, name: str, chain: str, **more: Any) -> h5py.Group:
    made = group(detector, name, "NXdetector_module")
    for key, value in more.items():
        made[key] = value
    axis(made, "fast_pixel_direction", 0.075, "translation", (-1, 0, 0), chain)
    axis(made, "slow_pixel_direction", 80.0, "translation", (0, -1, 0), chain, units="um")
    return made


def with_modules(path: Path, images: np.ndarray | None = None) -> tuple[h5py.File, h5py.Group, h5py.Group]:
    """A file opened for its modules to be described; they take the place of beam centre and distance."""
    write_images(path, counts(1) if images is None else images)
    file = h5py.File(path, "a")
    detector = file[DETECTOR]
    assert isinstance(detector, h5py.Group)
    for name in ("beam_center_x", "beam_center_y", "detector_distance"):
        del detector[name]
    return file, detector, group(detector, "transformations", "NXtransformations")


def test_a_chain_of_transformations(tmp_path):
    """A detector swung out by two-theta about -y and shifted, with every way to say a unit."""
    path = tmp_path / "x.h5"
    file, detector, steps = with_modules(path)
    with file:
        axis(steps, "two_theta", [math.pi / 6], "rotation", (0, -1, 0), ".", units="rad")
        axis(
            steps,
            "distance",
            0.2,
            "translation",
            (0, 0, 1),
            f"/{DETECTOR}/transformations/two_theta",
            units="m",
        )
        axis(
            steps,
            "offset",
            0.0,
            "translation",
            (1, 0, 0),
            "distance",
            offset=(1.5, 1.0, 0),
            offset_units="mm",
        )
        module(detector, "module", f"/{DETECTOR}/transformations/offset")
    image = open_image(path)
    (panel,) = image.detector.panels
    assert panel.pixel_size == pytest.approx((0.08, 0.075))
    s, c = math.sin(math.pi / 6), math.cos(math.pi / 6)
    assert panel.origin == pytest.approx((1.5 * c - 200 * s, 1.0, 1.5 * s + 200 * c))
    assert panel.fast_axis == pytest.approx((-c, 0, -s))
    assert panel.slow_axis == pytest.approx((0, -1, 0))
    assert image.beam.direction == (0, 0, 1)


def test_several_modules_are_panels(tmp_path):
    path = tmp_path / "x.h5"
    images = counts(2)
    file, detector, steps = with_modules(path, images)
    with file:
        axis(steps, "z", 100.0, "translation", (0, 0, 1), ".")
        for number, start in enumerate((0, 14)):
            name = f"shift_{number}"
            axis(
                steps,
                name,
                1.0,
                "translation",
                (0, -1, 0),
                "z",
                offset=(0, -0.08 * start, 0),
                offset_units="mm",
            )
            chain = f"/{DETECTOR}/transformations/{name}"
            module(detector, f"module_{number}", chain, data_origin=[start, 0], data_size=[10, 40])
        bad = np.zeros(SHAPE, np.uint32)
        bad[15, 3] = 1
        detector["pixel_mask"] = bad
    image = open_image(path, 1)
    assert [data.shape for data in image.data] == [(10, 40), (10, 40)]
    np.testing.assert_array_equal(image.data[0], images[1, :10])
    np.testing.assert_array_equal(image.data[1], images[1, 14:])
    assert [panel.offset for panel in image.detector.panels] == [(0, 0), (14, 0)]
    assert image.detector.panels[1].origin == pytest.approx((0, -1 - 0.08 * 14, 100))
    assert image.mask[0] is not None
    assert image.mask[1] is not None
    assert image.mask[0].all()
    assert np.argwhere(~image.mask[1]).tolist() == [[1, 3]]


def test_modules_along_an_axis_of_their_own(tmp_path):
    """As a JUNGFRAU has them: (frame, module, slow, fast)."""
    path = tmp_path / "x.h5"
    images = counts(2, np.int16, (3, 6, 8))
    file, detector, steps = with_modules(path, images)
    with file:
        axis(steps, "z", 100.0, "translation", (0, 0, 1), ".")
        for number in range(3):
            chain = f"/{DETECTOR}/transformations/z"
            module(detector, f"module_{number}", chain, data_origin=[number, 0, 0], data_size=[1, 6, 8])
    image = open_image(path, 1)
    assert len(image.data) == 3
    for number in range(3):
        np.testing.assert_array_equal(image.data[number], images[1, number])


def test_a_size_given_fast_first(tmp_path):
    path = tmp_path / "x.h5"
    file, detector, steps = with_modules(path)
    with file:
        axis(steps, "z", 100.0, "translation", (0, 0, 1), ".")
        module(
            detector,
            "module",
            "../transformations/z".replace("../", f"/{DETECTOR}/"),
            data_origin=[0, 0],
            data_size=[40, 24],
        )
    assert open_image(path).data[0].shape == SHAPE


@pytest.mark.parametrize(
    ("chain", "more", "says"),
    [
        ("nowhere", {}, "which is not there"),
        ("circle", {}, "depends on itself"),
        ("furlongs", {}, "'furlong', which is not a unit of length"),
        ("turns", {}, "'turn', which is not a unit of angle"),
        ("blind", {}, "no vector of three numbers"),
        ("text", {}, "is not a number"),
        (".", {"data_origin": [0, 0], "data_size": [25, 40]}, "are not part of"),
        (".", {"data_origin": [-1, 0], "data_size": [2, 2]}, "are not part of"),
    ],
)
def test_geometry_that_cannot_be(tmp_path, chain, more, says):
    path = tmp_path / "x.h5"
    file, detector, steps = with_modules(path)
    with file:
        axis(steps, "circle", 1.0, "translation", (0, 0, 1), "circle")
        axis(steps, "furlongs", 1.0, "translation", (0, 0, 1), ".", units="furlong")
        axis(steps, "turns", 1.0, "rotation", (0, 0, 1), ".", units="turn")
        axis(steps, "text", b"far", "translation", (0, 0, 1), ".")
        dataset(steps, "blind", 1.0, transformation_type="translation", units="mm")
        module(detector, "module", chain if chain == "." else f"/{DETECTOR}/transformations/{chain}", **more)
    with pytest.raises(BrokenImageError, match=says):
        open_image(path)


@pytest.mark.parametrize(
    ("dtype", "values", "trusted"),
    [
        (np.uint32, {}, (0, 2**32 - 3)),
        (np.uint16, {}, (0, 65533)),
        (np.uint16, {"saturation_value": 100_000}, (0, 65533)),
        (np.uint16, {"saturation_value": [30_000]}, (0, 30_000)),
        (np.int32, {}, (0, 2**31 - 1)),
        (np.int16, {"underload_value": -500}, (-500, 2**15 - 1)),
        (np.float32, {}, (-np.inf, np.inf)),
        (np.float32, {"underload_value": -3.5, "saturation_value": 9e5}, (-3.5, 9e5)),
    ],
)
def test_trusted_range(tmp_path, dtype, values, trusted):
    write_images(tmp_path / "x.h5", counts(1, dtype))
    assert changed(tmp_path / "x.h5", **values).detector.panels[0].trusted == trusted


def test_a_sensor_that_is_not_described(tmp_path):
    (panel,) = changed(tmp_path / "x.h5", sensor_material=None).detector.panels
    assert (panel.thickness, panel.attenuation) == (0, None)
    (panel,) = changed(tmp_path / "germanium.h5", sensor_material="Ge").detector.panels
    assert panel.attenuation is None
    (panel,) = changed(tmp_path / "cdte.h5", sensor_material=np.array([b"CdTe"])).detector.panels
    assert panel.attenuation == pytest.approx(49, abs=3)


def test_wavelength_from_the_photon_energy(tmp_path):
    path = write_images(tmp_path / "x.h5", counts(1))
    with h5py.File(path, "a") as file:
        del file["entry/instrument/beam"]
        file[f"{DETECTOR}/detectorSpecific/photon_energy"] = 12398.419843320026
    assert open_image(path).beam.wavelength == pytest.approx(1)


def test_a_real_master_and_meta_file(tmp_path):
    """Insulin at I03, EIGER2 16M: real metadata, with the data files that belong to it made here."""
    for name in ("ins_8_5.nxs", "ins_8_5_meta.h5"):
        packed = real_data(f"nexus/{name}.gz")
        with gzip.open(packed) as source, (tmp_path / name).open("wb") as target:
            shutil.copyfileobj(source, target)
    master = tmp_path / "ins_8_5.nxs"
    with pytest.raises(UnfinishedImageError, match="no images in it"):
        open_image(master)
    made = np.random.default_rng(0).poisson(1, (4362, 4148)).astype(np.uint32)
    with h5py.File(tmp_path / "ins_8_5_000002.h5", "w", libver="latest") as file:
        stored = file.create_dataset(
            "data", (1000, *made.shape), np.uint32, chunks=(1, *made.shape), **hdf5plugin.Bitshuffle()
        )
        stored[7] = made
    image = open_image(master, 1007)
    np.testing.assert_array_equal(image.data[0], made)
    assert image.mask[0] is not None
    assert np.count_nonzero(~image.mask[0]) == 1_253_074
    (panel,) = image.detector.panels
    assert panel.shape == (4362, 4148)
    assert panel.trusted == (0, 121774)
    assert panel.thickness == pytest.approx(0.45)
    assert image.beam.wavelength == pytest.approx(0.976253543307)
    centre = np.array([2189.502222222222]), np.array([2099.92])
    assert panel.lab(*centre) == pytest.approx(np.array([[0, 0, 340]]), abs=1e-9)
    with pytest.raises(UnfinishedImageError, match="frame 1008 is not written yet"):
        open_image(master, 1008)
    with pytest.raises(UnfinishedImageError, match=r"ins_8_5_000001\.h5"):
        open_image(master, 0)
