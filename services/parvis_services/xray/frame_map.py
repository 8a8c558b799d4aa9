"""Where the frames of an NXmx or EIGER HDF5 file are, also while it is being written.

Frames are found under the NXdata group: in the dataset its signal names, which may be a virtual one, or one
after the other in `data_000001`, `data_000002`, ...
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from parvis_services.xray.errors import BrokenImageError, FrameRangeError, ImageError, UnfinishedImageError
from parvis_services.xray.hdf5 import Tree, refresh, source_path

_DATA_FILE = re.compile(r"data_\d+")

# What HDF5 says of a chunk whose writer has not come that far: its place is known, and not yet in the file.
_NOT_YET = ("past end of allocation", "addr overflow", "truncated file", "bad object header version")


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


class FrameMap:
    """Which frame is where.

    Args:
        tree: The opened file.

    Attributes:
        declared: How many frames there will be, where the file says so: in the length of its dataset of all
            frames; else None.
        absent: Why a file that it links to cannot be read, for one that was found so; or None.

    Raises:
        ImageError: It does not say where its images are.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._more_to_come = False
        self.absent: UnfinishedImageError | None = None
        try:
            whole = self._signal()
            self.declared = None if whole is None or whole.ndim < 3 else len(whole)
            self._use(self._find_segments())
        except ImageError:
            raise
        except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
            raise BrokenImageError(tree.path, str(error)) from None

    def on(self, tree: Tree) -> FrameMap:
        """The same map of the same file, opened again."""
        other = copy(self)
        other._tree = tree
        return other

    def count(self) -> int:
        """How many frames the files that are there have room for; the last may not be written yet."""
        total = 0
        for segment, dataset in self._present():
            if segment.count is None:
                refresh(dataset)
            total = max(total, segment.first + (segment.frames(dataset) if dataset.ndim > 2 else 1))
        return total

    def expected(self) -> int:
        """How many frames to look for, so that one whose file is missing is not overlooked; at least one."""
        return max(self.count() + self._more_to_come, self.declared or 0, 1)

    def first_dataset(self) -> h5py.Dataset | None:
        """The first dataset of images whose file is there."""
        return next((dataset for _, dataset in self._present()), None)

    def locate(self, frame: int) -> tuple[h5py.Dataset, int]:
        """The dataset that has a frame (from 0), and where in it.

        Raises:
            UnfinishedImageError: It is not there yet.
            FrameRangeError: There is no such frame.
        """
        found = self._search(frame)
        if found is None and self._more_to_come:
            self._use(self._find_segments())
            found = self._search(frame)
            if found is None and self._more_to_come:
                why = f": {self.absent.reason}" if self.absent else ""
                raise UnfinishedImageError(self._tree.path, f"frame {frame} is not written yet{why}")
        if found is None:
            reason = f"there is no frame {frame}: it has {self.count()}, numbered from 0"
            raise FrameRangeError(self._tree.path, reason)
        for dataset, index in self._stored(*found):
            if _never_written(dataset, index):
                refresh(dataset)
            if _never_written(dataset, index):
                raise UnfinishedImageError(self._tree.path, f"frame {frame} is not written yet")
        return found

    def _stored(self, dataset: h5py.Dataset, index: int) -> Iterator[tuple[h5py.Dataset, int]]:
        """Where the counts of a frame are in truth: a virtual dataset may put it together from several."""
        if not dataset.is_virtual:
            yield dataset, index
            return
        for source in dataset.virtual_sources():
            first, last = _first_and_last(source.vspace, len(dataset))
            if first <= index <= last and "%" not in source.file_name + source.dset_name:
                file = source_path(dataset, source.file_name)
                start, _ = _first_and_last(source.src_space, len(dataset))
                yield self._dataset(source.dset_name, file), start + index - first

    def is_written(self, frame: int) -> bool:
        """Whether a frame (from 0) can be read by now.

        Raises:
            ImageError: It never will.
        """
        try:
            self.locate(frame)
        except UnfinishedImageError:
            return False
        except (OSError, RuntimeError) as error:
            if not_yet(error):
                return False
            raise BrokenImageError(self._tree.path, f"frame {frame}: {error}") from None
        return True

    def entry(self) -> h5py.Group:
        """The NXentry group of the images."""
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
        group = self._tree.child(self.entry(), "NXdata", "data")
        if group is None:
            raise ValueError("there are no images in it: no NXdata group")
        return group

    def _use(self, segments: list[_Segment]) -> None:
        self._segments = segments
        self._firsts = [segment.first for segment in segments]

    def _find_segments(self) -> list[_Segment]:
        """Where the frames are that there are now."""
        whole = self._signal()
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
            except UnfinishedImageError as error:
                self.absent = error
                break
            refresh(dataset)
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
            raise BrokenImageError(self._tree.path, f"{path} of {file.name} is not a dataset of images")
        return dataset

    def _present(self) -> Iterator[tuple[_Segment, h5py.Dataset]]:
        """The segments whose file is there."""
        for segment in self._segments:
            try:
                yield segment, self._dataset(segment.path, segment.file)
            except UnfinishedImageError as error:
                self.absent = self.absent or error

    def _search(self, frame: int) -> tuple[h5py.Dataset, int] | None:
        """The dataset that has a frame, and where in it."""
        place = bisect_right(self._firsts, frame) - 1
        if place < 0:
            return None
        segment = self._segments[place]
        if segment.count is not None and frame >= segment.first + segment.count:
            return None
        dataset = self._dataset(segment.path, segment.file)
        index = segment.start + frame - segment.first
        if dataset.ndim > 2 and index >= len(dataset):
            refresh(dataset)
        if index < (len(dataset) if dataset.ndim > 2 else 1):
            return dataset, index
        if segment.count is not None:
            raise UnfinishedImageError(self._tree.path, f"frame {frame} is not written yet")
        return None


def not_yet(error: Exception) -> bool:
    """Whether HDF5 failed because the writer of a frame is not done with it."""
    return any(sign in str(error) for sign in _NOT_YET)


def _never_written(dataset: h5py.Dataset, index: int) -> bool:
    """Whether the detector has still to write a frame; HDF5 would give zeros for it."""
    if dataset.chunks is None or dataset.ndim < 3:
        return False
    if index >= len(dataset):
        return True
    position = (index // dataset.chunks[0] * dataset.chunks[0], *(0,) * (dataset.ndim - 1))
    info = dataset.id.get_chunk_info_by_coord(position)
    return info.byte_offset is None or info.size == 0


def _virtual_segments(whole: h5py.Dataset) -> list[_Segment]:
    """Which frames of a virtual dataset are whole frames of which other dataset; itself, if they are not."""
    file = Path(whole.file.filename)
    segments: list[_Segment] = []
    for source in whole.virtual_sources():
        first, count = _frames_of(source.vspace, whole.shape)
        start, available = _frames_of(source.src_space, (count, *whole.shape[1:]))
        if count == 0 or available != count or "%" in source.file_name + source.dset_name:
            return [_Segment(0, None, 0, str(whole.name), file)]
        segments.append(_Segment(first, count, start, source.dset_name, source_path(whole, source.file_name)))
    return sorted(segments, key=lambda segment: segment.first)


def _first_and_last(selection: Any, frames: int) -> tuple[int, int]:
    """The frames between which a selection lies."""
    if selection.get_select_type() == h5py.h5s.SEL_ALL:
        return 0, frames - 1
    low, high = selection.get_select_bounds()
    return low[0], high[0]


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
