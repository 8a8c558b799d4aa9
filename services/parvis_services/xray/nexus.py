"""Frames of NXmx and EIGER HDF5 files, also while they are being written.

Frames are found under the NXdata group: in the dataset its signal names, which may be a virtual one, or one
after the other in `data_000001`, `data_000002`, ... Compressed chunks are read as they are and decompressed
here, which takes a third of the time HDF5's own way does; anything unusual goes HDF5's way.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- lets HDF5 decompress what detectors compress
import numpy as np
from numpy.typing import NDArray

from parvis_services.xray import tiers
from parvis_services.xray.cache import Cache
from parvis_services.xray.errors import BrokenImageError, FrameRangeError, ImageError, UnfinishedImageError
from parvis_services.xray.hdf5 import Tree
from parvis_services.xray.images import Buffers, Image, Mask
from parvis_services.xray.nxmx import Experiment, read_experiment

_BITSHUFFLE = 32008
_WITH_LZ4 = 2
_DATA_FILE = re.compile(r"data_\d+")


@dataclass(frozen=True, slots=True)
class _Segment:
    """Frames `first`, `first` + 1, ... of the file are those of a dataset from its frame `start` on.

    `count` is None for as many as the dataset has.
    """

    first: int
    count: int | None
    start: int
    path: str
    file: Path

    def frames(self, dataset: h5py.Dataset) -> int:
        return len(dataset) if self.count is None else self.count


class Frames:
    """An opened HDF5 file of images.

    Raises:
        ImageError: The file cannot be opened, is not complete, or does not describe its images.
    """

    def __init__(self, path: Path) -> None:
        self._tree = Tree(path)
        self.path = path
        try:
            self._entry = self._find_entry()
            self._whole = self._signal()
            self._more_to_come = False
            self._segments = self._find_segments()
            first = next((dataset for _, dataset in self._present()), None)
            if first is None:
                raise UnfinishedImageError(path, "there are no images in it (yet)")
            self._dtype = _counts_type(first.dtype)
            self._shape: tuple[int, ...] = first.shape[1:] if first.ndim > 2 else first.shape
            self._experiment = read_experiment(self._tree, self._entry, self._shape, first.dtype)
            self._masks, self._mask_key = _masks(self._experiment)
        except ImageError:
            self.close()
            raise
        except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
            self.close()
            raise BrokenImageError(path, str(error)) from None

    def refresh(self) -> int:
        """How many frames the files that are there have room for; the last may not be written yet."""
        if self._more_to_come:
            self._segments = self._find_segments()
        total = 0
        for segment, dataset in self._present():
            if segment.count is None:
                dataset.id.refresh()
            total = max(total, segment.first + (segment.frames(dataset) if dataset.ndim > 2 else 1))
        return total

    def read(self, frame: int, buffers: Buffers) -> Image:
        """One frame. Raises as `images.open_image`."""
        counts = self._counts(frame, buffers)
        experiment = self._experiment
        data = tuple(
            np.ascontiguousarray(counts[module.where].reshape(module.size[-2:]))
            for module in experiment.modules
        )
        return Image(
            data, experiment.detector, experiment.beam, self._masks, str(self.path), frame, self._mask_key
        )

    def close(self) -> None:
        """Close the file and those it links to."""
        self._tree.close()

    def _find_entry(self) -> h5py.Group:
        entry = self._tree.child(self._tree.root, "NXentry", "entry")
        if entry is None:
            raise ValueError("there is no NXentry in it: for a data file, give its master file")
        return entry

    def _signal(self) -> h5py.Dataset | None:
        """The dataset of all frames, if there is one."""
        group = self._data_group()
        name = group.attrs.get("signal", "data")
        name = name.decode() if isinstance(name, bytes) else str(name)
        for candidate in (name, "data"):
            dataset = self._tree.find(group, candidate)
            if isinstance(dataset, h5py.Dataset):
                return dataset
        return None

    def _data_group(self) -> h5py.Group:
        group = self._tree.child(self._entry, "NXdata", "data")
        if group is None:
            raise ValueError("there are no images in it: no NXdata group")
        return group

    def _find_segments(self) -> list[_Segment]:
        """Where the frames are that there are now."""
        whole = self._whole
        if whole is None:
            return self._data_files()
        if whole.is_virtual:
            return _virtual_segments(whole)
        return [_Segment(0, None, 0, str(whole.name), Path(whole.file.filename))]

    def _data_files(self) -> list[_Segment]:
        """One dataset after the other, up to the first whose file is not there yet."""
        group = self._data_group()
        names = sorted(name for name in map(str, group) if _DATA_FILE.fullmatch(name))
        file = Path(group.file.filename)
        segments: list[_Segment] = []
        first = 0
        for name in names:
            try:
                dataset = self._dataset(f"{group.name}/{name}", file)
            except UnfinishedImageError:
                break
            dataset.id.refresh()
            segments.append(_Segment(first, len(dataset), 0, f"{group.name}/{name}", file))
            first += len(dataset)
        self._more_to_come = len(segments) < len(names)
        if segments and not self._more_to_come:
            # Only the last file may still grow: the others are complete once the next one is there.
            segments[-1] = replace(segments[-1], count=None)
        return segments

    def _dataset(self, path: str, file: Path) -> h5py.Dataset:
        dataset = self._tree.find(self._tree.open(file), path)
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim < 2:
            raise BrokenImageError(self.path, f"{path} of {file.name} is not a dataset of images")
        return dataset

    def _present(self) -> Iterator[tuple[_Segment, h5py.Dataset]]:
        """The segments whose file is there."""
        for segment in self._segments:
            try:
                yield segment, self._dataset(segment.path, segment.file)
            except UnfinishedImageError:
                continue

    def _locate(self, frame: int) -> tuple[h5py.Dataset, int]:
        found = self._search(frame)
        if found is None and self._more_to_come:
            self._segments = self._find_segments()
            found = self._search(frame)
            if found is None and self._more_to_come:
                raise UnfinishedImageError(self.path, f"frame {frame} is not written yet")
        if found is None:
            reason = f"there is no frame {frame}: it has {self.refresh()}, numbered from 0"
            raise FrameRangeError(self.path, reason)
        return found

    def _search(self, frame: int) -> tuple[h5py.Dataset, int] | None:
        """The dataset that has a frame, and where in it."""
        for segment in self._segments:
            if segment.first <= frame and (segment.count is None or frame < segment.first + segment.count):
                dataset = self._dataset(segment.path, segment.file)
                index = segment.start + frame - segment.first
                if dataset.ndim > 2 and index >= len(dataset):
                    dataset.id.refresh()
                if index < (len(dataset) if dataset.ndim > 2 else 1):
                    return dataset, index
                if segment.count is not None:
                    raise UnfinishedImageError(self.path, f"frame {frame} is not written yet")
        return None

    def _counts(self, frame: int, buffers: Buffers) -> NDArray[Any]:
        """The counts of a frame, in the shape of the dataset."""
        dataset, index = self._locate(frame)
        if (dataset.shape[1:] if dataset.ndim > 2 else dataset.shape) != self._shape:
            raise BrokenImageError(self.path, f"frame {frame} is of another size than the others")
        out = buffers.array(self._shape, self._dtype)
        try:
            if tiers.can_decode_bitshuffle() and _plain_bitshuffle(dataset):
                return _decode_chunk(dataset, index, out)
            if _never_written(dataset, index):
                raise UnfinishedImageError(self.path, f"frame {frame} is not written yet")
            dataset.read_direct(out, np.s_[index] if dataset.ndim > 2 else None)
        except (OSError, RuntimeError, ValueError) as error:
            if _never_written(dataset, index):
                raise UnfinishedImageError(self.path, f"frame {frame} is not written yet") from None
            raise BrokenImageError(self.path, f"frame {frame} is damaged: {error}") from None
        return out


_opened: Cache[Frames] = Cache(max_size=4)


def opened(path: Path) -> Frames:
    """The opened file. The last few are kept open, so that the frames of one cost little each."""
    return _opened.get(_identity(path), lambda: Frames(path))


def read_frame(path: Path, frame: int, buffers: Buffers) -> Image:
    """Read one frame of an HDF5 file. Raises as `images.open_image`."""
    if frame < 0:
        raise FrameRangeError(path, f"there is no frame {frame}: frames are numbered from 0")
    try:
        return opened(path).read(frame, buffers)
    except FrameRangeError:
        # New data files, and a master file that was replaced, show only in a file opened afresh.
        _opened.forget(_identity(path))
        return opened(path).read(frame, buffers)


def _identity(path: Path) -> tuple[int, str, int, int]:
    """Another process, and another file of the same name, need opening anew."""
    status = path.stat()
    return os.getpid(), str(path.absolute()), status.st_dev, status.st_ino


def _counts_type(stored: np.dtype[Any]) -> np.dtype[Any]:
    if stored.kind not in "iuf":
        raise ValueError(f"images of the type {stored} cannot be read")
    wide = stored.kind in "iu" and stored.itemsize > 4
    return np.dtype(np.float64) if wide else stored.newbyteorder("=")


def _masks(experiment: Experiment) -> tuple[tuple[Mask | None, ...], str | None]:
    """The mask of each panel, and what tells it from others."""
    whole = experiment.mask
    if whole is None or whole.all():
        return (None,) * len(experiment.modules), None
    masks: list[Mask] = []
    for module in experiment.modules:
        mask = np.ascontiguousarray(whole[module.where].reshape(module.size[-2:]))
        mask.setflags(write=False)
        masks.append(mask)
    return tuple(masks), hashlib.blake2b(np.packbits(whole).tobytes(), digest_size=16).hexdigest()


def _virtual_segments(whole: h5py.Dataset) -> list[_Segment]:
    """Which frames of a virtual dataset are whole frames of which other dataset; itself, if they are not."""
    file = Path(whole.file.filename)
    segments: list[_Segment] = []
    for source in whole.virtual_sources():
        first, count = _frames_of(source.vspace, whole.shape)
        start, available = _frames_of(source.src_space, (count, *whole.shape[1:]))
        if count == 0 or available != count or "%" in source.file_name + source.dset_name:
            return [_Segment(0, None, 0, str(whole.name), file)]
        other = file if source.file_name == "." else file.parent / source.file_name
        segments.append(_Segment(first, count, start, source.dset_name, other))
    return sorted(segments, key=lambda segment: segment.first)


def _frames_of(selection: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """First frame and number of frames of a selection, if it is of whole frames in a row; else (0, 0)."""
    if selection.get_select_type() == h5py.h5s.SEL_ALL:
        return 0, shape[0]
    (first, *low), (last, *high) = selection.get_select_bounds()
    count = last - first + 1
    frame = shape[1:]
    if any(low) or tuple(n + 1 for n in high) != frame:
        return 0, 0
    return (first, count) if selection.get_select_npoints() == count * int(np.prod(frame)) else (0, 0)


def _plain_bitshuffle(dataset: h5py.Dataset) -> bool:
    """Whether each frame is one chunk that went through bitshuffle-LZ4 and nothing else."""
    if dataset.ndim != 3 or dataset.chunks != (1, *dataset.shape[1:]) or dataset.dtype.kind not in "iu":
        return False
    if dataset.dtype.itemsize > 4 or not dataset.dtype.isnative:
        return False
    properties = dataset.id.get_create_plist()
    if properties.get_nfilters() != 1:
        return False
    code, _, values, _ = properties.get_filter(0)
    return code == _BITSHUFFLE and len(values) > 4 and values[4] == _WITH_LZ4


def _decode_chunk(dataset: h5py.Dataset, index: int, out: NDArray[Any]) -> NDArray[Any]:
    filters_skipped, chunk = dataset.id.read_direct_chunk((index, 0, 0))
    if not filters_skipped:
        return tiers.decode_bitshuffle(chunk, (out.shape[0], out.shape[1]), out.dtype, out)
    if len(chunk) != out.nbytes:
        raise ValueError(f"its chunk has {len(chunk)} bytes, not {out.nbytes}")
    out[...] = np.frombuffer(chunk, out.dtype).reshape(out.shape)
    return out


def _never_written(dataset: h5py.Dataset, index: int) -> bool:
    """Whether the detector has still to write a frame; HDF5 would give zeros for it."""
    if dataset.chunks is None or dataset.ndim < 3:
        return False
    position = (index // dataset.chunks[0] * dataset.chunks[0], *(0,) * (dataset.ndim - 1))
    info = dataset.id.get_chunk_info_by_coord(position)
    return info.byte_offset is None or info.size == 0
