"""Collect a grid scan as a beamline would: image after image, in acquisition order, into real files."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from parvis_services.nxmx_files import Series
from parvis_services.simulate.cbf import write_cbf
from parvis_services.simulate.crystal import Sample, random_sample
from parvis_services.simulate.detectors import Detector, detector
from parvis_services.simulate.frames import FrameSource, Physics
from parvis_services.simulate.header import Header
from parvis_services.simulate.nexus import NexusWriter
from parvis_services.simulate.placing import Slowly, place
from parvis_services.stream.image_files import pixel_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from parvis_services.xray.grid import Grid

Format = Literal["cbf", "cbf.gz", "cbf.bz2", "nexus"]

LEAST_ICE = 0.02

_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class GridScan:
    """A grid scan to be simulated; the same seed gives the same sample and the same images.

    Attributes:
        grid: its boxes and the order in which they are exposed.
        detector: what records it.
        sample: what is in the beam; by default a crystal in a loop at a random place.
        seed: of everything random.
        physics: how the sample scatters.
        wavelength: in A.
        resolution: d in A at the middle of the detector's nearer edges, which sets its distance.
    """

    grid: Grid
    detector: Detector = field(default_factory=lambda: detector("pilatus-1m"))
    sample: Sample | None = None
    seed: int = 0
    physics: Physics = field(default_factory=Physics)
    wavelength: float = 0.9795
    resolution: float = 2.0

    @property
    def header(self) -> Header:
        """The geometry: the beam near the middle of the detector, the distance rounded to 0.1 mm."""
        rows, columns = self.detector.shape
        nearest = min(rows, columns) / 2 * self.detector.pixel_size
        two_theta = 2 * np.arcsin(min(0.95, self.wavelength / (2 * self.resolution)))
        return Header(
            detector=f"{self.detector.name}, S/N 00-0000",
            wavelength=self.wavelength,
            distance=round(float(nearest / np.tan(two_theta)), 4),
            beam_xy=(round(0.507 * columns, 2), round(0.493 * rows, 2)),
            pixel_size=(self.detector.pixel_size, self.detector.pixel_size),
            sensor_thickness=self.detector.sensor_thickness,
            count_cutoff=self.detector.count_cutoff,
        )

    @property
    def mounted(self) -> Sample:
        """The sample, chosen by the seed if none was given."""
        return self.sample or random_sample(self.grid, self.seed)

    def images(self) -> Iterator[NDArray[np.int32]]:
        """The images in acquisition order."""
        source = FrameSource(self.detector, self.header, self.physics, self.seed)
        sample = self.mounted
        crystal = sample.crystal.thickness(self.grid)
        solvent = sample.loop.thickness(self.grid) if sample.loop else np.zeros(self.grid.shape)
        ice = sum((blob.thickness(self.grid) for blob in sample.ice), np.zeros(self.grid.shape))
        for number in range(1, self.grid.size + 1):
            column, row = self.grid.position(number)
            # A Gaussian never ends, but ice does.
            frost = ice[row, column] if ice[row, column] > LEAST_ICE else 0.0
            yield source.image(number, crystal[row, column], solvent[row, column], frost)


@dataclass(frozen=True)
class Pace:
    """How fast images come: ``rate`` a second, each interval longer or shorter by up to ``jitter`` of itself.

    Without a rate they come as fast as they can be made. ``seed`` makes the jitter repeatable.
    """

    rate: float | None = None
    jitter: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"the rate of images must be positive, not {self.rate}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is a fraction between 0 and 1, not {self.jitter}")

    def times(self) -> Iterator[float]:
        """When each image is due, in s after the first."""
        random = np.random.default_rng(self.seed)
        due = 0.0
        while True:
            yield due
            if self.rate:
                due += (1 + self.jitter * random.uniform(-1, 1)) / self.rate


@dataclass(frozen=True)
class Collected:
    """What a simulated collection wrote.

    Attributes:
        files: the images' files in order; for NeXus the data files.
        master: the NeXus master, or None.
        pattern: the images' path with ``%05d`` for their number (from 1), or None for NeXus.
        images: how many there are.
        centre: the crystal's true middle (x, y) in grid boxes.
    """

    files: list[Path]
    master: Path | None
    pattern: str | None
    images: int
    centre: tuple[float, float]


class _Writer(Protocol):
    def append(self, image: NDArray[Any]) -> None: ...
    def close(self) -> None: ...


def collect(
    scan: GridScan,
    directory: Path,
    prefix: str = "grid_1",
    *,
    kind: Format = "cbf",
    pace: Pace | None = None,
    slowly: Slowly | None = None,
    images_per_file: int = 1000,
    seen: Callable[[int], None] | None = None,
) -> Collected:
    """Simulate a grid scan and write its images one by one.

    Args:
        scan: what is collected.
        directory: where; made if it is not there.
        prefix: what the file names begin with; letters, digits, ``_``, ``-`` and ``.``.
        kind: mini-CBF files, plain or compressed, or NXmx HDF5.
        pace: when the images come; as fast as possible by default.
        slowly: let CBF files grow in place instead of having them appear complete.
        images_per_file: of the NXmx data files.
        seen: called with the number (from 1) of each image when it is written.

    Raises:
        ValueError: the prefix is no part of a file name.
        FileExistsError: a file of that name exists.
    """
    check_prefix(prefix)
    directory.mkdir(parents=True, exist_ok=True)
    size, header = scan.grid.size, scan.header
    series = Series(directory, prefix, size, scan.detector.shape, images_per_file)
    writer: _Writer | None = None
    start = None
    try:
        for number, (image, due) in enumerate(
            zip(scan.images(), (pace or Pace()).times(), strict=False), start=1
        ):
            start = time.monotonic() if start is None else start
            time.sleep(max(0.0, start + due - time.monotonic()))
            if writer is None:
                writer = _writer(series, header, kind, slowly, image)
            writer.append(image)
            if seen:
                seen(number)
    finally:
        if writer is not None:
            writer.close()
    if kind == "nexus":
        return Collected(series.data_files, series.master, None, size, scan.mounted.centre)
    files = [_cbf_path(series, kind, number) for number in range(1, size + 1)]
    # A per cent sign in the directory's name must not be taken for the place of the number.
    folder = str(directory).replace("%", "%%")
    return Collected(files, None, f"{folder}/{prefix}_%05d.{kind}", size, scan.mounted.centre)


def check_prefix(prefix: str) -> None:
    """Raise ValueError unless file names may begin with this."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            f"file names may not begin with {prefix!r}: letters, digits, '_', '-' and '.' may be in it"
        )


class _CbfWriter:
    def __init__(self, series: Series, header: Header, kind: str, slowly: Slowly | None) -> None:
        self._series, self._header, self._kind, self._slowly = series, header, kind, slowly
        self._written = 0

    def append(self, image: NDArray[Any]) -> None:
        path = _cbf_path(self._series, self._kind, self._written + 1)
        write_cbf(path, image, self._header, self._written, self._slowly)
        self._written += 1

    def close(self) -> None:
        """Nothing is open between images."""


def _writer(
    series: Series, header: Header, kind: str, slowly: Slowly | None, first: NDArray[np.int32]
) -> _Writer:
    if kind == "nexus":
        return NexusWriter(series, header, pixel_mask(first))
    return _CbfWriter(series, header, kind, slowly)


def _cbf_path(series: Series, kind: str, number: int) -> Path:
    return series.directory / f"{series.prefix}_{number:05d}.{kind}"


def copy_frames(
    files: Iterable[Path],
    directory: Path,
    intervals: Iterable[float] = (),
    seen: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Collect existing files again: copy them one by one, under their own names, as they are.

    Args:
        files: in the order they shall appear.
        directory: where; made if it is not there.
        intervals: s to wait before each file; the last counts for all files after it. None: no waiting.
        seen: called with each new file when it is there.

    Returns:
        the new files. Each is complete from the moment it is there.

    Raises:
        ValueError: two of the files have the same name.
        FileExistsError: there is a file of that name.
    """
    originals = list(files)
    names = [path.name for path in originals]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two of the files are called {twice}")
    directory.mkdir(parents=True, exist_ok=True)
    copies: list[Path] = []
    waits = iter(intervals)
    wait = 0.0
    for original in originals:
        wait = next(waits, wait)
        time.sleep(max(0.0, wait))
        copy = directory / original.name
        place(copy, original.read_bytes())
        copies.append(copy)
        if seen:
            seen(copy)
    return copies
