"""Messages of detectors whose meaning is known, and series to make others of."""

from __future__ import annotations

from typing import Final

import numpy as np

from parvis_services.stream.events import Encoding, Frame, Header, SeriesStart

PACKED: Final = bytes.fromhex(
    "0000000000000080 00002000 00000027 13aa010013cc010013f001002300ff02002300ff0400400000ffff0c000f02003650"
    "0000000000"
)
"""Bitshuffle and LZ4 of the numbers 0 to 63 as 8 x 8 `uint16`, made by another program."""

V2_RAW: Final = bytes.fromhex(
    "d9d9f7 a5 6474797065 65696d616765 697365726965735f6964 01 707365726965735f756e697175655f6964 6175"
    "68696d6167655f6964 00 6464617461 a1 6b7468726573686f6c645f31 d828 82 82 02 03 d845 4c"
    "000001000200030004000500"
)
"""Image 0 of series 1, `uint16` 0 to 5 as 2 x 3, not packed."""

V2_PACKED: Final = (
    bytes.fromhex(
        "d9d9f7 a5 6474797065 65696d616765 697365726965735f6964 01 707365726965735f756e697175655f6964 6175"
        "68696d6167655f6964 00 6464617461 a1 6b7468726573686f6c645f31 d828 82 82 08 08 d845 d9dcb4 83"
        "6562736c7a34 02 5837"
    )
    + PACKED
)
"""Image 0 of series 1, `PACKED`."""

V2_END: Final = bytes.fromhex(
    "d9d9f7 a3 6474797065 63656e64 697365726965735f6964 01 707365726965735f756e697175655f6964 6175"
)
"""The end of series 1."""

HEADER: Final = Header(
    shape=(8, 8),
    dtype="uint16",
    images=3,
    pixel_size=(75e-6, 75e-6),
    beam_centre=(3.5, 4.5),
    distance=0.2,
    wavelength=0.9795,
    energy=12658.0,
    saturation=50000,
    thickness=0.00045,
    material="Si",
    count_time=0.0099,
    frame_time=0.01,
    description="Dectris EIGER2 Si 4M",
    serial="E-08-0100",
    axes={"omega": (90.0, 0.1), "chi": (0.0, 0.0)},
    threshold=6329.0,
    countrate_corrected=True,
    flatfield_corrected=True,
    bit_depth=16,
)


def series_start(series: int = 7, dcid: int | None = 4077358) -> SeriesStart:
    """The start of a series of three small images."""
    mask = np.zeros((8, 8), np.uint32)
    mask[2, 3] = 1
    return SeriesStart(series, "u", HEADER, mask, None if dcid is None else {"dcid": dcid})


def frame(number: int, series: int = 7, data: bytes = PACKED, encoding: Encoding = "bslz4") -> Frame:
    """An image of such a series; all have the same pixels."""
    return Frame(
        series,
        number,
        memoryview(data),
        encoding,
        "uint16",
        (8, 8),
        "u",
        "threshold_1",
        start_time=round(0.01 * number, 4),
        stop_time=round(0.01 * number + 0.0099, 4),
        real_time=0.0099,
    )
