"""A series that is in HDF5 files, as if the detector sent it: header, mask, and frames as packed there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from parvis_services.stores.layout import LAST_NUMBER
from parvis_services.stores.series_header import BadHeader, read_mapping
from parvis_services.stream.events import Encoding, Frame, Header, SeriesStart
from parvis_services.stream.simplon import AXES, header_of
from parvis_services.xray.attenuation import KEV_ANGSTROM, sensor_material
from parvis_services.xray.errors import BrokenImageError, ImageError, UnfinishedImageError
from parvis_services.xray.experiment import Experiment, trusted_range
from parvis_services.xray.frame_map import FrameMap, not_yet
from parvis_services.xray.geometry import Panel
from parvis_services.xray.hdf5 import Tree
from parvis_services.xray.nxmx import read_experiment

_PACKINGS: Final[Mapping[int, Encoding]] = {32008: "bslz4", 32004: "hdf5-lz4"}
_WITH_LZ4: Final = 2
# No lengths: many sites have the detector told those in millimetres, and a beam centre of its own.
_FROM_CONFIG: Final = ("count_time", "frame_time", "description", "serial", "threshold", "bit_depth")
_LARGEST_CONFIG: Final = 4 << 20
_STRAIGHT: Final = math.cos(math.radians(0.001))


class RecordedSeries:
    """The frames of an NXmx or EIGER master file, from number 0 on.

    Args:
        path: The file.
        only_bslz4: Whether frames that are packed in another way are packed anew.

    Attributes:
        path: The file.
        images: How many frames there are, or are to be.
        header: What all frames share.
        config: The detector's configuration as the file writer has kept it, byte for byte; or None.
        tilt: Degrees by which the detector is not at right angles to the beam, which no header can say.

    Raises:
        ImageError: The file cannot be read, or has frames that cannot be stored.
    """

    def __init__(self, path: Path, *, only_bslz4: bool = False) -> None:
        self.path = path
        self._only_bslz4 = only_bslz4
        self._tree = Tree(path)
        try:
            self._frames = FrameMap(self._tree)
            self.images = self._frames.expected()
            first = self._frames.first_dataset()
            if first is None:
                raise UnfinishedImageError(path, "there are no images in it (yet)")
            if self.images > LAST_NUMBER:
                raise BrokenImageError(path, f"{self.images} images are more than {LAST_NUMBER}")
            self._shape, self._dtype = self._kind(first)
            self.config = self._config()
            self.header, self.tilt = self._read_header(first.dtype)
        except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
            self.close()
            raise BrokenImageError(path, str(error)) from None
        except ImageError:
            self.close()
            raise

    def start(self, series: int, appendix: Any = None) -> SeriesStart:
        """What the detector would have said at the start.

        Args:
            series: The number of the series.
            appendix: What the beamline would have had sent along.
        """
        return SeriesStart(
            series, header=self.header, mask=self._mask(), appendix=appendix, config=self._told()
        )

    def frame(self, number: int, series: int) -> Frame:
        """A frame: the bytes of its chunk where they can be taken as they are, else packed anew (`bslz4`).

        Args:
            number: Of the frame, from 0.
            series: The number of the series.

        Raises:
            UnfinishedImageError: It is not in the files (yet).
            ImageError: It cannot be read.
        """
        try:
            dataset, index = self._frames.locate(number)
            if self._kind(dataset) != (self._shape, self._dtype):
                raise ValueError(f"frame {number} is of another size or type than the others")
            packed, encoding = self._packed(dataset, index)
        except ImageError:
            raise
        except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
            if not_yet(error):
                raise UnfinishedImageError(self.path, f"frame {number} is not written yet") from None
            raise BrokenImageError(self.path, f"frame {number}: {error}") from None
        return Frame(series, number, memoryview(packed), encoding, self._dtype, self._shape)

    def close(self) -> None:
        """Close the files."""
        self._tree.close()

    def _kind(self, dataset: h5py.Dataset) -> tuple[tuple[int, int], str]:
        shape = dataset.shape[-2:]
        if dataset.ndim not in (2, 3) or dataset.dtype.kind not in "iu" or dataset.dtype.itemsize > 4:
            raise ValueError(
                f"images of {dataset.ndim} dimensions and type {dataset.dtype} cannot be stored: only single "
                "panels of whole numbers of at most 32 bits"
            )
        # A negative count of signed ones is a gap, and so is what it becomes without the sign.
        return (int(shape[0]), int(shape[1])), f"uint{8 * dataset.dtype.itemsize}"

    def _packed(self, dataset: h5py.Dataset, index: int) -> tuple[bytes, Encoding]:
        encoding = _packing(dataset)
        if encoding is None or (self._only_bslz4 and encoding != "bslz4"):
            counts = dataset[index] if dataset.ndim > 2 else dataset[()]
            return pack(np.asarray(counts, f"<{dataset.dtype.kind}{dataset.dtype.itemsize}")), "bslz4"
        skipped, chunk = dataset.id.read_direct_chunk((index, 0, 0))
        if skipped and self._only_bslz4:
            return pack(np.asarray(dataset[index])), "bslz4"
        return bytes(chunk), "none" if skipped else encoding

    def _config(self) -> bytes | None:
        """The dataset `config` of the meta file, which is linked to, or lies beside the master file."""
        for path in self._meta_files():
            if not path.exists():
                continue
            found = self._tree.find(self._tree.open(path), "config")
            if isinstance(found, h5py.Dataset) and found.ndim == 0:
                value: Any = found[()]
                text = value.encode() if isinstance(value, str) else value
                if isinstance(text, bytes) and len(text) <= _LARGEST_CONFIG:
                    return text
        return None

    def _meta_files(self) -> list[Path]:
        detector = self._detector()
        links = [detector.get(name, getlink=True) for name in map(str, detector)]
        linked = {str(link.filename) for link in links if isinstance(link, h5py.ExternalLink)}
        beside = f"{self.path.stem.removesuffix('_master')}_meta.h5"
        return [self.path.parent / name for name in [*sorted(linked), beside] if name.endswith("_meta.h5")]

    def _detector(self) -> h5py.Group:
        instrument = self._tree.child(self._frames.entry(), "NXinstrument", "instrument")
        detector = None if instrument is None else self._tree.child(instrument, "NXdetector", "detector")
        if detector is None:
            raise ValueError("there is no detector described in it: for a data file, give its master file")
        return detector

    def _mask(self) -> NDArray[np.uint32] | None:
        for path in ("pixel_mask", "detectorSpecific/pixel_mask"):
            dataset = self._tree.find(self._detector(), path)
            if isinstance(dataset, h5py.Dataset) and dataset.shape[-2:] == self._shape:
                return np.asarray(dataset[()]).reshape(self._shape).astype(np.uint32)
        return None

    def _read_header(self, dtype: np.dtype[Any]) -> tuple[Header, float]:
        experiment = read_experiment(self._tree, self._frames.entry(), self._shape, dtype)
        panel = _single_panel(experiment, self._shape)
        centre, distance, tilt = _across(panel, experiment)
        top = trusted_range(np.dtype(self._dtype))[1]
        header = Header(
            shape=self._shape,
            dtype=self._dtype,
            images=self.images,
            pixel_size=(panel.pixel_size[0] / 1e3, panel.pixel_size[1] / 1e3),
            beam_centre=centre,
            distance=distance / 1e3,
            wavelength=experiment.beam.wavelength,
            energy=1e3 * KEV_ANGSTROM / experiment.beam.wavelength,
            saturation=int(panel.trusted[1]) if panel.trusted[1] < top else None,
            thickness=panel.thickness / 1e3 or None,
            material=sensor_material(self._text("sensor_material") or ""),
            count_time=self._number("count_time"),
            frame_time=self._number("frame_time"),
            description=self._text("description"),
            serial=self._text("serial_number"),
            axes=self._axes(),
        )
        known = header_of(self._told())
        missing = {name: getattr(known, name) for name in _FROM_CONFIG if getattr(header, name) is None}
        return replace(header, **missing, axes=header.axes or known.axes), tilt

    def _told(self) -> Mapping[str, Any]:
        """The configuration, read; empty if there is none, or it cannot be read."""
        try:
            return {} if self.config is None else read_mapping(self.config)
        except BadHeader:
            return {}

    def _axes(self) -> dict[str, tuple[float, float]]:
        """Start and increment of the axes that the sample is turned about, degrees."""
        axes: dict[str, tuple[float, float]] = {}
        for axis in AXES:
            for path in (f"sample/transformations/{axis}", f"sample/goniometer/{axis}"):
                dataset = self._tree.find(self._frames.entry(), path)
                if isinstance(dataset, h5py.Dataset) and dataset.size and dataset.dtype.kind in "iuf":
                    angles = np.asarray(dataset[()], np.float64).ravel()
                    step = (angles[-1] - angles[0]) / (len(angles) - 1) if len(angles) > 1 else 0.0
                    axes[axis] = (float(angles[0]), float(step))
                    break
        return axes

    def _number(self, name: str) -> float | None:
        dataset = self._tree.find(self._detector(), name)
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iuf" or dataset.size != 1:
            return None
        value = float(np.asarray(dataset[()]).ravel()[0])
        return value if math.isfinite(value) and value > 0 else None

    def _text(self, name: str) -> str | None:
        dataset = self._tree.find(self._detector(), name)
        value: Any = dataset[()] if isinstance(dataset, h5py.Dataset) and dataset.size == 1 else None
        value = value.ravel()[0] if isinstance(value, np.ndarray) else value
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return text.strip() or None if isinstance(text, str) else None


def pack(counts: NDArray[Any]) -> bytes:
    """Pack the counts of a frame (rows, columns) with bitshuffle and LZ4, as HDF5's filter 32008 does."""
    with h5py.File("frame", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("counts", data=counts, chunks=counts.shape, **hdf5plugin.Bitshuffle())
        file.flush()
        skipped, packed = dataset.id.read_direct_chunk((0, 0))
    if skipped:
        raise ValueError("HDF5 cannot pack it")
    return bytes(packed)


def _packing(dataset: h5py.Dataset) -> Encoding | None:
    """How each frame is packed, if it is one chunk that can be stored as it is; else None."""
    if dataset.ndim != 3 or dataset.chunks != (1, *dataset.shape[1:]) or dataset.is_virtual:
        return None
    if dataset.dtype.byteorder == ">":
        return None
    properties = dataset.id.get_create_plist()
    if properties.get_nfilters() != 1:
        return None if properties.get_nfilters() else "none"
    code, _, values, _ = properties.get_filter(0)
    if code == 32008 and not (len(values) > 4 and values[4] == _WITH_LZ4):
        return None
    return _PACKINGS.get(code)


def _single_panel(experiment: Experiment, shape: tuple[int, int]) -> Panel:
    if len(experiment.modules) != 1 or experiment.modules[0].size[-2:] != shape:
        raise ValueError("its detector has several modules in places of their own, which no header can say")
    return experiment.detector.panels[0]


def _across(panel: Panel, experiment: Experiment) -> tuple[tuple[float, float], float, float]:
    """Where the beam meets a panel (slow, fast), pixels; how far from the sample, mm; its tilt, degrees."""
    beam, origin = np.array(experiment.beam.direction), np.array(panel.origin)
    fast, slow = np.array(panel.fast_axis), np.array(panel.slow_axis)
    normal = np.cross(fast, slow)
    along = float(beam @ normal)
    if abs(along) < 0.1:
        raise ValueError("its detector does not look at the sample")
    distance = float(origin @ normal) / along
    hit = distance * beam - origin
    centre = (float(hit @ slow) / panel.pixel_size[0], float(hit @ fast) / panel.pixel_size[1])
    tilt = 0.0 if abs(along) > _STRAIGHT else math.degrees(math.acos(min(1.0, abs(along))))
    return centre, distance, tilt
