"""Frames of image files as a detector would have streamed them: CBF files, or an HDF5 master file.

What an analysis finds on such a frame it finds on the file: the counts, the geometry, the mask and the
trusted range are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from parvis_services.stream.encoding import ITEM_SIZES
from parvis_services.stream.events import Encoding, Header
from parvis_services.stream.packing import pack
from parvis_services.xray.attenuation import KEV_ANGSTROM, attenuation
from parvis_services.xray.errors import BrokenImageError, UnfinishedImageError
from parvis_services.xray.frame_map import FrameMap, not_yet
from parvis_services.xray.hdf5 import Tree
from parvis_services.xray.images import Buffers, Image, is_cbf, open_image

NO_PIXEL: Final = 1
DEAD_PIXEL: Final = 2
"""Bits of a pixel mask, as NXmx has them."""

_BITSHUFFLE: Final = 32008
_WITH_LZ4: Final = 2
_MATERIALS: Final = ("Si", "CdTe", "GaAs")
_TILT: Final = 1e-4  # radians by which a detector may stand askew and count as straight


class NoSeries(ValueError):
    """Files are no series that a detector could stream; says why."""


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """Counts of a frame, packed: `data` in the given `encoding`, `dtype` and `shape` (rows, columns)."""

    data: memoryview
    encoding: Encoding
    dtype: str
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class FileSeries:
    """The frames of image files.

    Attributes:
        header: What they have in common.
        mask: For each pixel what is wrong with it, bits as NXmx has them; None where all are good.
        read: Gives a frame, by its place from 0. Raises ImageError.
    """

    header: Header
    mask: NDArray[np.uint32] | None
    read: Callable[[int], PackedFrame]

    @property
    def images(self) -> int:
        """How many frames there are."""
        return self.header.images or 0

    def frames(self) -> Iterator[PackedFrame]:
        """Read one frame after the other. Raises ImageError."""
        return map(self.read, range(self.images))


def open_series(files: Sequence[Path]) -> FileSeries:
    """Look into image files.

    Args:
        files: CBF files of one series in order, compressed or not; or one HDF5 master file (NXmx, EIGER).

    Returns:
        Their frames. Chunks of HDF5 that are bitshuffle-LZ4 are given as they are in the file; all else is
        packed so, counts with a sign as `uint32`, with its highest number where there is no pixel.

    Raises:
        NoSeries: Several panels, or a detector that is not at right angles to the beam: no header of a stream
            says that. Or counts of a type that no detector has.
        ImageError: They cannot be read.
    """
    if not files:
        raise NoSeries("there are no files")
    if is_cbf(files[0]):
        return _cbf_series(files)
    if len(files) > 1:
        raise NoSeries(f"{files[0].name} is no CBF file: give many of those, or one HDF5 master file")
    return _hdf5_series(files[0])


def as_unsigned(counts: NDArray[Any]) -> NDArray[Any]:
    """Counts as an EIGER has them: those with a sign as `uint32`, the negative ones as its highest number."""
    if counts.dtype.kind == "u":
        return counts
    unsigned = counts.astype(np.uint32)
    unsigned[counts < 0] = np.iinfo(np.uint32).max
    return unsigned


def pixel_mask(counts: NDArray[Any]) -> NDArray[np.uint32]:
    """The mask that belongs to counts with -1 where there is no pixel and lower ones where one is dead."""
    mask = np.zeros(counts.shape, np.uint32)
    mask[counts == -1] = NO_PIXEL
    mask[counts < -1] = DEAD_PIXEL
    return mask


def packed_frame(counts: NDArray[Any]) -> PackedFrame:
    """Pack counts (rows, columns), those with a sign as `as_unsigned` has them."""
    unsigned = as_unsigned(counts)
    rows, columns = counts.shape
    return PackedFrame(memoryview(pack(unsigned)), "bslz4", unsigned.dtype.name, (rows, columns))


def _cbf_series(files: Sequence[Path]) -> FileSeries:
    first = open_image(files[0])
    header = _header(first, len(files))
    counts = first.data[0]
    mask = pixel_mask(counts)
    if first.mask[0] is not None:
        mask[~first.mask[0]] |= NO_PIXEL
    buffers = Buffers()

    def read(place: int) -> PackedFrame:
        image = open_image(files[place], buffers=buffers)
        if len(image.data) != 1 or image.data[0].shape != counts.shape:
            raise BrokenImageError(files[place], "it is of another size than the first")
        return packed_frame(image.data[0])

    return FileSeries(header, mask if mask.any() else None, read)


def _hdf5_series(master: Path) -> FileSeries:
    first = open_image(master, 0)
    with closing(Tree(master)) as tree:
        images = FrameMap(tree).expected()
    header = _header(first, images)
    usable = first.mask[0]
    mask = None if usable is None else np.where(usable, 0, NO_PIXEL).astype(np.uint32)

    def read(place: int) -> PackedFrame:
        return _chunk(master, place) or packed_frame(open_image(master, place).data[0])

    return FileSeries(header, mask, read)


def _chunk(master: Path, place: int) -> PackedFrame | None:
    """A frame as it is in the file, if a detector could have sent it so."""
    with closing(Tree(master)) as tree:
        dataset, index = FrameMap(tree).locate(place)
        if not _is_bslz4(dataset):
            return None
        try:
            filters_skipped, chunk = dataset.id.read_direct_chunk((index, 0, 0))
        except (OSError, RuntimeError, ValueError) as error:
            if not_yet(error):
                raise UnfinishedImageError(master, f"frame {place} is not written yet") from None
            raise BrokenImageError(master, f"frame {place} cannot be read: {error}") from None
        rows, columns = dataset.shape[1:]
        encoding: Encoding = "none" if filters_skipped else "bslz4"
        return PackedFrame(memoryview(chunk), encoding, dataset.dtype.name, (rows, columns))


def _is_bslz4(dataset: h5py.Dataset) -> bool:
    """Whether each frame is one chunk, unsigned, that went through bitshuffle-LZ4 and nothing else."""
    if dataset.ndim != 3 or dataset.chunks != (1, *dataset.shape[1:]):
        return False
    if dataset.dtype.name not in ITEM_SIZES or not dataset.dtype.isnative:
        return False
    properties = dataset.id.get_create_plist()
    if properties.get_nfilters() != 1:
        return False
    code, _, values, _ = properties.get_filter(0)
    return code == _BITSHUFFLE and len(values) > 4 and values[4] == _WITH_LZ4


def _header(image: Image, images: int) -> Header:
    """What a stream says of an image's geometry."""
    name = Path(image.path).name
    if len(image.detector.panels) != 1:
        raise NoSeries(f"{name} has several panels, not one flat detector")
    (panel,) = image.detector.panels
    origin, fast, slow = (np.array(vector) for vector in (panel.origin, panel.fast_axis, panel.slow_axis))
    beam = np.array(image.beam.direction)
    if max(abs(beam @ fast), abs(beam @ slow)) > _TILT:
        raise NoSeries(f"{name}: the detector is not at right angles to the beam")
    wavelength, dtype = image.beam.wavelength, _unsigned_type(image)
    return Header(
        shape=panel.shape,
        dtype=dtype,
        images=images,
        pixel_size=(panel.pixel_size[0] / 1000, panel.pixel_size[1] / 1000),
        beam_centre=(
            float(-(origin @ slow) / panel.pixel_size[0]),
            float(-(origin @ fast) / panel.pixel_size[1]),
        ),
        distance=float(abs(origin @ beam)) / 1000,
        wavelength=wavelength,
        energy=KEV_ANGSTROM * 1000 / wavelength,
        saturation=None if math.isinf(panel.trusted[1]) else int(panel.trusted[1]),
        thickness=panel.thickness / 1000 or None,
        material=_material(panel.attenuation, wavelength),
        bit_depth=8 * ITEM_SIZES[dtype],
    )


def _unsigned_type(image: Image) -> str:
    kind = image.data[0].dtype
    name = "uint32" if kind.kind == "i" else kind.name
    if name not in ITEM_SIZES:
        raise NoSeries(f"{Path(image.path).name}: no detector streams counts of the type {kind}")
    return name


def _material(coefficient: float | None, wavelength: float) -> str | None:
    """The sensor material that has this attenuation coefficient."""
    for material in _MATERIALS:
        known = attenuation(material, wavelength)
        if coefficient and known and math.isclose(coefficient, known, rel_tol=1e-6):
            return material
    return None
