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
    no_count,
    write_master,
    write_meta,
)
from parvis_services.stream.events import Header as Facts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from parvis_services.simulate.header import Header

NO_PIXEL, DEAD_PIXEL = 1, 2
"""Bits of the pixel mask, by NXmx."""

INVALID = no_count("uint32")
"""What stands in an image where the detector has no pixel or a dead one."""

_BIT_DEPTH = 16


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
        write_meta(series.meta, mask, _configuration(series, header, mask))
        # Its name appears only when it is complete: those who wait for the master read it at once.
        unfinished = series.master.with_name(f".{series.master.name}")
        circumstances = Circumstances(
            header.timestamp, "SIMULATED BEAMLINE", "SIMULATED SOURCE", transmission=header.transmission
        )
        write_master(unfinished, series, _facts(series, header), circumstances)
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
        self._file = create_data_file(
            self.series.data_file(file),
            self.series.images_in(file),
            self.series.shape,
            self.series.dtype,
            **hdf5plugin.Bitshuffle(),
        )
        self._data: h5py.Dataset = self._file["data"]  # pyright: ignore[reportAttributeAccessIssue]


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


def _configuration(series: Series, header: Header, mask: NDArray[np.uint32]) -> dict[str, Any]:
    """What SIMPLON would say of the detector."""
    return {
        "description": header.detector,
        "beam_center_x": header.beam_xy[0],
        "beam_center_y": header.beam_xy[1],
        "bit_depth_image": 32,
        "bit_depth_readout": _BIT_DEPTH,
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


def _facts(series: Series, header: Header) -> Facts:
    """The same in the words of a detector's stream, rows before columns."""
    return Facts(
        shape=series.shape,
        images=series.images,
        pixel_size=(header.pixel_size[1], header.pixel_size[0]),
        beam_centre=(header.beam_xy[1], header.beam_xy[0]),
        distance=header.distance,
        wavelength=header.wavelength,
        saturation=header.count_cutoff,
        thickness=header.sensor_thickness,
        material=header.sensor_material,
        count_time=header.exposure_time,
        frame_time=header.exposure_period,
        description=header.detector,
        axes={"omega": (header.start_angle, header.angle_increment)},
        countrate_corrected=True,
        flatfield_corrected=True,
        bit_depth=_BIT_DEPTH,
    )
