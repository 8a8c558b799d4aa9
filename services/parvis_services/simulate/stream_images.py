"""What a simulated detector streams: images of files or of a synthetic scan, packed before they are sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from parvis_services.stream.events import Frame, SeriesStart
from parvis_services.stream.image_files import PackedFrame, open_series, packed_frame, pixel_mask

if TYPE_CHECKING:
    from pathlib import Path

    from parvis_services.simulate.collect import GridScan


@dataclass(frozen=True)
class StreamImages:
    """The images of a series, packed.

    Attributes:
        start: What the detector says first; the number of the series is 0.
        frames: The images in order.
        centre: The crystal's true middle (x, y) in grid boxes, of a synthetic scan.
    """

    start: SeriesStart
    frames: Sequence[Frame]
    centre: tuple[float, float] | None = None


def images_of_files(files: Sequence[Path], prepared: Callable[[int], None] = lambda _: None) -> StreamImages:
    """Take images from files.

    Args:
        files: As `open_series` takes them.
        prepared: Called with the number of images that are ready, after each.

    Raises:
        NoSeries, ImageError: As `open_series`; or an image cannot be read.
    """
    series = open_series(files)
    frames: list[Frame] = []
    for packed in series.frames():
        frames.append(_frame(packed, len(frames)))
        prepared(len(frames))
    return StreamImages(SeriesStart(0, header=series.header, mask=series.mask), frames)


def images_of_scan(scan: GridScan, prepared: Callable[[int], None] = lambda _: None) -> StreamImages:
    """Simulate the images of a grid scan; `prepared` is called with the number that are ready, after each."""
    facts = replace(scan.header.facts(scan.detector.shape, scan.grid.size), dtype="uint32")
    start = SeriesStart(0, header=facts)
    frames: list[Frame] = []
    for image in scan.images():
        if start.mask is None:
            start = replace(start, mask=pixel_mask(image))
        frames.append(_frame(packed_frame(image), len(frames)))
        prepared(len(frames))
    return StreamImages(start, frames, scan.mounted.centre)


def _frame(packed: PackedFrame, number: int) -> Frame:
    return Frame(0, number, packed.data, packed.encoding, packed.dtype, packed.shape)
