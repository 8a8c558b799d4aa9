"""Opening an image file, whatever it is: CBF, or a frame of an HDF5 file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from parvis_services.paths import special_kind
from parvis_services.xray.errors import (
    BrokenImageError,
    ForbiddenImageError,
    FrameRangeError,
    MissingImageError,
    UnfinishedImageError,
    UnknownFormatError,
)
from parvis_services.xray.geometry import Beam, Detector

Mask = NDArray[np.bool_]

LARGEST_FILE = 2**28  # bytes of a file that is read whole, more than any detector has pixels for
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CBF_SIGNATURE = b"###CBF"
_CBF_SIGNATURES = (_CBF_SIGNATURE, b"\x1f\x8b", b"BZh")  # plain, or compressed with gzip or bzip2


@dataclass(frozen=True, slots=True)
class Image:
    """One exposure.

    Attributes:
        data: Raw counts, one 2-D array (slow, fast) a panel, in the type the file has them in.
        detector: Geometry and trusted range of the panels, in the order of `data`.
        beam: The beam.
        mask: For each panel, True where a pixel may be used, or None where the file masks none of them. Do
            not write to it: it is shared by the images of a detector.
        path: The file.
        frame: Which exposure of the file, from 0; None for a file of one image.
        mask_key: Tells masks of different content apart, quickly; without it, masks that `MaskParameters` add
            to one of the file are computed anew for each image.
    """

    data: tuple[NDArray[Any], ...]
    detector: Detector
    beam: Beam
    mask: tuple[Mask | None, ...]
    path: str
    frame: int | None = None
    mask_key: Hashable = None

    def __post_init__(self) -> None:
        panels = self.detector.panels
        if not len(panels) == len(self.data) == len(self.mask):
            raise ValueError(
                f"{len(panels)} panels, {len(self.data)} arrays and {len(self.mask)} masks do not match"
            )
        for panel, data, mask in zip(panels, self.data, self.mask, strict=True):
            if data.shape != panel.shape or (mask is not None and mask.shape != panel.shape):
                raise ValueError(f"a panel of {panel.shape} pixels does not fit data of {data.shape}")


class Buffers(threading.local):
    """Memory used again from image to image, each thread its own.

    Large arrays are slow to get afresh: the time goes into page faults. What is read into a buffer is
    overwritten by the next image read into the same buffers.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._file = bytearray()

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of that shape and type, its contents unknown."""
        kind = np.dtype(dtype)
        array = self._arrays.get(kind.str)
        if array is None or array.shape != shape:
            array = self._arrays[kind.str] = np.empty(shape, kind)
        return array

    def read(self, path: Path) -> memoryview:
        """The contents of a file. Raises BrokenImageError if it is larger than `LARGEST_FILE`."""
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size > LARGEST_FILE:
                raise BrokenImageError(
                    path, f"{size} bytes are more than an image can have, which is {LARGEST_FILE}"
                )
            file.seek(0)
            if len(self._file) < size:
                self._file = bytearray(size)
            view = memoryview(self._file)
            return view[: file.readinto(view[:size])]


def open_image(
    path: str | Path,
    frame: int | None = None,
    *,
    buffers: Buffers | None = None,
    allowed: Callable[[Path], bool] | None = None,
) -> Image:
    """Read one image.

    Args:
        path: A CBF file, also one compressed with gzip or bzip2, or the HDF5 master file of an NXmx or EIGER
            data collection. What the file is is seen from its contents, not its name.
        frame: Which frame of an HDF5 file, from 0; the first if not given. A CBF file has frame 0 only.
        buffers: Memory to read into, for many images in a row: an image is then good until the next is read
            into the same buffers. Without it each image has memory of its own.
        allowed: Whether a file may be opened, asked for this one and each that it links to; by default all
            may.

    Raises:
        ForbiddenImageError: The file, or one that it links to, is not allowed.
        MissingImageError: There is no such file, or it cannot be opened.
        UnfinishedImageError: The file or the frame is not complete, or empty.
        FrameRangeError: The file has no such frame.
        BrokenImageError: The file contradicts itself or is damaged.
        UnknownFormatError: It is not an image of a kind that is known here.
    """
    path = Path(path)
    if allowed is not None and not allowed(path):
        raise ForbiddenImageError(path, "lies outside the directories that the site allows")
    signature = _signature(path)
    if signature.startswith(_HDF5_SIGNATURE):
        from parvis_services.xray.nexus import read_frame

        return read_frame(path, frame or 0, buffers or Buffers(), allowed)
    if signature.startswith(_CBF_SIGNATURES):
        if frame:
            raise FrameRangeError(path, f"there is no frame {frame}: a CBF file holds one image, frame 0")
        from parvis_services.xray.cbf import read_cbf

        return read_cbf(path, buffers or Buffers())
    raise UnknownFormatError(path, "not an image that can be read here: neither CBF nor HDF5")


def count_frames(path: str | Path) -> int | None:
    """How many frames an HDF5 file has now, or None for a file of one image. Raises as `open_image`."""
    path = Path(path)
    if not _signature(path).startswith(_HDF5_SIGNATURE):
        return None
    from parvis_services.xray import nexus

    return nexus.count_frames(path)


def expected_frames(path: str | Path) -> int | None:
    """How many frames an HDF5 file has or is to have, at least one, as far as it says so.

    None for a file of one image. To read one of these frames fails, and names the file that is missing or
    damaged, where `count_frames` leaves it out. Raises as `open_image`.
    """
    path = Path(path)
    if not _signature(path).startswith(_HDF5_SIGNATURE):
        return None
    from parvis_services.xray import nexus

    return nexus.expected_frames(path)


def is_cbf(path: str | Path) -> bool:
    """Whether a file seems to be a CBF image, compressed or not. Raises as `open_image`."""
    return _signature(Path(path)).startswith(_CBF_SIGNATURES)


def _signature(path: Path) -> bytes:
    """The first bytes of a file."""
    try:
        kind = special_kind(path)
        if kind not in (None, "a directory"):
            raise UnknownFormatError(path, f"is {kind}, not an image file")
        with path.open("rb") as file:
            signature = file.read(len(_HDF5_SIGNATURE))
    except IsADirectoryError:
        raise MissingImageError(path, "is a directory, not an image file") from None
    except FileNotFoundError:
        raise MissingImageError(path, "there is no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MissingImageError(path, f"cannot be opened: {reason}") from None
    if not signature.strip(b"\0"):
        raise UnfinishedImageError(path, "the file is empty: still to be written, or cut short")
    if any(known.startswith(signature) and signature != known for known in (_HDF5_SIGNATURE, _CBF_SIGNATURE)):
        raise UnfinishedImageError(path, "the file ends at once: still being written, or cut short")
    return signature
