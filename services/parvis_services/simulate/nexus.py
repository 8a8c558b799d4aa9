"""NXmx files as an EIGER at a synchrotron gives them, written image by image while others read (SWMR).

Three kinds of files: a master, whose ``/entry/data/data`` is a virtual dataset over the images; data files
with the images, each one compressed chunk; and a meta file with the pixel mask and the configuration of the
detector.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from numpy.typing import NDArray

    from parvis_services.simulate.header import Header

LIBVER = ("v110", "v110")
"""The oldest format that can be read while it is written, and that the readers of most sites know."""

NO_PIXEL, DEAD_PIXEL = 1, 2
"""Bits of the pixel mask, by NXmx."""

INVALID = 2**32 - 1
"""What stands in an image where the detector has no pixel or a dead one."""


@dataclass(frozen=True)
class Series:
    """The images to be written.

    Attributes:
        directory: where the files go; it must exist.
        prefix: the names are ``<prefix>.nxs``, ``<prefix>_meta.h5`` and ``<prefix>_000001.h5`` and on.
        images: how many there will be.
        shape: pixels of each (rows, columns).
        images_per_file: after so many a new data file begins.
        linked: the virtual dataset names the data files through links in the master and selects their images
            one by one, as at Diamond; or it names them directly and takes all of each, as others do.
    """

    directory: Path
    prefix: str
    images: int
    shape: tuple[int, int]
    images_per_file: int = 1000
    linked: bool = True

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
        number = -(-self.images // self.images_per_file)
        return [self.directory / f"{self.prefix}_{file:06d}.h5" for file in range(1, number + 1)]

    def images_in(self, file: int) -> int:
        """How many images data file ``file`` (from 0) will hold."""
        return min(self.images_per_file, self.images - file * self.images_per_file)


class NexusWriter:
    """Writes a series; use it as a context manager.

    The master and the meta file are complete from the beginning. A data file appears with its first image; a
    reader in SWMR mode sees the chunks of images that are not written yet with size 0.

    Args:
        series: where, and how many images of what shape.
        header: the acquisition.
        mask: for each pixel the NXmx bits of what is wrong with it, 0 where nothing is.

    Raises:
        FileExistsError: there is a file of that name.
        ValueError: the mask's shape is not that of the images.
    """

    def __init__(self, series: Series, header: Header, mask: NDArray[np.uint32]) -> None:
        if mask.shape != series.shape:
            raise ValueError(f"the mask of an image of {series.shape} pixels has the shape {mask.shape}")
        self.series = series
        self.written = 0
        self._packer = _Packer(series.shape)
        self._file: h5py.File | None = None
        taken = [path for path in (series.master, series.meta, *series.data_files) if path.exists()]
        if taken:
            raise FileExistsError(f"{taken[0]} exists, and what is collected is never overwritten")
        _write_meta(series, header, mask)
        # Its name appears only when it is complete: those who wait for the master read it at once.
        unfinished = series.master.with_name(f".{series.master.name}")
        _write_master(unfinished, series, header)
        unfinished.rename(series.master)

    def __enter__(self) -> NexusWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, image: NDArray[Any]) -> None:
        """Write the next image so that readers see it; counts below 0 become 2**32 - 1.

        Raises:
            ValueError: the shape is wrong, or all images of the series are written.
        """
        if image.shape != self.series.shape:
            raise ValueError(f"an image of {image.shape} pixels in a series of {self.series.shape}")
        if self.written == self.series.images:
            raise ValueError(f"all {self.series.images} images of the series are written")
        file, place = divmod(self.written, self.series.images_per_file)
        if place == 0:
            self._open_data_file(file)
        counts = image.astype(np.uint32)
        counts[image < 0] = INVALID
        self._data.id.write_direct_chunk((place, 0, 0), self._packer.pack(counts))
        self._data.flush()
        self.written += 1

    def close(self) -> None:
        """End the series; images not appended stay missing."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._packer.close()

    def _open_data_file(self, file: int) -> None:
        if self._file is not None:
            self._file.close()
        self._file = h5py.File(self.series.data_files[file], "x", libver=LIBVER)
        self._data: h5py.Dataset = self._file.create_dataset(
            "data",
            shape=(self.series.images_in(file), *self.series.shape),
            maxshape=(None, *self.series.shape),
            chunks=(1, *self.series.shape),
            dtype=np.uint32,
            **hdf5plugin.Bitshuffle(),
        )
        self._file.swmr_mode = True


class _Packer:
    """Compresses images to bitshuffle-LZ4 chunks, with the HDF5 filter that readers use to unpack them."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._file = h5py.File("packer", "w", driver="core", backing_store=False)
        self._dataset = self._file.create_dataset(
            "image", (1, *shape), np.uint32, chunks=(1, *shape), **hdf5plugin.Bitshuffle()
        )

    def pack(self, image: NDArray[np.uint32]) -> bytes:
        self._dataset[0] = image
        self._file.flush()
        return self._dataset.id.read_direct_chunk((0, 0, 0))[1]

    def close(self) -> None:
        self._file.close()


def frames_to_nexus(
    images: Iterable[NDArray[Any]], header: Header, series: Series, mask: NDArray[np.uint32] | None = None
) -> Path:
    """Write images, for instance those of CBF files, as an NXmx series.

    What an analysis of one finds it finds in the other: the geometry and the trusted range are the same.

    Args:
        images: the counts, negative where there is no pixel (-1) or a dead one (-2).
        header: the acquisition.
        series: where they go; as many as there are images.
        mask: as `NexusWriter` takes it; by default the pixels that are negative in the first image.

    Returns:
        the master file.

    Raises:
        ValueError: there are no images, or fewer or more than the series says.
        FileExistsError: there is a file of that name.
    """
    every = iter(images)
    first = next(every, None)
    if first is None:
        raise ValueError("there are no images to write")
    with NexusWriter(series, header, pixel_mask(first) if mask is None else mask) as writer:
        writer.append(first)
        for image in every:
            writer.append(image)
        if writer.written < series.images:
            raise ValueError(f"the series has {series.images} images, but only {writer.written} were given")
    return series.master


def pixel_mask(image: NDArray[Any]) -> NDArray[np.uint32]:
    """The NXmx mask that belongs to an image with -1 in gaps and other negative counts at dead pixels."""
    mask = np.zeros(image.shape, dtype=np.uint32)
    mask[image == -1] = NO_PIXEL
    mask[image < -1] = DEAD_PIXEL
    return mask


def _write_meta(series: Series, header: Header, mask: NDArray[np.uint32]) -> None:
    configuration = {
        "description": header.detector,
        "beam_center_x": header.beam_xy[0],
        "beam_center_y": header.beam_xy[1],
        "bit_depth_image": 32,
        "bit_depth_readout": 16,
        "compression": "bslz4",
        "count_time": header.exposure_time,
        "frame_time": header.exposure_period,
        "countrate_correction_applied": 1,
        "countrate_correction_count_cutoff": header.count_cutoff,
        "detector_distance": header.distance,
        "flatfield_correction_applied": 1,
        "nimages": series.images,
        "ntrigger": 1,
        "number_of_excluded_pixels": int(np.count_nonzero(mask)),
        "photon_energy": 12398.419843320026 / header.wavelength,
        "pixel_mask_applied": 1,
        "sensor_material": header.sensor_material,
        "sensor_thickness": header.sensor_thickness,
        "wavelength": header.wavelength,
        "x_pixel_size": header.pixel_size[0],
        "x_pixels_in_detector": series.shape[1],
        "y_pixel_size": header.pixel_size[1],
        "y_pixels_in_detector": series.shape[0],
    }
    with h5py.File(series.meta, "x", libver=LIBVER) as file:
        file.create_dataset("mask", data=mask, chunks=mask.shape, **hdf5plugin.Bitshuffle())
        file["config"] = json.dumps(configuration)
        group = file.create_group("_dectris")
        for name, value in configuration.items():
            group[name] = np.array([value.encode() if isinstance(value, str) else value])


def _write_master(path: Path, series: Series, header: Header) -> None:
    with h5py.File(path, "w", libver=LIBVER) as file:
        entry = _group(file, "entry", "NXentry")
        entry["definition"] = np.bytes_("NXmx")
        entry["start_time"] = np.bytes_(header.timestamp.strftime("%Y-%m-%dT%H:%M:%SZ"))
        end = header.timestamp + timedelta(seconds=series.images * header.exposure_period)
        entry["end_time_estimated"] = np.bytes_(end.strftime("%Y-%m-%dT%H:%M:%SZ"))
        instrument = _group(entry, "instrument", "NXinstrument")
        instrument["name"] = np.bytes_("SIMULATED BEAMLINE")
        instrument["name"].attrs["short_name"] = np.bytes_("SIM")
        _number(
            _group(instrument, "attenuator", "NXattenuator"), "attenuator_transmission", header.transmission
        )
        _number(_group(instrument, "beam", "NXbeam"), "incident_wavelength", header.wavelength, "angstrom")
        _write_images(entry, series)
        _write_detector(instrument, series, header)
        _write_sample(entry, series, header)


def _write_images(entry: h5py.Group, series: Series) -> None:
    data = _group(entry, "data", "NXdata")
    data.attrs["signal"] = np.bytes_("data")
    data.attrs["axes"] = np.bytes_("omega")
    layout = h5py.VirtualLayout((series.images, *series.shape), np.uint32)
    start = 0
    for file, path in enumerate(series.data_files):
        name, stop = f"data_{file + 1:06d}", start + series.images_in(file)
        data[name] = h5py.ExternalLink(path.name, "/data")
        shape = (stop - start, *series.shape)
        if series.linked:
            source = h5py.VirtualSource(".", f"/entry/data/{name}", shape, np.uint32)
            layout[start:stop] = source[: stop - start]
        else:
            layout[start:stop] = h5py.VirtualSource(path.name, "data", shape, np.uint32)
        start = stop
    data.create_virtual_dataset("data", layout, fillvalue=0)
    data["omega"] = h5py.SoftLink("/entry/sample/transformations/omega")


def _write_detector(instrument: h5py.Group, series: Series, header: Header) -> None:
    detector = _group(instrument, "detector", "NXdetector")
    detector["description"] = np.bytes_(header.detector)
    detector["type"] = np.bytes_("Pixel")
    detector["depends_on"] = np.bytes_("/entry/instrument/detector/transformations/det_z")
    detector["sensor_material"] = np.bytes_(header.sensor_material)
    _number(detector, "sensor_thickness", header.sensor_thickness, "m")
    for axis, place in (("x", 0), ("y", 1)):
        _number(detector, f"{axis}_pixel_size", header.pixel_size[place], "m")
        _number(detector, f"beam_center_{axis}", header.beam_xy[place], "pixels")
    for name in ("distance", "detector_distance"):
        _number(detector, name, header.distance, "m")
    _number(detector, "count_time", header.exposure_time, "s")
    _number(detector, "frame_time", header.exposure_period, "s")
    detector["underload_value"] = np.int64(0)
    detector["saturation_value"] = np.int64(header.count_cutoff)
    detector["countrate_correction_count_cutoff"] = np.int64(header.count_cutoff)
    detector["bit_depth_readout"] = h5py.ExternalLink(series.meta.name, "/_dectris/bit_depth_readout")
    detector["pixel_mask"] = h5py.ExternalLink(series.meta.name, "/mask")
    specific = _group(detector, "detectorSpecific", "NXcollection")
    specific["pixel_mask"] = h5py.ExternalLink(series.meta.name, "/mask")
    specific["nimages"] = np.int32(series.images)
    specific["x_pixels_in_detector"] = np.int32(series.shape[1])
    specific["y_pixels_in_detector"] = np.int32(series.shape[0])
    det_z = _group(detector, "transformations", "NXtransformations").create_dataset(
        "det_z", data=[header.distance * 1000]
    )
    _axis(det_z, "translation", "mm", (0, 0, 1), ".")
    _write_module(detector, series, header)


def _write_module(detector: h5py.Group, series: Series, header: Header) -> None:
    """One module as large as the detector; seen along the beam, NeXus has x to the left and y up."""
    module = _group(detector, "module", "NXdetector_module")
    module["data_origin"] = np.zeros(2, dtype=np.int32)
    module["data_size"] = np.array(series.shape, dtype=np.int32)
    module["data_stride"] = np.ones(2, dtype=np.int32)
    corner = [centre * size for centre, size in zip(header.beam_xy, header.pixel_size, strict=True)]
    length = math.hypot(*corner)
    towards = (corner[0] / length, corner[1] / length, 0.0) if length else (1.0, 0.0, 0.0)
    det_z = "/entry/instrument/detector/transformations/det_z"
    offset = module.create_dataset("module_offset", data=length)
    _axis(offset, "translation", "m", towards, det_z)
    depends = "/entry/instrument/detector/module/module_offset"
    fast = module.create_dataset("fast_pixel_direction", data=header.pixel_size[0])
    _axis(fast, "translation", "m", (-1, 0, 0), depends)
    slow = module.create_dataset("slow_pixel_direction", data=header.pixel_size[1])
    _axis(slow, "translation", "m", (0, -1, 0), depends)
    for vector in (offset, fast, slow):
        vector.attrs["offset"] = np.zeros(3)
        vector.attrs["offset_units"] = np.bytes_("mm")


def _write_sample(entry: h5py.Group, series: Series, header: Header) -> None:
    sample = _group(entry, "sample", "NXsample")
    sample["depends_on"] = np.bytes_("/entry/sample/transformations/omega")
    _number(_group(sample, "beam", "NXbeam"), "incident_wavelength", header.wavelength, "angstrom")
    angles = header.start_angle + header.angle_increment * np.arange(series.images)
    omega = _group(sample, "transformations", "NXtransformations").create_dataset("omega", data=angles)
    _axis(omega, "rotation", "deg", (-1, 0, 0), ".")


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = np.bytes_(kind)
    return group


def _number(group: h5py.Group, name: str, value: float, units: str | None = None) -> None:
    dataset = group.create_dataset(name, data=float(value))
    if units:
        dataset.attrs["units"] = np.bytes_(units)


def _axis(
    dataset: h5py.Dataset, kind: str, units: str, vector: tuple[float, float, float], depends_on: str
) -> None:
    dataset.attrs["transformation_type"] = np.bytes_(kind)
    dataset.attrs["units"] = np.bytes_(units)
    dataset.attrs["vector"] = np.array(vector, dtype=np.float64)
    dataset.attrs["depends_on"] = np.bytes_(depends_on)
