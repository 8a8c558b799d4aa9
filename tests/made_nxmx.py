"""Small HDF5 image files of every kind, made with h5py alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

SHAPE = (24, 40)


def counts(n: int, dtype: Any = np.uint32, shape: tuple[int, ...] = SHAPE) -> NDArray[Any]:
    """`n` frames that differ."""
    random = np.random.default_rng(n)
    return random.poisson(20, (n, *shape)).astype(dtype)


def group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    made = parent.create_group(name)
    made.attrs["NX_class"] = nexus_class
    return made


def dataset(parent: h5py.Group, name: str, value: Any, **attributes: Any) -> h5py.Dataset:
    parent[name] = value
    made = parent[name]
    assert isinstance(made, h5py.Dataset)
    made.attrs.update(attributes)
    return made


def describe(file: h5py.File) -> h5py.Group:
    """An entry with a detector across the beam, described by beam centre and distance; gives the detector."""
    entry = group(file, "entry", "NXentry")
    group(entry, "data", "NXdata")
    instrument = group(entry, "instrument", "NXinstrument")
    dataset(group(instrument, "beam", "NXbeam"), "incident_wavelength", 1.0, units="angstrom")
    detector = group(instrument, "detector", "NXdetector")
    for name, value in {
        "beam_center_x": 20.5,
        "beam_center_y": 11.0,
        "detector_distance": 0.15,
        "x_pixel_size": 75e-6,
        "y_pixel_size": 80e-6,
        "sensor_thickness": 450e-6,
    }.items():
        dataset(detector, name, value)
    dataset(detector, "sensor_material", "Si")
    return detector


def axis(
    parent: h5py.Group,
    name: str,
    value: Any,
    kind: str,
    vector: tuple[float, float, float],
    depends_on: str,
    units: str = "mm",
    **more: Any,
) -> h5py.Dataset:
    """A transformation."""
    return dataset(
        parent,
        name,
        value,
        transformation_type=kind,
        vector=vector,
        depends_on=depends_on,
        units=units,
        **more,
    )


def write_images(path: Path, images: NDArray[Any], **how: Any) -> Path:
    """A described file with the images in `/entry/data/data`; `how` is for `create_dataset`."""
    if not how:
        how = {"chunks": (1, *images.shape[1:]), **hdf5plugin.Bitshuffle()}
    with h5py.File(path, "w") as file:
        describe(file)
        file["entry/data"].create_dataset("data", data=images, **how)  # pyright: ignore[reportAttributeAccessIssue]
    return path
