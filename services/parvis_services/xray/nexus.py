"""Frames of NXmx and EIGER HDF5 files, also while they are being written.

Compressed chunks are read as they are and decompressed here, which takes a third of the time HDF5's own way
does; anything unusual goes HDF5's way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- lets HDF5 decompress what detectors compress
import numpy as np
from numpy.typing import NDArray

from parvis_services.xray import tiers
from parvis_services.xray.cache import Cache
from parvis_services.xray.errors import (
    BrokenImageError,
    FrameRangeError,
    MissingImageError,
    UnfinishedImageError,
)
from parvis_services.xray.experiment import Experiment
from parvis_services.xray.frame_map import FrameMap, not_yet
from parvis_services.xray.hdf5 import Tree
from parvis_services.xray.images import Buffers, Image
from parvis_services.xray.nxmx import read_experiment

_BITSHUFFLE = 32008
_WITH_LZ4 = 2


@dataclass(slots=True)
class _Known:
    """What is the same for every frame of a file, or nearly so."""

    frames: FrameMap
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    experiment: Experiment


_known: Cache[_Known] = Cache(max_size=8)


def read_frame(
    path: Path, frame: int, buffers: Buffers, allowed: Callable[[Path], bool] | None = None
) -> Image:
    """Read one frame of an HDF5 file. Raises as `images.open_image`.

    The file is opened for each frame, which takes little: so its writer is never kept out, and nothing that
    it wrote is overlooked. What is known of it is kept for as long as the master file does not change.
    """
    if frame < 0:
        raise FrameRangeError(path, f"there is no frame {frame}: frames are numbered from 0")
    try:
        status = path.stat()
    except OSError as error:
        raise MissingImageError(path, f"cannot be opened: {error.strerror}") from None
    version = (str(path.absolute()), status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
    with closing(Tree(path, allowed)) as tree:
        known = _known.get(version, lambda: _learn(tree))
        frames = known.frames.on(tree)
        counts = _read(path, frame, frames.locate(frame), known, buffers)
        known.frames = frames
    return known.experiment.image(counts, str(path), frame)


def count_frames(path: Path) -> int:
    """How many frames there are now. Raises as `images.open_image`."""
    with closing(Tree(path)) as tree:
        return FrameMap(tree).count()


def expected_frames(path: Path) -> int:
    """How many frames there are or will be, at least one. Raises as `images.open_image`."""
    with closing(Tree(path)) as tree:
        return FrameMap(tree).expected()


def _learn(tree: Tree) -> _Known:
    frames = FrameMap(tree)
    first = frames.first_dataset()
    if first is None:
        why = f": {frames.absent.reason}" if frames.absent else ""
        raise UnfinishedImageError(tree.path, f"there are no images in it (yet){why}")
    shape: tuple[int, ...] = first.shape[1:] if first.ndim > 2 else first.shape
    try:
        dtype = _counts_type(first.dtype)
        experiment = read_experiment(tree, frames.entry(), shape, first.dtype)
        return _Known(frames, shape, dtype, experiment)
    except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
        raise BrokenImageError(tree.path, str(error)) from None


def _read(
    path: Path, frame: int, place: tuple[h5py.Dataset, int], known: _Known, buffers: Buffers
) -> NDArray[Any]:
    """The counts of a frame, in the shape of the dataset."""
    dataset, index = place
    if (dataset.shape[1:] if dataset.ndim > 2 else dataset.shape) != known.shape:
        raise BrokenImageError(path, f"frame {frame} is of another size than the others")
    out = buffers.array(known.shape, known.dtype)
    try:
        if tiers.decodes_bitshuffle_quickly() and _plain_bitshuffle(dataset):
            return _decode_chunk(dataset, index, out)
        dataset.read_direct(out, np.s_[index] if dataset.ndim > 2 else None)
    except (OSError, RuntimeError, ValueError) as error:
        if not_yet(error):
            raise UnfinishedImageError(path, f"frame {frame} is not written yet") from None
        raise BrokenImageError(path, f"frame {frame} is damaged: {error}") from None
    return out


def _counts_type(stored: np.dtype[Any]) -> np.dtype[Any]:
    if stored.kind not in "iuf":
        raise ValueError(f"images of the type {stored} cannot be read")
    wide = stored.kind in "iu" and stored.itemsize > 4
    return np.dtype(np.float64) if wide else stored.newbyteorder("=")


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
