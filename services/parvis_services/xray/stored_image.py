"""Images from what a detector sent: the counts of a frame as they are stored, the header of its series."""

from __future__ import annotations

import threading
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from parvis_services.stream.events import Encoding, Header
from parvis_services.stream.geometry import TYPES, experiment_of
from parvis_services.xray import tiers
from parvis_services.xray.errors import BrokenImageError
from parvis_services.xray.experiment import LARGEST_IMAGE, Experiment
from parvis_services.xray.images import Buffers, Image

_BEST_RATIO: Final = 255  # LZ4 packs at most so many bytes into one


class FrameDecoder:
    """Makes images of the frames of one series. Threads may share it.

    Args:
        header: What the detector says of the series.
        mask: For each pixel what is wrong with it, bits as NXmx has them, 0 for nothing; None if not known.
    """

    def __init__(self, header: Header, mask: NDArray[Any] | None = None) -> None:
        self.header = header
        self._mask = None if mask is None else mask != 0  # a quarter of the memory
        self._lock = threading.Lock()
        self._kind: tuple[tuple[int, int], np.dtype[Any]] | None = None
        self._experiment: Experiment | None = None

    def image(
        self,
        data: bytes | memoryview,
        name: str,
        *,
        encoding: Encoding = "bslz4",
        shape: tuple[int, int] | None = None,
        dtype: str | None = None,
        buffers: Buffers | None = None,
    ) -> Image:
        """Make an image.

        Args:
            data: The counts, as the detector sent them.
            name: What to call the image where something is wrong with it, such as its address.
            encoding: How the counts are packed.
            shape: Pixels (rows, columns); those of the header if not given.
            dtype: Type of a count, as numpy names it; that of the header if not given.
            buffers: As of `images.open_image`.

        Raises:
            BrokenImageError: Frame or header are damaged, contradict each other, or lack what is needed.
        """
        shape, dtype = shape or self.header.shape, dtype or self.header.dtype
        try:
            if shape is None or dtype is None:
                raise ValueError("neither the frame nor the header of its series says its size and type")
            experiment = self._experiment_of(shape, _type(dtype))
            return experiment.image(decode(data, encoding, shape, dtype, buffers or Buffers()), name)
        except (ValueError, TypeError, OverflowError) as error:
            raise BrokenImageError(name, str(error)) from None

    def _experiment_of(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> Experiment:
        """The experiment for frames of this kind: a series has one kind."""
        with self._lock:
            if self._experiment is None or self._kind != (shape, dtype):
                self._experiment = experiment_of(self.header, shape, dtype, self._mask)
                self._kind = shape, dtype
            return self._experiment


def decode(
    data: bytes | memoryview, encoding: Encoding, shape: tuple[int, int], dtype: str, buffers: Buffers
) -> NDArray[Any]:
    """The counts of a frame.

    Args:
        data: As the detector sent them.
        encoding: How they are packed.
        shape: Pixels (rows, columns).
        dtype: Type of a count, as numpy names it.
        buffers: Memory to decode into.

    Raises:
        ValueError: The data are damaged, or of a frame of another size or type.
    """
    kind, packed = _type(dtype), memoryview(data).nbytes
    size = shape[0] * shape[1] * kind.itemsize
    # Before there is memory for it: what is promised must be possible.
    if min(shape) < 1 or shape[0] * shape[1] > LARGEST_IMAGE:
        raise ValueError(f"an image of {shape[0]} x {shape[1]} pixels is not possible")
    if size > (packed if encoding == "none" else _BEST_RATIO * packed):
        raise ValueError(f"{packed} bytes of data cannot hold {shape[0]} x {shape[1]} pixels of {dtype}")
    if encoding == "bslz4":
        return tiers.decode_bitshuffle(data, shape, kind, buffers.array(shape, kind))
    if encoding in ("lz4", "hdf5-lz4"):
        memory = buffers.array((size + tiers.LZ4_ROOM,), np.uint8)
        plain = tiers.decode_lz4(data, size, memory, prefixed=encoding == "hdf5-lz4")
        return plain.view(kind).reshape(shape)
    if encoding != "none":
        raise ValueError(f"the encoding {cast('str', encoding)[:40]!r} is not known")
    if packed != size:
        raise ValueError(f"there are {packed} bytes of data for an image of {size}")
    counts = buffers.array(shape, kind)
    counts[...] = np.frombuffer(data, kind).reshape(shape)
    return counts


def _type(name: str) -> np.dtype[Any]:
    if name not in TYPES:
        raise ValueError(f"counts of the type {name[:40]!r} cannot be read, only {', '.join(TYPES)}")
    return TYPES[name]
