"""Small series of a detector, with known counts, for tests of what writes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvis_services.stream.events import Encoding, Frame, Header, SeriesStart
from stored_frames import pack

SHAPE = (48, 70)
HEADER = Header(
    shape=SHAPE,
    dtype="uint32",
    images=10,
    pixel_size=(80e-6, 75e-6),
    beam_centre=(19.7, 30.4),
    distance=0.1714,
    wavelength=0.9795,
    energy=12658.0,
    saturation=121774,
    thickness=450e-6,
    material="Si",
    count_time=0.0099,
    frame_time=0.01,
    description="EIGER2 Si",
    serial="E-00-0000",
    axes={"omega": (15.0, 0.1), "chi": (30.0, 0.0)},
    threshold=6329.0,
    countrate_corrected=True,
    flatfield_corrected=True,
)


def mask() -> NDArray[np.uint32]:
    """A gap between modules, and a dead pixel."""
    made = np.zeros(SHAPE, np.uint32)
    made[20:23] = 1
    made[5, 6] = 2
    return made


def counts(number: int, dtype: str = "uint32") -> NDArray[Any]:
    """The counts of an image (from 0): no two images are the same."""
    made = np.random.default_rng(number).poisson(3, SHAPE).astype(dtype)
    made[20:23] = np.iinfo(dtype).max
    return made


def start(series: int = 7, **more: Any) -> SeriesStart:
    """The start of a series of the data collection 4711; `more` is of the header."""
    appendix = more.pop("appendix", {"dcid": 4711})
    unique_id = more.pop("unique_id", None)
    return SeriesStart(
        series,
        unique_id,
        header=replace(HEADER, **more),
        mask=mask(),
        appendix=appendix,
        config={"description": "EIGER2 Si", "nimages": 10, "bit_depth_image": 32},
    )


def frame(number: int, series: int = 7, encoding: Encoding = "bslz4", dtype: str = "uint32") -> Frame:
    """An image of it, from 0."""
    return Frame(series, number, memoryview(pack(counts(number, dtype), encoding)), encoding, dtype, SHAPE)
