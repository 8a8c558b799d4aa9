"""From a detector's stream to files and results: `python benchmarks/acquisition`.

The 19 frames of a real line scan, streamed over and over by a detector in a process of its own. All files and
stores are in memory; Ceph, where it is installed, is one of three parts on this machine.

* `--part latency`: how long an image takes to its result, over a store and over an HDF5 file.
* `--part writing`: what HDF5Writer takes, beside a bare socket and a plain file.
* `--part analysis`: CPU from the stream to the result, beside that of spotfinding alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

import writing  # noqa: E402 - found through the path above
from analysing import STORES, Run, line, percentiles  # noqa: E402
from children import Alone, in_child, spotfinding_alone  # noqa: E402
from images import plain_frames  # noqa: E402
from machine import describe_machine  # noqa: E402

from real.packages import Unavailable  # noqa: E402
from scans import quick_directory  # noqa: E402

LATENCY = ((10, "16M"), (50, "6M"), (50, "1M"), (133, "1M"))
"""Images a second, and how large they are."""

COST = ((40, "16M"), (110, "6M"), (350, "1M"))
"""The same, and more than two cores analyse: there is always a next image then."""

SECONDS = {"latency": 8, "analysis": 4}
SPOTFINDING = 10  # times that each frame is looked at
OWN = {"Ceph": ("CephWriter",), "directory": ("CephWriter",), "HDF5 file": ("HDF5Writer", "FileWatcher")}
TITLES = {
    "latency": "From the detector to the result, ms",
    "analysis": "CPU for an image in ms, with a backlog",
}
COLUMNS = {
    "latency": ("stored to result p50", "p99", "frame to result p50", "p99"),
    "analysis": (
        *("spotfinding alone", "PIA", "writer", "of both", "overhead", "images/s/core", "Ceph"),
        "broker, listener",
    ),
}
RUNS = {"latency": LATENCY, "analysis": COST}


def analysed(part: str, files: list[Path], scratch: Path, stores: list[str]) -> Table:
    """Stream at all rates over all stores."""
    table = Table(title=TITLES[part], title_justify="left")
    for column in ("through", "images/s", "size", "images", "same result", "missing", *COLUMNS[part]):
        table.add_column(column, justify="right")
    sizes = {size for _, size in RUNS[part]}
    alone = {size: in_child(spotfinding_alone, files, size, SPOTFINDING) for size in sizes}
    for kind in stores:
        try:
            with line(kind, scratch) as beamline:
                for rate, size in RUNS[part]:
                    beamline.run(files, size, 10, 1, alone[size])  # what is done once is done then
                    repeat = max(1, round(rate * SECONDS[part] / len(files)))
                    run = beamline.run(files, size, rate, repeat, alone[size])
                    about = (kind, rate, size, run.images, run.same, run.missing)
                    figures = latency(run) if part == "latency" else cost(run, kind, alone[size])
                    table.add_row(*map(str, about), *figures)
        except Unavailable as error:
            table.add_row(kind, f"not here: {error}")
    return table


def latency(run: Run) -> list[str]:
    """Medians and 99 % in ms."""
    return [
        f"{value:.0f}"
        for seconds in (run.stored_to_result, run.frame_to_result)
        for value in percentiles(seconds)
    ]


def cost(run: Run, kind: str, alone: Alone) -> list[str]:
    """Where the CPU time goes."""
    pia, writer = run.cpu["PerImageAnalysis"], sum(run.cpu[name] for name in OWN[kind])
    times = [f"{1000 * one:.1f}" for one in (alone.seconds, pia, writer, pia + writer)]
    ratios = [f"{(pia + writer) / alone.seconds - 1:.0%}", f"{1 / (pia + writer):.0f}"]
    return [*times, *ratios, *(f"{1000 * run.cpu[name]:.1f}" for name in ("Ceph", "broker"))]


def main() -> None:
    """Measure what is asked for and print tables."""
    parser = argparse.ArgumentParser(description="From a detector's stream to files and results.")
    parser.add_argument("--part", choices=["writing", "latency", "analysis", "all"], default="all")
    parser.add_argument("--store", action="append", choices=STORES, help="may be repeated")
    options = parser.parse_args()
    console = Console(width=max(170, Console().width))
    console.print(describe_machine("pyzmq", "h5py", "numba", "minio"))
    console.print(f"load before: {os.getloadavg()[0]:.1f}")
    with quick_directory() as scratch:
        files = plain_frames(scratch)
        if options.part in {"writing", "all"}:
            console.print(writing.table(files, scratch))
        for part in RUNS:
            if options.part in {part, "all"}:
                console.print(analysed(part, files, scratch, options.store or list(STORES)))
    console.print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
