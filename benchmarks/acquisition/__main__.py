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
from analysing import STORES, line, percentiles  # noqa: E402
from children import in_child, spotfinding_alone  # noqa: E402
from images import plain_frames  # noqa: E402
from machine import describe_machine  # noqa: E402

from real.packages import Unavailable  # noqa: E402
from scans import quick_directory  # noqa: E402

RATES = {10: "16M", 50: "6M", 133: "1M"}
"""Images a second, and how large they are then: what two cores can analyse."""

SECONDS = 10
SPOTFINDING = 10  # times that each frame is looked at
OWN = {"Ceph": ("CephWriter",), "directory": ("CephWriter",), "HDF5 file": ("HDF5Writer", "FileWatcher")}


def latency_and_cost(
    files: list[Path], scratch: Path, rates: dict[int, str], stores: list[str]
) -> list[Table]:
    """Stream at all rates over all stores."""
    latency = Table(title="From the detector to the result, ms", title_justify="left")
    for column in (
        "images/s",
        "size",
        "through",
        "images",
        "identical",
        "missing",
        "stored to result p50",
        "p99",
        "frame to result p50",
        "p99",
    ):
        latency.add_column(column, justify="right")
    cost = Table(title="CPU for an image, ms", title_justify="left")
    for column in (
        "size",
        "through",
        "spotfinding alone",
        "PIA",
        "writer",
        "of both",
        "overhead",
        "images/s/core",
        "Ceph",
        "broker, listener",
    ):
        cost.add_column(column, justify="right")
    alone = {size: in_child(spotfinding_alone, files, size, SPOTFINDING) for size in rates.values()}
    for kind in stores:
        try:
            with line(kind, scratch) as beamline:
                for rate, size in rates.items():
                    beamline.run(files, size, 10, 1, alone[size])  # what is done once is done then
                    repeat = max(1, round(rate * SECONDS / len(files)))
                    run = beamline.run(files, size, rate, repeat, alone[size])
                    stored, streamed = percentiles(run.stored_to_result), percentiles(run.frame_to_result)
                    figures = [f"{value:.0f}" for value in (*stored, *streamed)]
                    latency.add_row(
                        str(rate), size, kind, str(run.images), str(run.identical), str(run.missing), *figures
                    )
                    found, pia = alone[size].seconds, run.cpu["PerImageAnalysis"]
                    writer = sum(run.cpu[name] for name in OWN[kind])
                    spent = [found, pia, writer, pia + writer]
                    cost.add_row(
                        size,
                        kind,
                        *(f"{1000 * one:.1f}" for one in spent),
                        f"{(pia + writer) / found - 1:.0%}",
                        f"{1 / (pia + writer):.0f}",
                        f"{1000 * run.cpu['Ceph']:.1f}",
                        f"{1000 * run.cpu['broker']:.1f}",
                    )
        except Unavailable as error:
            latency.add_row("", "", kind, f"not here: {error}")
    return [latency, cost]


def main() -> None:
    """Measure what is asked for and print tables."""
    parser = argparse.ArgumentParser(description="From a detector's stream to files and results.")
    parser.add_argument("--part", choices=["latency", "writing", "analysis", "all"], default="all")
    parser.add_argument(
        "--rate", type=int, action="append", choices=list(RATES), help="images a second; may be repeated"
    )
    parser.add_argument("--store", action="append", choices=STORES, help="may be repeated")
    options = parser.parse_args()
    console = Console(width=max(170, Console().width))
    console.print(describe_machine("pyzmq", "h5py", "numba", "minio"))
    console.print(f"load before: {os.getloadavg()[0]:.1f}")
    with quick_directory() as scratch:
        files = plain_frames(scratch)
        if options.part in {"writing", "all"}:
            console.print(writing.table(files, scratch))
        if options.part != "writing":
            rates = {rate: RATES[rate] for rate in options.rate or RATES}
            latency, cost = latency_and_cost(files, scratch, rates, options.store or list(STORES))
            if options.part != "analysis":
                console.print(latency)
            if options.part != "latency":
                console.print(cost)
    console.print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
