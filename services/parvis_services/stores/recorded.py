"""What the files of a series keep of it beside its images: what the detector was told, axes, and the whole mask."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import h5py
import hdf5plugin  # noqa: F401 -- lets HDF5 decompress masks
import numpy as np
from numpy.typing import NDArray

from parvis_services.stores.series_header import BadHeader, read_mapping
from parvis_services.stream.events import Header
from parvis_services.stream.simplon import AXES, header_of
from parvis_services.xray.errors import BrokenImageError, ImageError
from parvis_services.xray.frame_map import FrameMap
from parvis_services.xray.hdf5 import Tree

_LARGEST_CONFIG: Final = 4 << 20
_MASKS: Final = ("pixel_mask", "detectorSpecific/pixel_mask")
_TURNS: Final = ("sample/transformations", "sample/goniometer")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What there is; of CBF files, nothing.

    Attributes:
        text: The detector's configuration as the file writer has kept it, byte for byte; or None.
        config: The same, read; empty if it cannot be.
        axes: Start and increment of the axes that the sample is turned about, degrees.
        mask: For each pixel what is wrong with it, bits as NXmx has them; or None.
    """

    text: bytes | None = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    axes: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    mask: NDArray[np.uint32] | None = None

    def complete(self, header: Header) -> Header:
        """Return a header with what it does not say, and this does.

        The geometry in the master file counts more than that in the configuration: many sites write lengths
        into the latter in millimetres, and the detector's own idea of where the beam is.
        """
        known = header_of(self.config)
        missing = {
            one.name: getattr(known, one.name) for one in fields(header) if getattr(header, one.name) is None
        }
        return replace(header, **missing, axes=dict(self.axes or known.axes))


def read_recorded(master: Path) -> Recorded:
    """Read what an HDF5 master file, and the meta file that it links to or that lies beside it, have.

    Raises:
        ImageError: The file cannot be read.
    """
    try:
        with closing(Tree(master)) as tree:
            entry = FrameMap(tree).entry()
            detector = _detector(tree, entry)
            text = _config(tree, detector)
            return Recorded(text, _mapping(text), _axes(tree, entry), _mask(tree, detector))
    except ImageError:
        raise
    except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
        raise BrokenImageError(master, str(error)) from None


def _detector(tree: Tree, entry: h5py.Group) -> h5py.Group:
    instrument = tree.child(entry, "NXinstrument", "instrument")
    detector = None if instrument is None else tree.child(instrument, "NXdetector", "detector")
    if detector is None:
        raise ValueError("there is no detector described in it: for a data file, give its master file")
    return detector


def _config(tree: Tree, detector: h5py.Group) -> bytes | None:
    """The dataset `config` of the meta file."""
    links = [detector.get(name, getlink=True) for name in map(str, detector)]
    linked = {str(link.filename) for link in links if isinstance(link, h5py.ExternalLink)}
    beside = f"{tree.path.stem.removesuffix('_master')}_meta.h5"
    for name in [*sorted(linked), beside]:
        path = tree.path.parent / name
        if not name.endswith("_meta.h5") or not path.exists():
            continue
        found = tree.find(tree.open(path), "config")
        value: Any = found[()] if isinstance(found, h5py.Dataset) and found.ndim == 0 else None
        text = value.encode() if isinstance(value, str) else value
        if isinstance(text, bytes) and len(text) <= _LARGEST_CONFIG:
            return text
    return None


def _mapping(text: bytes | None) -> Mapping[str, Any]:
    try:
        return {} if text is None else read_mapping(text)
    except BadHeader:
        return {}


def _axes(tree: Tree, entry: h5py.Group) -> dict[str, tuple[float, float]]:
    axes: dict[str, tuple[float, float]] = {}
    for axis in AXES:
        for group in _TURNS:
            dataset = tree.find(entry, f"{group}/{axis}")
            if isinstance(dataset, h5py.Dataset) and dataset.size and dataset.dtype.kind in "iuf":
                angles = np.asarray(dataset[()], np.float64).ravel()
                step = (angles[-1] - angles[0]) / (len(angles) - 1) if len(angles) > 1 else 0.0
                axes[axis] = (float(angles[0]), float(step))
                break
    return axes


def _mask(tree: Tree, detector: h5py.Group) -> NDArray[np.uint32] | None:
    for path in _MASKS:
        dataset = tree.find(detector, path)
        if isinstance(dataset, h5py.Dataset) and dataset.ndim >= 2 and dataset.dtype.kind in "iu":
            mask = np.asarray(dataset[()])
            return mask.reshape(mask.shape[-2:]).astype(np.uint32)
    return None
