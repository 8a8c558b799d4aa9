"""Geometry, mask and trusted range of an NXmx or EIGER file.

Source of the conventions: the NXmx application definition (Bernstein et al. 2020, IUCrJ 7, 784-792) and the
NeXus definition of NXtransformations. Positions are in the NeXus laboratory frame: the beam along +z, lengths
in mm.
"""

from __future__ import annotations

import logging
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.attenuation import KEV_ANGSTROM, attenuation, sensor_material
from parvis_services.xray.experiment import LARGEST_IMAGE, Experiment, Module, trusted_range
from parvis_services.xray.geometry import (
    Beam,
    Detector,
    Panel,
    Reals,
    Vector,
    as_vector,
    perpendicular_detector,
)
from parvis_services.xray.hdf5 import Tree
from parvis_services.xray.imgcif import rotate

_log = logging.getLogger(__name__)

_BEAM_DIRECTION: Vector = (0.0, 0.0, 1.0)

_LENGTHS = {
    "m": 1e3, "metre": 1e3, "meter": 1e3, "metres": 1e3, "meters": 1e3,
    "cm": 10.0,
    "mm": 1.0, "millimetre": 1.0, "millimeter": 1.0,
    "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3,
    "nm": 1e-6,
    "angstrom": 1e-7, "angstroms": 1e-7, "å": 1e-7, "a": 1e-7,
}  # fmt: skip
_MM_TO_ANGSTROM = 1e7


def read_experiment(
    tree: Tree, entry: h5py.Group, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Experiment:
    """Everything but the counts.

    Args:
        tree: To follow links with.
        entry: The NXentry group.
        shape: Of one frame.
        dtype: Of the counts.

    Raises:
        ValueError: Something that is needed is missing, or cannot be.
        UnfinishedImageError: A file that is linked to is not there.
    """
    if int(np.prod(shape, dtype=object)) > LARGEST_IMAGE:
        raise ValueError(f"an image of {' x '.join(map(str, shape))} pixels is larger than any detector")
    reader = _Reader(tree, entry, shape)
    beam = Beam(reader.wavelength(), _BEAM_DIRECTION)
    trusted = reader.trusted(dtype)
    thickness, mu = reader.sensor(beam.wavelength)
    modules = reader.modules()
    if modules:
        panels = [reader.panel(group, module, trusted, thickness, mu) for group, module in modules]
        detector = Detector(tuple(panels))
        pixels = tuple(module for _, module in modules)
    else:
        detector, beam = reader.simple_detector(trusted, thickness, mu), Beam(beam.wavelength)
        pixels = (Module((0,) * len(shape), shape),)
    return Experiment.of(beam, detector, pixels, reader.pixel_mask())


class _Reader:
    """Reads the groups under one entry."""

    def __init__(self, tree: Tree, entry: h5py.Group, shape: tuple[int, ...]) -> None:
        self._tree = tree
        self._entry = entry
        self._shape = shape
        instrument = tree.child(entry, "NXinstrument", "instrument")
        detector = tree.child(instrument, "NXdetector", "detector") if instrument is not None else None
        if detector is None:
            raise ValueError(
                "there is no description of a detector in it: for a data file, give its master file"
            )
        self._detector = detector

    def wavelength(self) -> float:
        for path in (
            "instrument/beam/incident_wavelength",
            "sample/beam/incident_wavelength",
            "instrument/monochromator/wavelength",
        ):
            dataset = self._tree.find(self._entry, path)
            if dataset is not None:
                return _length(dataset, "angstrom") * _MM_TO_ANGSTROM
        for path in ("detectorSpecific/photon_energy", "photon_energy"):
            dataset = self._tree.find(self._detector, path)
            if dataset is not None and _number(dataset) > 0:
                return KEV_ANGSTROM * 1000 / _number(dataset)
        raise ValueError("the file does not give the wavelength (beam/incident_wavelength)")

    def trusted(self, dtype: np.dtype[Any]) -> tuple[float, float]:
        """From underload and saturation."""
        lowest = self._optional("underload_value")
        highest = self._optional(
            "saturation_value",
            "detectorSpecific/countrate_correction_count_cutoff",
            "detectorSpecific/saturation_value",
        )
        return trusted_range(dtype, lowest, highest)

    def sensor(self, wavelength: float) -> tuple[float, float | None]:
        """Thickness in mm and linear attenuation coefficient in mm⁻¹."""
        thickness = self._tree.find(self._detector, "sensor_thickness")
        material = self._tree.find(self._detector, "sensor_material")
        if thickness is None or material is None:
            return 0.0, None
        known = sensor_material(_text(material[()]))
        return _length(thickness, "m"), attenuation(known, wavelength) if known else None

    def pixel_mask(self) -> NDArray[Any] | None:
        """What is wrong with each pixel, 0 for nothing, in the shape of a frame."""
        for path in ("pixel_mask", "detectorSpecific/pixel_mask"):
            dataset = self._tree.find(self._detector, path)
            if dataset is None:
                continue
            if dataset.size != int(np.prod(self._shape)) or dataset.shape[-1] != self._shape[-1]:
                _log.warning(
                    "%s: the pixel mask has %s pixels, a frame %s: not used",
                    self._entry.file.filename,
                    dataset.shape,
                    self._shape,
                )
                continue
            return dataset[()].reshape(self._shape)
        return None

    def modules(self) -> list[tuple[h5py.Group, Module]]:
        """The groups that place a part of the frame in space."""
        found: list[tuple[h5py.Group, Module]] = []
        for group in self._tree.children(self._detector, "NXdetector_module", "module"):
            direction = self._tree.find(group, "fast_pixel_direction")
            if direction is None or "vector" not in direction.attrs:
                continue
            found.append((group, self._module(group)))
        return found

    def _module(self, group: h5py.Group) -> Module:
        origin, size = (self._tree.find(group, name) for name in ("data_origin", "data_size"))
        ndim = len(self._shape)
        if origin is None or size is None:
            return Module((0,) * ndim, self._shape)
        start = tuple(int(value) for value in np.ravel(origin[()]))[-ndim:]
        count = tuple(int(value) for value in np.ravel(size[()]))[-ndim:]
        if len(start) == len(count) == ndim:
            # Some writers give the size as (fast, slow).
            for candidate in (count, count[::-1]):
                if all(
                    o >= 0 and n > 0 and o + n <= s
                    for o, n, s in zip(start, candidate, self._shape, strict=True)
                ):
                    return Module(start, candidate)
        raise ValueError(f"module {group.name}: {count} pixels from {start} are not part of {self._shape}")

    def panel(
        self,
        group: h5py.Group,
        module: Module,
        trusted: tuple[float, float],
        thickness: float,
        mu: float | None,
    ) -> Panel:
        """A module with its place in space."""
        fast, slow = (self._tree.find(group, f"{name}_pixel_direction") for name in ("fast", "slow"))
        if fast is None or slow is None:
            raise ValueError(f"module {group.name} does not say which way its pixels run")
        return Panel(
            shape=(module.size[-2], module.size[-1]),
            pixel_size=(_length(slow, "m"), _length(fast, "m")),
            origin=as_vector(self._place(fast, np.zeros(3), directions_only=False)),
            slow_axis=as_vector(self._place(slow, _attribute(slow, "vector"), directions_only=True)),
            fast_axis=as_vector(self._place(fast, _attribute(fast, "vector"), directions_only=True)),
            trusted=trusted,
            thickness=thickness,
            attenuation=mu,
            offset=(module.origin[-2], module.origin[-1]),
        )

    def _place(self, dataset: h5py.Dataset, point: Reals, *, directions_only: bool) -> Reals:
        """Carry a point, or a direction, through everything a module's axis depends on."""
        seen: set[str] = set()
        step = self._depends_on(dataset)
        while step is not None:
            name = str(step.name)
            if name in seen:
                raise ValueError(f"the transformation {name} depends on itself")
            seen.add(name)
            vector = _attribute(step, "vector")
            if _text(step.attrs.get("transformation_type", "")).lower() == "rotation":
                point = rotate(point, vector, _degrees(step))
            elif not directions_only:
                point = point + vector * _length(step, "m")
            if not directions_only:
                point = point + _offset(step)
            step = self._depends_on(step)
        return point

    def _depends_on(self, dataset: h5py.Dataset) -> h5py.Dataset | None:
        path = _text(dataset.attrs.get("depends_on", "."))
        if path in (".", ""):
            return None
        group: Any = dataset.file[str(dataset.name).rsplit("/", 1)[0] or "/"]
        step = self._tree.find(group, path)
        if not isinstance(step, h5py.Dataset):
            raise ValueError(f"{dataset.name} depends on {path}, which is not there")
        return step

    def simple_detector(self, trusted: tuple[float, float], thickness: float, mu: float | None) -> Detector:
        """At right angles to the beam, from beam centre and distance, where no module is described."""
        if len(self._shape) != 2:
            raise ValueError("the frames have several modules, but their places are not described")
        distance = self._required("detector_distance", "distance")
        pixel = [self._required(f"{axis}_pixel_size") for axis in "yx"]
        centre = [_number(self._required(f"beam_center_{axis}")) for axis in "yx"]
        return perpendicular_detector(
            (self._shape[0], self._shape[1]),
            (_length(pixel[0], "m"), _length(pixel[1], "m")),
            (centre[0], centre[1]),
            _length(distance, "m"),
            trusted,
            thickness=thickness,
            attenuation=mu,
        )

    def _optional(self, *paths: str) -> float | None:
        for path in paths:
            dataset = self._tree.find(self._detector, path)
            if dataset is not None:
                return _number(dataset)
        return None

    def _required(self, *paths: str) -> h5py.Dataset:
        for path in paths:
            dataset = self._tree.find(self._detector, path)
            if dataset is not None:
                return dataset
        raise ValueError(f"the file does not give {paths[0]}")


def _number(dataset: h5py.Dataset) -> float:
    """The first value of a dataset."""
    if dataset.size == 0 or dataset.dtype.kind not in "iufb":
        raise ValueError(f"{dataset.name} is not a number")
    return float(dataset[()] if dataset.ndim == 0 else dataset[(0,) * dataset.ndim])


def _length(dataset: h5py.Dataset, default_unit: str) -> float:
    """The first value of a dataset in mm."""
    unit = _text(dataset.attrs.get("units", default_unit))
    return _number(dataset) * _millimetres(unit, str(dataset.name))


def _millimetres(unit: str, what: str) -> float:
    factor = _LENGTHS.get(unit.strip().lower())
    if factor is None:
        raise ValueError(f"{what} is in {unit!r}, which is not a unit of length known here")
    return factor


def _degrees(dataset: h5py.Dataset) -> float:
    unit = _text(dataset.attrs.get("units", "deg")).strip().lower()
    if unit.startswith("deg"):
        return _number(dataset)
    if unit.startswith("rad"):
        return float(np.degrees(_number(dataset)))
    raise ValueError(f"{dataset.name} is in {unit!r}, which is not a unit of angle known here")


def _offset(dataset: h5py.Dataset) -> Reals:
    """The `offset` of a transformation in mm."""
    offset = np.asarray(dataset.attrs.get("offset", (0.0, 0.0, 0.0)), np.float64)
    if not offset.any():
        return np.zeros(3)
    unit = dataset.attrs.get("offset_units", dataset.attrs.get("units", "m"))
    return offset * _millimetres(_text(unit), f"the offset of {dataset.name}")


def _attribute(dataset: h5py.Dataset, name: str) -> Reals:
    value = np.asarray(dataset.attrs.get(name, ()), np.float64)
    if value.shape != (3,):
        raise ValueError(f"{dataset.name} has no {name} of three numbers")
    return value


def _text(value: Any) -> str:
    """A string attribute or dataset, however it was written."""
    if isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
