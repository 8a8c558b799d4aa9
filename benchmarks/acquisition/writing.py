"""From the stream to HDF5 in memory: what the writer takes, beside bare sockets and bare memory."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq
from children import Camera, camera, pushing
from images import PACKED, stream_images
from rich.table import Table
from serving import Services, services, wait_until

RATES: Final = {"1 MB": 900, "4 MB": 300}
"""Frames a second that are wanted."""

_SECONDS: Final = 5
_SLOTS: Final = 512
_TOUCHED: Final = 12 << 30
"""Bytes of memory to use once before: a virtual machine gets a page when it first uses it, which is slow."""

_STEP: Final = 1.25
_MOST_STEPS: Final = 8


@dataclass(frozen=True)
class Rate:
    """How fast it went.

    Attributes:
        frames: A second.
        lost: Of how many nothing is in the file; None where nothing can be lost.
        cpu: CPU seconds a second of whoever received and wrote.
    """

    frames: float
    lost: int | None = None
    cpu: float = 0.0


def table(files: Sequence[Path], scratch: Path) -> Table:
    """Measure all of it."""
    shown = Table(
        title="Stream to HDF5 in memory, frames/s (lost; CPU of receiving and writing, cores)",
        title_justify="left",
    )
    sizes = list(RATES)
    for column in ("", *sizes):
        shown.add_column(column)
    rows: dict[str, dict[str, Rate]] = {}
    _touch(scratch / "touched")
    for size in sizes:
        for name, rate in measured(files, size, scratch):
            rows.setdefault(name, {})[size] = rate
    for name, rates in rows.items():
        shown.add_row(name, *(_shown(rates[size]) for size in sizes))
    return shown


def _shown(rate: Rate) -> str:
    lost = "" if rate.lost is None else f"{rate.lost} lost"
    cpu = f"{rate.cpu:.2f}" if rate.cpu else ""
    more = ", ".join(one for one in (lost, cpu) if one)
    return f"{rate.frames:,.0f}" + (f" ({more})" if more else "")


def measured(files: Sequence[Path], size: str, scratch: Path) -> Iterator[tuple[str, Rate]]:
    """What is measured at one size, by name."""
    few, number = files[:3], RATES[size] * _SECONDS
    yield "limit: bare socket", _through_socket(few, size, number, None)
    yield "limit: plain file, no socket", _to_file(few, size, number, scratch / "plain")
    yield "limit: bare socket to plain file", _through_socket(few, size, number, scratch / "plain")
    with camera() as detector:
        detector.prepare(few, size)
        with writer(detector, few, scratch, size, ring=False) as running:
            yield (
                "HDF5Writer, from the detector, as fast as it takes it",
                _at(detector, running, few, size, None, scratch),
            )
            yield (
                "HDF5Writer, from the detector, at the rate wanted",
                _at(detector, running, few, size, RATES[size], scratch),
            )
        with writer(detector, few, scratch, size, ring=True) as running:
            yield (
                "HDF5Writer, through the ring, at the rate wanted",
                _at(detector, running, few, size, RATES[size], scratch),
            )
            yield (
                "HDF5Writer, through the ring, the fastest rate without loss",
                _fastest(detector, running, few, size, scratch),
            )


@contextmanager
def writer(
    camera: Camera, files: Sequence[Path], scratch: Path, size: str, *, ring: bool
) -> Iterator[Services]:
    """The writer, and the receiver if there is a ring."""
    settings: dict[str, Any] = {
        "stream": camera.address,
        "directory": str(scratch / "hdf5"),
        "when_slow": "drop" if ring else "block",
    }
    names = {"HDF5Writer": 1}
    if ring:
        slot = 1.1 * PACKED[size] / 1_000_000
        settings["ring"] = {"name": f"benchmark-{time.time_ns()}", "slots": _SLOTS, "slot_megabytes": slot}
        names = {"StreamReceiver": 1, **names}
    directory = scratch / f"writer-{size.replace(' ', '')}-{ring}"
    storage = {"parvis.detectors": {"eiger": settings}, "parvis.state_directory": str(directory / "state")}
    with services(directory, storage, names) as (running, _):
        for name in names:
            wait_until(lambda name=name: "ready" in running.log(name), f"{name} to start")
        _at(camera, running, files, size, RATES[size] / 2, scratch)  # once around the ring
        yield running


_series = iter(range(1, 1_000_000))


def _at(
    camera: Camera, running: Services, files: Sequence[Path], size: str, rate: float | None, scratch: Path
) -> Rate:
    """Let the detector send at a rate, or as fast as it can, and see what is in the files in the end."""
    dcid = next(_series)
    before = sum(running.cpu().values())
    frames = (rate or RATES[size]) * _SECONDS
    series = camera.send(files, size, rate, round(frames / len(files)), 1, dcid)
    summary = _summary(scratch, dcid)
    took = summary["last_seen"] - series.times[0]
    cpu = sum(running.cpu().values()) - before
    for file in (scratch / "hdf5").glob(f"{dcid}_*"):
        file.unlink()
    return Rate(summary["written"] / took, series.sent.images - summary["written"], cpu / took)


def _fastest(camera: Camera, running: Services, files: Sequence[Path], size: str, scratch: Path) -> Rate:
    """The fastest of growing rates at which nothing is lost and the detector keeps its pace."""
    best, wanted = Rate(0), RATES[size] / 2
    for _ in range(_MOST_STEPS):
        rate = _at(camera, running, files, size, wanted, scratch)
        if rate.lost or rate.frames < 0.97 * wanted:
            break
        best, wanted = rate, wanted * _STEP
    return best


def _summary(scratch: Path, dcid: int) -> Mapping[str, Any]:
    """What the writer says of a series when it is over."""
    path = scratch / "hdf5" / f"{dcid}_1_summary.json"
    wait_until(lambda: path.exists() and json.loads(path.read_text())["ended"], f"{path.name}")
    return json.loads(path.read_text())


def _touch(target: Path) -> None:
    free = os.statvfs(target.parent)
    megabyte = bytes(1 << 20)
    with target.open("wb", buffering=0) as file:
        for _ in range(min(_TOUCHED, free.f_bavail * free.f_frsize // 2) >> 20):
            file.write(megabyte)
    target.unlink()


def _through_socket(files: Sequence[Path], size: str, number: int, target: Path | None) -> Rate:
    """Receive messages and do nothing with them, or write them to a file one after the other."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket, contextlib.ExitStack() as stack:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        file = stack.enter_context(target.open("wb", buffering=0)) if target else None
        stack.enter_context(pushing(f"tcp://127.0.0.1:{port}", files, size, number))
        begun = cpu = 0.0
        for place in range(number):
            message = socket.recv(copy=False)
            if not place:
                begun, cpu = time.monotonic(), time.process_time()
            if file:
                file.write(message.buffer)
        took, cpu = time.monotonic() - begun, time.process_time() - cpu
    if target:
        target.unlink()
    return Rate((number - 1) / took, None, cpu / took)


def _to_file(files: Sequence[Path], size: str, number: int, target: Path) -> Rate:
    """Write the same bytes to a file one after the other."""
    frames = stream_images(files, size).frames
    with target.open("wb", buffering=0) as file:
        begun, cpu = time.monotonic(), time.process_time()
        for place in range(number):
            file.write(frames[place % len(frames)].data)
        took, cpu = time.monotonic() - begun, time.process_time() - cpu
    target.unlink()
    return Rate(number / took, None, cpu / took)
