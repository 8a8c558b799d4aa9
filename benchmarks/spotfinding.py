"""CPU time of per-image analysis, from file to the nine numbers, and where it goes.

    python benchmarks/spotfinding.py

The yardstick is the plain numpy implementation, timed in the same run on the same images: milliseconds depend
on the machine, ratios hardly do. Where DIALS can be imported it is timed as well. Real images are used where
PARVIS_TEST_DATA (or the directory of test data beside the checkout) has them, synthetic ones otherwise.
"""

from __future__ import annotations

import argparse
import bz2
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from machine import describe_machine
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from parvis_services.nxmx_files import Series
from parvis_services.simulate.cbf import write_cbf
from parvis_services.simulate.collect import GridScan
from parvis_services.simulate.detectors import detector
from parvis_services.simulate.frames import FrameSource
from parvis_services.simulate.header import Header
from parvis_services.simulate.nexus import frames_to_nexus
from parvis_services.xray import oracle, tiers
from parvis_services.xray.analysis import analyse, find_spots
from parvis_services.xray.grid import Grid
from parvis_services.xray.images import Buffers, Image, open_image
from parvis_services.xray.kernels import bitshuffle_lz4
from parvis_services.xray.masks import image_masks
from parvis_services.xray.parameters import ALGORITHMS, Algorithm, AnalysisParameters
from parvis_services.xray.statistics import image_statistics

DATA = Path(os.environ.get("PARVIS_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
PUBLISHED_DIALS_6M = 187.0
"""CPU milliseconds of DIALS for a 6M image, file to nine numbers, measured once on a Zen 5 server."""

EIGER_16M = (4362, 4148)
U16_INVALID = 65535


@dataclass(frozen=True)
class Case:
    """An image in a file."""

    name: str
    path: Path
    published: float | None = None


def pilatus_6m(scratch: Path) -> Iterator[Case]:
    """A real image of a thaumatin crystal, else a synthetic one."""
    real = DATA / "thaumatin_grid" / "thau_3_2_0003.cbf.bz2"
    path = scratch / "6m.cbf"
    if real.exists():
        path.write_bytes(bz2.decompress(real.read_bytes()))
        yield Case("PILATUS 6M, CBF, real", path, PUBLISHED_DIALS_6M)
    else:
        image, header = synthetic("pilatus-6m")
        write_cbf(path, image, header)
        yield Case("PILATUS 6M, CBF, synthetic", path)


def eiger_16m(scratch: Path) -> Iterator[Case]:
    """Bitshuffle-LZ4 compressed 16-bit images: sparse, as the detector gives them, and of many counts."""
    image, header = synthetic("eiger-16m")
    yield Case("EIGER 16M, HDF5, synthetic", nexus(scratch / "synthetic", image, header))
    real = DATA / "eiger_stream" / "tickit_frame_sample"
    if real.exists():
        counts = bitshuffle_lz4.decode(real.read_bytes(), EIGER_16M, np.uint16)
        yield Case("EIGER 16M, HDF5, real, no X-rays", nexus(scratch / "real", invalid(counts), header))
    pilatus = scratch / "6m.cbf"
    tiled = np.tile(open_image(pilatus).data[0], (2, 2))[: EIGER_16M[0], : EIGER_16M[1]]
    yield Case("16M, HDF5, the 6M counts tiled", nexus(scratch / "tiled", tiled, header))


def synthetic(name: str) -> tuple[NDArray[np.int32], Header]:
    """An image of a good crystal."""
    scan = GridScan(Grid(1, 1), detector(name))
    return FrameSource(scan.detector, scan.header).image(0, crystal=1.0, solvent=0.5), scan.header


def invalid(counts: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Counts with -1 where the detector has no pixel."""
    return np.where(counts == U16_INVALID, -1, counts.astype(np.int32))


def nexus(directory: Path, image: NDArray[np.int32], header: Header) -> Path:
    """The image in an NXmx file, in 16 bits."""
    directory.mkdir()
    master = frames_to_nexus([image], header, Series(directory, "image", 1, (image.shape[0], image.shape[1])))
    counts = np.where(image < 0, U16_INVALID, np.minimum(image, U16_INVALID - 1)).astype(np.uint16)
    with h5py.File(master, "r+") as file:
        del file["entry/data/data"]
        chunks = (1, *counts.shape)
        file.create_dataset(
            "entry/data/data", data=counts[np.newaxis], chunks=chunks, **hdf5plugin.Bitshuffle()
        )
    return master


def cpu(work: Callable[[], Any], repeats: int) -> float:
    """CPU milliseconds of the process, all threads: the median."""
    times: list[float] = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def strong_pixels(image: Image, threshold: Any, parameters: AnalysisParameters) -> list[NDArray[np.int64]]:
    """The strong pixels of each panel."""
    masks = image_masks(image, parameters.masks)
    return [
        threshold(data, mask, panel.trusted, parameters.threshold)
        for data, mask, panel in zip(image.data, masks, image.detector.panels, strict=True)
    ]


def label(image: Image, strong: list[NDArray[np.int64]], group: Any) -> None:
    """Group the strong pixels of each panel."""
    for data, indices in zip(image.data, strong, strict=True):
        group(indices, data.reshape(-1)[indices], data.shape)


def stages(case: Case, algorithm: Algorithm, repeats: int) -> dict[str, float]:
    """CPU milliseconds of the stages, and of the whole, which does a little more than these."""
    parameters, buffers = AnalysisParameters(algorithm=algorithm), Buffers()
    image = open_image(case.path, buffers=buffers)
    threshold = tiers.threshold(algorithm)
    strong = strong_pixels(image, threshold, parameters)
    found = find_spots(image, parameters)
    return {
        "read, decode": cpu(lambda: open_image(case.path, buffers=buffers), repeats),
        "threshold": cpu(lambda: strong_pixels(image, threshold, parameters), repeats),
        "label": cpu(lambda: label(image, strong, tiers.spots), repeats),
        "statistics": cpu(
            lambda: image_statistics(found.d_star_sq, found.spots.intensity, found.ice), repeats
        ),
        "file to nine": cpu(lambda: analyse(case.path, parameters), repeats),
    }


def plain_numpy(case: Case, algorithm: Algorithm) -> float:
    """CPU milliseconds of the plain numpy implementation: decode, threshold, label; medians of three."""
    parameters = AnalysisParameters(algorithm=algorithm)
    image = open_image(case.path)
    threshold = getattr(oracle, algorithm)
    strong = strong_pixels(image, threshold, parameters)
    decode = cpu(lambda: plain_decode(case.path, image.data[0].shape), 3)
    return (
        decode
        + cpu(lambda: strong_pixels(image, threshold, parameters), 3)
        + cpu(lambda: label(image, strong, oracle.spots), 3)
    )


def plain_decode(path: Path, shape: tuple[int, ...]) -> None:
    """Read the counts without our kernels: the oracle's decoder for CBF, HDF5's own filters for HDF5."""
    if path.suffix == ".cbf":
        contents = path.read_bytes()
        start = contents.index(b"\x0c\x1a\x04\xd5") + 4
        size = int(contents[:start].split(b"X-Binary-Size:")[1].split()[0])
        oracle.decode_byte_offset(memoryview(contents)[start : start + size], (shape[0], shape[1]))
    else:
        with h5py.File(path) as file:
            data = file["entry/data/data"]
            assert isinstance(data, h5py.Dataset)
            data[0]


def dials(case: Case, algorithm: Algorithm, repeats: int) -> float | None:
    """CPU milliseconds of DIALS, where it is installed."""
    if importlib.util.find_spec("dials") is None:
        return None
    parameters = AnalysisParameters(algorithm=algorithm, engine="dials")
    analyse(case.path, parameters)
    return cpu(lambda: analyse(case.path, parameters), repeats)


def ready(kind: str) -> float:
    """Seconds from starting Python to being ready for images of a type, with compiled code on disk."""
    command = [sys.executable, "-c", f"from parvis_services.xray.kernels import warm_up; warm_up({kind!r})"]
    subprocess.run(command, check=True)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def report(case: Case, repeats: int) -> Table:
    """The figures of one image."""
    table = Table(
        title=f"{case.name}: CPU ms an image, median of {repeats}",
        caption="ratio: the yardstick to its left over file to nine",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("algorithm", no_wrap=True)
    for column in (
        *("read, decode", "threshold", "label", "statistics", "file to nine", "images/s/core"),
        *("plain numpy", "ratio", "DIALS here", "ratio", "DIALS published", "ratio"),
    ):
        table.add_column(column, justify="right")
    for algorithm in ALGORITHMS:
        times = stages(case, algorithm, repeats)
        total = times["file to nine"]
        row = [f"{value:.1f}" for value in times.values()] + [f"{1000 / total:.0f}"]
        published = case.published if algorithm == "dispersion" else None
        for yardstick in (plain_numpy(case, algorithm), dials(case, algorithm, 3), published):
            row += ["-", "-"] if yardstick is None else [f"{yardstick:.0f}", f"{yardstick / total:.1f}"]
        table.add_row(algorithm, *row)
    return table


def main() -> None:
    """Run everything and print one table an image."""
    parser = argparse.ArgumentParser(description="CPU time of per-image analysis and its stages.")
    parser.add_argument("--repeats", type=int, default=15, help="images to take the median of (%(default)s)")
    repeats = parser.parse_args().repeats
    if repeats < 1:
        parser.error("--repeats must be at least 1")
    console = Console(width=max(160, Console().width))
    console.print(describe_machine("numpy", "numba", "h5py"))
    console.print(
        f"ready for CBF {ready('int32'):.2f} s, for 16-bit HDF5 {ready('uint16'):.2f} s after starting"
    )
    with tempfile.TemporaryDirectory(prefix="parvis-spotfinding-") as directory:
        for make in (pilatus_6m, eiger_16m):
            for case in make(Path(directory)):
                console.print(report(case, repeats))


if __name__ == "__main__":
    main()
