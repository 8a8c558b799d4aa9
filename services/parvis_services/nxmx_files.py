"""Writing NXmx files as an EIGER at a synchrotron gives them, to be read while they are written (SWMR).

Three kinds of files: a master, whose ``/entry/data/data`` is a virtual dataset over the images; data files
with the images, each one chunk; and a meta file with the pixel mask and the configuration of the detector.

Source of what is in them: the NXmx application definition (Bernstein et al. 2020, IUCrJ 7, 784-792).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np

from parvis_services.xray.attenuation import KEV_ANGSTROM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from parvis_services.stream.events import Header

LIBVER = ("v110", "v110")
"""The oldest format that can be read while it is written, and that the readers of most sites know."""

BEAM_ALONG_Z = (0.0, 0.0, 1.0)
ROTATION_AXIS = (-1.0, 0.0, 0.0)
"""Which way a goniometer turns: horizontal, as at most beamlines; a detector does not know."""

_LONGEST_TEXT = 1000
_LONGEST_SERIES = 1e8
_LARGEST_NUMBER = 2**63
_DET_Z = "/entry/instrument/detector/transformations/det_z"
_MODULE_OFFSET = "/entry/instrument/detector/module/module_offset"


@dataclass(frozen=True)
class Series:
    """Where the images of a series are to be.

    Attributes:
        directory: where the files go; it must exist.
        prefix: the names are ``<prefix>.nxs``, ``<prefix>_meta.h5`` and ``<prefix>_000001.h5`` and on.
        images: how many there will be.
        shape: pixels of each (rows, columns).
        images_per_file: after so many a new data file begins.
        linked: the virtual dataset names the data files through links in the master and selects their images
            one by one, as at Diamond; or it names them directly and takes all of each, as others do.
        dtype: type of a count.
    """

    directory: Path
    prefix: str
    images: int
    shape: tuple[int, int]
    images_per_file: int = 1000
    linked: bool = True
    dtype: str = "uint32"

    def __post_init__(self) -> None:
        if self.images < 1 or self.images_per_file < 1:
            raise ValueError("a series needs at least one image, and at least one in each file")

    @property
    def master(self) -> Path:
        return self.directory / f"{self.prefix}.nxs"

    @property
    def meta(self) -> Path:
        return self.directory / f"{self.prefix}_meta.h5"

    @property
    def data_files(self) -> list[Path]:
        """The data files, whether they exist yet or not."""
        return [self.data_file(file) for file in range(-(-self.images // self.images_per_file))]

    def data_file(self, file: int) -> Path:
        """Data file ``file`` (from 0)."""
        return self.directory / f"{self.prefix}_{file + 1:06d}.h5"

    def images_in(self, file: int) -> int:
        """How many images data file ``file`` (from 0) will hold."""
        return min(self.images_per_file, self.images - file * self.images_per_file)


@dataclass(frozen=True)
class Circumstances:
    """What the detector does not know of an acquisition.

    Attributes:
        start: when it began.
        instrument: name of the beamline.
        source: name of the facility.
        sample: name of the sample.
        transmission: of the attenuator, 0 to 1, if known.
    """

    start: datetime
    instrument: str = "unknown"
    source: str = "unknown"
    sample: str = "unknown"
    transmission: float | None = None


def no_count(dtype: str) -> int:
    """What stands in an image where there is no count: the highest number of its type."""
    return int(np.iinfo(dtype).max)


def create_data_file(
    path: Path, images: int, shape: tuple[int, int], dtype: str, **packing: Any
) -> h5py.File:
    """Make a data file with room for images, each a chunk of ``/data``, which can be read from now on.

    Args:
        path: its name.
        images: how many there is room for; chunks not written take none.
        shape: pixels of each (rows, columns).
        dtype: type of a count.
        packing: what `create_dataset` must know of how the chunks are packed: `compression` and
            `compression_opts`.

    Raises:
        FileExistsError: there is a file of that name.
        OSError: it cannot be made.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists, and what is collected is never overwritten")
    # Its name appears only when it can be read.
    unfinished = path.with_name(f".{path.name}")
    try:
        file = h5py.File(unfinished, "w", libver=LIBVER)
        file.create_dataset(
            "data",
            shape=(images, *shape),
            maxshape=(None, *shape),
            chunks=(1, *shape),
            dtype=dtype,
            fillvalue=no_count(dtype),
            **packing,
        )
        file.swmr_mode = True
        unfinished.rename(path)
    except (OSError, RuntimeError):
        unfinished.unlink(missing_ok=True)
        raise
    return file


def write_meta(path: Path, mask: NDArray[np.uint32] | None, config: Mapping[str, Any]) -> None:
    """Write the meta file.

    Args:
        path: its name.
        mask: for each pixel the NXmx bits of what is wrong with it, 0 where nothing is.
        config: the configuration of the detector; JSON values.

    Raises:
        FileExistsError: there is a file of that name.
    """
    with h5py.File(path, "x", libver=LIBVER) as file:
        if mask is not None:
            file.create_dataset("mask", data=mask, chunks=mask.shape, **hdf5plugin.Bitshuffle())
        file["config"] = json.dumps(dict(config)).encode("utf-8", "replace")
        group = file.create_group("_dectris")
        for name, value in config.items():
            stored = _scalar(value)
            if stored is not None and 0 < len(name) <= _LONGEST_TEXT and name.isidentifier():
                group[name] = np.array([stored])


def write_master(
    path: Path, series: Series, header: Header, circumstances: Circumstances, *, masked: bool = True
) -> None:
    """Write the master file, whatever the data files have by now.

    Args:
        path: its name for now; it must go to the directory of the series.
        series: where the images are.
        header: the acquisition. What it does not say is left out, whether NXmx demands it or not.
        circumstances: what the detector does not know.
        masked: whether there is a mask in the meta file.
    """
    wavelength = wavelength_of(header)
    with h5py.File(path, "w", libver=LIBVER) as file:
        file.attrs["default"] = np.bytes_("entry")
        entry = _group(file, "entry", "NXentry")
        entry.attrs["default"] = np.bytes_("data")
        entry.attrs["version"] = np.bytes_("1.0")
        entry["definition"] = np.bytes_("NXmx")
        entry["start_time"] = timestamp(circumstances.start)
        entry["end_time_estimated"] = timestamp(circumstances.start + _duration(series, header))
        source = _group(entry, "source", "NXsource")
        _text(source, "name", circumstances.source)
        source["name"].attrs["short_name"] = _bytes(circumstances.source)
        instrument = _group(entry, "instrument", "NXinstrument")
        _text(instrument, "name", circumstances.instrument)
        instrument["name"].attrs["short_name"] = _bytes(circumstances.instrument)
        _number(
            _group(instrument, "attenuator", "NXattenuator"),
            "attenuator_transmission",
            circumstances.transmission,
        )
        _number(_group(instrument, "beam", "NXbeam"), "incident_wavelength", wavelength, "angstrom")
        _write_images(entry, series, scan_axis(header))
        _write_detector(instrument, series, header, masked=masked)
        _write_sample(entry, series, header, circumstances.sample)


def wavelength_of(header: Header) -> float | None:
    """The wavelength in angstrom, from the photon energy if need be."""
    if header.wavelength is None and header.energy:
        return KEV_ANGSTROM * 1000 / header.energy
    return header.wavelength


def scan_axis(header: Header) -> str:
    """The axis that turns from image to image; omega if none does."""
    turning = [name for name, (_, increment) in _axes(header).items() if increment]
    return "omega" if not turning or "omega" in turning else turning[0]


def timestamp(time: datetime) -> np.bytes_:
    """A time as NeXus has it; one without a zone stays without."""
    return np.bytes_(time.isoformat(timespec="milliseconds").replace("+00:00", "Z"))


def _write_images(entry: h5py.Group, series: Series, axis: str) -> None:
    data = _group(entry, "data", "NXdata")
    data.attrs["signal"] = np.bytes_("data")
    data.attrs["axes"] = [np.bytes_(axis), np.bytes_("."), np.bytes_(".")]
    layout = h5py.VirtualLayout((series.images, *series.shape), series.dtype)
    start = 0
    for file, path in enumerate(series.data_files):
        name, stop = f"data_{file + 1:06d}", start + series.images_in(file)
        data[name] = h5py.ExternalLink(path.name, "/data")
        where = (".", f"/entry/data/{name}") if series.linked else (path.name, "data")
        source = h5py.VirtualSource(*where, (stop - start, *series.shape), series.dtype)
        layout[start:stop] = source[: stop - start] if series.linked else source
        start = stop
    data.create_virtual_dataset("data", layout, fillvalue=no_count(series.dtype))
    data[axis] = h5py.SoftLink(f"/entry/sample/transformations/{axis}")


def _write_detector(instrument: h5py.Group, series: Series, header: Header, *, masked: bool) -> None:
    detector = _group(instrument, "detector", "NXdetector")
    _text(detector, "description", header.description)
    _text(detector, "serial_number", header.serial)
    _text(detector, "type", "Pixel")
    _text(detector, "depends_on", _DET_Z)
    _text(detector, "sensor_material", header.material)
    _number(detector, "sensor_thickness", header.thickness, "m")
    # The header has rows before columns, NeXus x before y.
    for axis, place in (("x", 1), ("y", 0)):
        _number(detector, f"{axis}_pixel_size", header.pixel_size and header.pixel_size[place], "m")
        _number(detector, f"beam_center_{axis}", header.beam_centre and header.beam_centre[place], "pixels")
    for name in ("distance", "detector_distance"):
        _number(detector, name, header.distance, "m")
    _number(detector, "count_time", header.count_time, "s")
    _number(detector, "frame_time", header.frame_time, "s")
    _number(detector, "threshold_energy", header.threshold, "eV")
    detector["underload_value"] = np.int64(0)
    for name in ("saturation_value", "countrate_correction_count_cutoff"):
        _whole(detector, name, header.saturation)
    _whole(detector, "bit_depth_readout", header.bit_depth)
    _whole(detector, "countrate_correction_applied", header.countrate_corrected)
    _whole(detector, "flatfield_applied", header.flatfield_corrected)
    specific = _group(detector, "detectorSpecific", "NXcollection")
    for group in (detector, specific) if masked else ():
        group["pixel_mask"] = h5py.ExternalLink(series.meta.name, "/mask")
    specific["nimages"] = np.int32(series.images)
    specific["x_pixels_in_detector"] = np.int32(series.shape[1])
    specific["y_pixels_in_detector"] = np.int32(series.shape[0])
    _number(specific, "photon_energy", header.energy, "eV")
    transformations = _group(detector, "transformations", "NXtransformations")
    det_z = transformations.create_dataset("det_z", data=[(header.distance or 0.0) * 1000])
    _axis(det_z, "translation", "mm", BEAM_ALONG_Z, ".")
    if header.pixel_size is not None and header.beam_centre is not None and header.distance is not None:
        _write_module(detector, series, header.pixel_size, header.beam_centre)


def _write_module(
    detector: h5py.Group, series: Series, pixel_size: tuple[float, float], beam_centre: tuple[float, float]
) -> None:
    """One module as large as the detector; seen along the beam, NeXus has x to the left and y up."""
    module = _group(detector, "module", "NXdetector_module")
    module["data_origin"] = np.zeros(2, dtype=np.int32)
    module["data_size"] = np.array(series.shape, dtype=np.int32)
    module["data_stride"] = np.ones(2, dtype=np.int32)
    up, left = (centre * size for centre, size in zip(beam_centre, pixel_size, strict=True))
    length = math.hypot(left, up)
    towards = (left / length, up / length, 0.0) if length else (1.0, 0.0, 0.0)
    offset = module.create_dataset("module_offset", data=length)
    _axis(offset, "translation", "m", towards, _DET_Z)
    fast = module.create_dataset("fast_pixel_direction", data=pixel_size[1])
    _axis(fast, "translation", "m", (-1, 0, 0), _MODULE_OFFSET)
    slow = module.create_dataset("slow_pixel_direction", data=pixel_size[0])
    _axis(slow, "translation", "m", (0, -1, 0), _MODULE_OFFSET)
    for vector in (offset, fast, slow):
        vector.attrs["offset"] = np.zeros(3)
        vector.attrs["offset_units"] = np.bytes_("mm")


def _write_sample(entry: h5py.Group, series: Series, header: Header, name: str) -> None:
    axis = scan_axis(header)
    sample = _group(entry, "sample", "NXsample")
    _text(sample, "name", name)
    _text(sample, "depends_on", f"/entry/sample/transformations/{axis}")
    _number(_group(sample, "beam", "NXbeam"), "incident_wavelength", wavelength_of(header), "angstrom")
    start, increment = _axes(header).get(axis, (0.0, 0.0))
    angles = start + increment * np.arange(series.images)
    transformations = _group(sample, "transformations", "NXtransformations")
    _axis(transformations.create_dataset(axis, data=angles), "rotation", "deg", ROTATION_AXIS, ".")
    for extra, values in (
        (f"{axis}_end", angles + increment),
        (f"{axis}_increment_set", np.full(series.images, float(increment))),
    ):
        transformations.create_dataset(extra, data=values).attrs["units"] = np.bytes_("deg")
    # Which way the others turn is not known, so they cannot be part of the chain that depends_on begins.
    goniometer = _group(sample, "goniometer", "NXcollection")
    for other, (begin, step) in _axes(header).items():
        _number(goniometer, f"{other}_start", begin, "deg")
        _number(goniometer, f"{other}_increment", step, "deg")


def _axes(header: Header) -> dict[str, tuple[float, float]]:
    """The goniometer's axes whose names can be those of datasets."""
    return {name: axis for name, axis in header.axes.items() if name.isidentifier() and len(name) < 100}


def _duration(series: Series, header: Header) -> timedelta:
    """How long the series takes, if that can be true."""
    seconds = series.images * (header.frame_time or header.count_time or 0.0)
    return timedelta(seconds=seconds if 0 <= seconds < _LONGEST_SERIES else 0.0)


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = np.bytes_(kind)
    return group


def _number(group: h5py.Group, name: str, value: float | None, units: str | None = None) -> None:
    if value is None:
        return
    dataset = group.create_dataset(name, data=float(value))
    if units:
        dataset.attrs["units"] = np.bytes_(units)


def _whole(group: h5py.Group, name: str, value: int | None) -> None:
    if value is not None and abs(value) < _LARGEST_NUMBER:
        group[name] = np.int64(value)


def _text(group: h5py.Group, name: str, value: str | None) -> None:
    if value:
        group[name] = _bytes(value)


def _bytes(value: str) -> np.bytes_:
    """Text as a string of fixed length, which all readers know; what cannot be in one becomes a space."""
    return np.bytes_(value[:_LONGEST_TEXT].replace("\0", " ").encode("utf-8", "replace") or b" ")


def _scalar(value: Any) -> Any:
    """A JSON value as HDF5 can have it, or None."""
    if isinstance(value, str):
        return _bytes(value)
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGEST_NUMBER):
        return value
    return None


def _axis(dataset: h5py.Dataset, kind: str, units: str, vector: Sequence[float], depends_on: str) -> None:
    dataset.attrs["transformation_type"] = np.bytes_(kind)
    dataset.attrs["units"] = np.bytes_(units)
    dataset.attrs["vector"] = np.array(vector, dtype=np.float64)
    dataset.attrs["depends_on"] = np.bytes_(depends_on)
