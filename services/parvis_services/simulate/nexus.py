"""Simulated NXmx files, written image by image while others read (SWMR); see `nxmx_files`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np

from parvis_services.nxmx_files import (
    Circumstances,
    Series,
    create_data_file,
    write_master,
    write_meta,
)
from parvis_services.simulate.header import BIT_DEPTH
from parvis_services.stream.image_files import as_unsigned, pixel_mask
from parvis_services.stream.packing import pack

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from parvis_services.simulate.header import Header


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
        self._file: h5py.File | None = None
        taken = [path for path in (series.master, series.meta, *series.data_files) if path.exists()]
        if taken:
            raise FileExistsError(f"{taken[0]} exists, and what is collected is never overwritten")
        write_meta(series.meta, mask, _configuration(series, header, mask))
        # Its name appears only when it is complete: those who wait for the master read it at once.
        unfinished = series.master.with_name(f".{series.master.name}")
        circumstances = Circumstances(
            header.timestamp, "SIMULATED BEAMLINE", "SIMULATED SOURCE", transmission=header.transmission
        )
        write_master(unfinished, series, header.facts(series.shape, series.images), circumstances)
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
        self._data.id.write_direct_chunk(
            (place, 0, 0), pack(as_unsigned(image).astype(np.uint32, copy=False))
        )
        self._data.flush()
        self.written += 1

    def close(self) -> None:
        """End the series; images not appended stay missing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_data_file(self, file: int) -> None:
        if self._file is not None:
            self._file.close()
        self._file = create_data_file(
            self.series.data_file(file),
            self.series.images_in(file),
            self.series.shape,
            self.series.dtype,
            **hdf5plugin.Bitshuffle(),
        )
        self._data: h5py.Dataset = self._file["data"]  # pyright: ignore[reportAttributeAccessIssue]


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


def _configuration(series: Series, header: Header, mask: NDArray[np.uint32]) -> dict[str, Any]:
    """What SIMPLON would say of the detector."""
    return {
        "description": header.detector,
        "beam_center_x": header.beam_xy[0],
        "beam_center_y": header.beam_xy[1],
        "bit_depth_image": 32,
        "bit_depth_readout": BIT_DEPTH,
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
