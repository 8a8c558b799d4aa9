"""The 19 real frames of a grid scan: how they arrive, and what must come of them."""

from __future__ import annotations

import bz2
import json
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from facility import Scan
from parvis_services.demo.stage import Listener
from parvis_services.simulate.collect import copy_frames
from real_data import real_data
from waiting import wait_until

FRAMES = 19
COMPRESSED = "thau_3_2_####.cbf.bz2"
PLAIN = "thau_3_2_####.cbf"
BEST_IMAGE = 3
INTEGERS = ("n_spots_total", "n_spots_no_ice", "n_spots_4A", "total_intensity")


def real_frames() -> list[Path]:
    return sorted(real_data("thaumatin_grid").glob("*.cbf.bz2"))


def plain_frames(directory: Path) -> list[Path]:
    """The same frames decompressed, for tests that look at them many times; made once in a directory."""
    directory.mkdir(exist_ok=True)
    frames = [directory / original.stem for original in real_frames()]

    def decompress(frame: Path, original: Path) -> None:
        if not frame.exists():
            frame.write_bytes(bz2.decompress(original.read_bytes()))

    with ThreadPoolExecutor() as threads:
        list(threads.map(decompress, frames, real_frames()))
    return frames


def reference() -> dict[int, dict[str, Any]]:
    """What DIALS says of some of the frames, by image number."""
    content = json.loads(real_data("dials_reference.json").read_text())
    prefix = "thaumatin_grid/thau_3_2_"
    return {
        int(name.removeprefix(prefix)[:4]): fields
        for name, fields in content["images"].items()
        if name.startswith(prefix)
    }


def collect(
    frames: Sequence[Path], directory: Path, seed: int = 1, longest_interval: float = 0.15
) -> threading.Thread:
    """Copy frames one by one at random intervals, in a thread."""
    chance = random.Random(seed)
    intervals = [chance.uniform(0, longest_interval) for _ in range(FRAMES)]
    thread = threading.Thread(target=copy_frames, args=(frames, directory, intervals))
    thread.start()
    return thread


def lines_of(scan: Scan) -> dict[int, dict[str, Any]]:
    """What was written of each image, by its number in the scan; none may be there twice."""
    lines = [json.loads(line) for line in scan.wait_for_result("results.jsonl").read_text().splitlines()]
    by_number = {line["file-number"]: line for line in lines}
    assert len(by_number) == len(lines), "an image was written twice"
    return by_number


def check_results(scan: Scan, gda: Listener, timeout: float = 100) -> None:
    """Wait for everything that must come of the real frames, and compare it with DIALS."""
    centring = scan.wait_for_result("Dials5AResults.json", timeout)
    wait_until(lambda: len(scan.rows()) == FRAMES, timeout, "a row for each image")
    wait_until(lambda: len(set(gda.images(scan.dcid))) == FRAMES, timeout, "a datagram for each image")
    wait_until(lambda: len(lines_of(scan)) == FRAMES, timeout, "a line for each image")
    centre = json.loads(centring.read_text())
    assert centre["status"] == "ok"
    assert centre["best_image"] == BEST_IMAGE
    found = lines_of(scan)
    check_numbers(found)
    assert scan.rows() == [(number, found[number]["n_spots_total"]) for number in range(1, FRAMES + 1)]


def check_numbers(found: dict[int, dict[str, Any]]) -> None:
    """Compare what was found on each frame with what DIALS finds."""
    expected = reference()
    assert len(expected) == 6
    for number, fields in expected.items():
        for name in INTEGERS:
            assert found[number][name] == fields[name], f"image {number}: {name}"
        for name in fields.keys() - {*INTEGERS, "n_strong_pixels"}:
            assert found[number][name] == pytest.approx(fields[name], rel=1e-6), f"image {number}: {name}"
