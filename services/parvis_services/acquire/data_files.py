"""The data files of a series: each image one chunk, written as the detector sent it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import hdf5plugin  # noqa: F401 - the filters that the files name

from parvis_services.acquire.swmr_mending import mend
from parvis_services.nxmx_files import LIBVER, Series, create_data_file
from parvis_services.stream.encoding import hdf5_chunk, hdf5_filter
from parvis_services.stream.events import Encoding, Frame

_log = logging.getLogger(__name__)

FLUSH_EVERY: Final = 0.05
"""Seconds after which readers see an image at the latest, while others come. To flush after each would cost a
tenth of the time that small images (0.3 MB) take; to extend the dataset for each, a quarter."""

_MOST_OPEN: Final = 2  # images that come out of order may be of the file before
_LEFT_OUT: Final = 1  # HDF5's mask for a chunk that did not go through the first filter


class UnfitFrame(ValueError):
    """An image cannot be one of its series."""


@dataclass(slots=True)
class _DataFile:
    """A data file that is open; `unseen` if it has images that readers cannot see yet."""

    file: h5py.File
    data: h5py.Dataset
    filter: int | None
    unseen: bool = False


@dataclass(frozen=True)
class Stock:
    """What is in a data file.

    Attributes:
        numbers: The images, from 0 in the series.
        shape, dtype: Of each.
    """

    numbers: list[int]
    shape: tuple[int, int]
    dtype: str


class DataFiles:
    """Writes images into the data files of a series, a few of which are open at a time."""

    def __init__(self) -> None:
        self._open: dict[int, _DataFile] = {}
        self._flushed = 0.0

    def write(self, frame: Frame, series: Series) -> None:
        """Write an image that is not there yet; its data file is made if need be.

        Args:
            frame: The image, of the shape and type of the series.
            series: Where the files are, and how many images each has.

        Raises:
            UnfitFrame, MalformedStream: It is packed in a way that its file cannot have.
            OSError: The disk does not take it.
        """
        place, index = divmod(frame.number, series.images_per_file)
        chunk = hdf5_chunk(frame)
        try:
            file = self._file(place, series, frame.encoding)
            file.data.id.write_direct_chunk((index, 0, 0), chunk, _left_out(frame, file.filter))
            file.unseen = True
            # Whoever waits for the first image of a file should not wait for the next, too.
            if index == 0 or time.monotonic() - self._flushed > FLUSH_EVERY:
                self.flush()
        except RuntimeError as error:
            raise OSError(str(error)) from None

    def flush(self) -> None:
        """Let readers see what is written. Raises OSError if the disk does not take it."""
        self._flushed = time.monotonic()
        for file in self._open.values():
            if file.unseen:
                file.unseen = False
                try:
                    file.data.flush()
                except RuntimeError as error:
                    raise OSError(str(error)) from None

    def close(self) -> None:
        """Close all. Raises OSError if the disk does not take what is left of one; the others are closed."""
        trouble: OSError | None = None
        for place in list(self._open):
            try:
                self._close(place)
            except OSError as error:
                trouble = error
        if trouble is not None:
            raise trouble

    def _file(self, place: int, series: Series, encoding: Encoding) -> _DataFile:
        file = self._open.get(place)
        if file is None:
            if len(self._open) >= _MOST_OPEN:
                self._close(min(self._open))
            path = series.data_file(place)
            opened = _reopen(path) if path.exists() else _create(path, place, series, encoding)
            data = _data(opened)
            file = self._open[place] = _DataFile(opened, data, _filter_of(data))
        return file

    def _close(self, place: int) -> None:
        file = self._open.pop(place)
        try:
            file.file.close()
        except RuntimeError as error:
            raise OSError(f"{file.file.filename}: {error}") from None


def data_files(directory: Path, prefix: str) -> Iterator[tuple[int, Path]]:
    """Yield the data files of a series that are there, each with its number from 0."""
    name = re.compile(re.escape(prefix) + r"_(\d{6,9})\.h5", re.ASCII)
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        found = name.fullmatch(path.name)
        if found and int(found[1]) > 0:
            yield int(found[1]) - 1, path


def take_stock(number: int, path: Path, images_per_file: int) -> Stock:
    """See what is in a data file that nobody is writing any more; put it right if its writer was killed.

    Args:
        number: Which of the series it is, from 0.
        path: Its name.
        images_per_file: How many images each has.

    Raises:
        OSError, ValueError: It cannot be read.
    """
    if mend(path):
        _log.warning("the writer of %s was killed: put right", path)
    with h5py.File(path, "r") as file:
        data = _data(file)
        indices: list[int] = []
        for place in range(data.id.get_num_chunks()):
            info = data.id.get_chunk_info(place)
            if info.byte_offset is not None and info.size:
                indices.append(info.chunk_offset[0])
        numbers = [number * images_per_file + index for index in indices]
        return Stock(numbers, (data.shape[1], data.shape[2]), str(data.dtype))


def _create(path: Path, place: int, series: Series, encoding: Encoding) -> h5py.File:
    packing = hdf5_filter(encoding)
    how: dict[str, Any] = {}
    if packing is not None:
        how = {"compression": packing.number, "compression_opts": packing.options}
    room = max(1, min(series.images_per_file, series.images - place * series.images_per_file))
    return create_data_file(path, room, series.shape, series.dtype, **how)


def _reopen(path: Path) -> h5py.File:
    file = h5py.File(path, "r+", libver=LIBVER)
    file.swmr_mode = True
    return file


def _data(file: h5py.File) -> h5py.Dataset:
    data = file["data"]
    if not isinstance(data, h5py.Dataset) or data.ndim != 3 or data.dtype.kind != "u":
        raise OSError(f"{file.filename} is no file of images")
    return data


def _filter_of(data: h5py.Dataset) -> int | None:
    properties = data.id.get_create_plist()
    return int(properties.get_filter(0)[0]) if properties.get_nfilters() else None


def _left_out(frame: Frame, filter_of_file: int | None) -> int:
    """HDF5's mask of the filters that an image did not go through."""
    packing = hdf5_filter(frame.encoding)
    if packing is None:
        return 0 if filter_of_file is None else _LEFT_OUT
    if packing.number != filter_of_file:
        raise UnfitFrame(f"image {frame.number + 1} is packed as {frame.encoding}, those before it otherwise")
    return 0
