"""Real frames in the sizes that are wanted, as a detector would stream them."""

from __future__ import annotations

import bz2
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from parvis_services.simulate.stream_images import StreamImages
from parvis_services.stream.events import Frame, SeriesStart
from parvis_services.stream.image_files import open_series, packed_frame, pixel_mask
from parvis_services.xray.images import open_image

DATA: Final = Path(os.environ.get("PARVIS_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
FRAMES: Final = 19
CUTS: Final = {"1M": (1065, 1030)}
TILED: Final = {"16M": (4362, 4148)}
PACKED: Final = {"1 MB": 1_000_000, "4 MB": 4_000_000}
"""Frames of so many bytes when they are packed: as much of the real ones, above each other, as it takes."""


def plain_frames(directory: Path) -> list[Path]:
    """Decompress the real frames into a directory."""
    originals = sorted((DATA / "thaumatin_grid").glob("*.cbf.bz2"))
    if len(originals) != FRAMES:
        raise SystemExit(f"{DATA} does not hold the {FRAMES} frames (set PARVIS_TEST_DATA)")

    def decompress(original: Path) -> Path:
        plain = directory / original.stem
        plain.write_bytes(bz2.decompress(original.read_bytes()))
        return plain

    with ThreadPoolExecutor() as threads:
        return list(threads.map(decompress, originals))


def stream_images(files: Sequence[Path], size: str) -> StreamImages:
    """The frames of some files, cut or put beside and above each other to a size; `6M` is theirs."""
    counts = [open_image(file).data[0] for file in files]
    header = open_series(files).header
    assert header.beam_centre is not None
    first, top, left = counts[0], 0, 0
    if size in CUTS:
        (rows, columns), (row, column) = CUTS[size], map(round, header.beam_centre)
        top, left = row - rows // 2, column - columns // 2
        counts = [one[top : top + rows, left : left + columns] for one in counts]
    elif size in TILED:
        counts = [_tiled(one, TILED[size]) for one in counts]
    elif size in PACKED:
        rows = round(first.shape[0] * PACKED[size] / packed_frame(first).data.nbytes)
        counts = [_tiled(one, (rows, first.shape[1])) for one in counts]
    shape = (counts[0].shape[0], counts[0].shape[1])
    centre = header.beam_centre[0] - top, header.beam_centre[1] - left
    told = replace(header, shape=shape, beam_centre=centre)
    frames = [_frame(number, np.ascontiguousarray(one)) for number, one in enumerate(counts)]
    return StreamImages(SeriesStart(0, header=told, mask=pixel_mask(counts[0])), frames)


def _tiled(counts: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    times = [-(-wanted // there) for wanted, there in zip(shape, counts.shape, strict=True)]
    return np.tile(counts, times)[: shape[0], : shape[1]]


def _frame(number: int, counts: NDArray[Any]) -> Frame:
    packed = packed_frame(counts)
    return Frame(0, number, packed.data, packed.encoding, packed.dtype, packed.shape)
