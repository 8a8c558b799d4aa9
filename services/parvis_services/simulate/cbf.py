"""Mini-CBF files as PILATUS detectors write them, byte-offset compressed, also gzipped or bzipped."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from parvis_services.simulate.placing import Slowly, place

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from parvis_services.simulate.header import Header

PADDING = 4095
BINARY_START = b"\x0c\x1a\x04\xd5"

# A difference that does not fit is announced by the lowest value of the shorter kind of integer.
_STEPS = ((np.int8, 1), (np.int16, 2), (np.int32, 4), (np.int64, 8))


def byte_offset(image: NDArray[Any]) -> bytes:
    """Compress integers by the byte-offset algorithm of imgCIF (Int. Tables Cryst. G, 2.3.3).

    Each value is written as its difference to the one before, in the shortest of 1, 2, 4 or 8 bytes it fits.

    Raises:
        TypeError: the image is not of integers.
    """
    if not np.issubdtype(image.dtype, np.integer):
        raise TypeError(f"only integers can be byte-offset compressed, not {image.dtype}")
    delta = np.diff(image.ravel().astype(np.int64), prepend=np.int64(0))
    # Which kind each difference needs, and how many bytes all its announcements and itself take.
    kind = np.zeros(delta.size, dtype=np.int8)
    for integer, _ in _STEPS[:-1]:
        kind += np.abs(delta) > np.iinfo(integer).max
    widths = np.cumsum([width for _, width in _STEPS])
    ends = np.cumsum(widths[kind])
    out = np.zeros(int(ends[-1]) if ends.size else 0, dtype=np.uint8)
    short = kind == 0
    out[ends[short] - 1] = delta[short].astype(np.int8).view(np.uint8)
    for longer, (_, width) in enumerate(_STEPS[1:], start=1):
        chosen = np.flatnonzero(kind == longer)
        announcement = b"".join(np.array(np.iinfo(i).min, f"<i{w}").tobytes() for i, w in _STEPS[:longer])
        start = ends[chosen] - len(announcement) - width
        for byte, value in enumerate(announcement):
            out[start + byte] = value
        encoded = delta[chosen].astype(f"<i{width}").view(np.uint8).reshape(-1, width)
        out[(start + len(announcement))[:, np.newaxis] + np.arange(width)] = encoded
    return out.tobytes()


def cbf_bytes(image: NDArray[Any], header: Header, name: str, frame: int = 0) -> bytes:
    """A mini-CBF file.

    Args:
        image: counts (rows, columns), integers of at most 32 bits; negative where no pixel is.
        header: the acquisition.
        name: of the data block, without extension.
        frame: place (from 0) of the image in its series, for the rotation angle.

    Raises:
        ValueError: a pixel does not fit into 32 bits with a sign, or the image is not two-dimensional.
    """
    if image.ndim != 2 or not image.size:
        raise ValueError(f"an image has rows and columns, not the shape {image.shape}")
    if image.max() > np.iinfo(np.int32).max or image.min() < np.iinfo(np.int32).min:
        raise ValueError("a mini-CBF holds integers of 32 bits with a sign; this image has larger ones")
    packed = byte_offset(image)
    digest = base64.b64encode(hashlib.md5(packed, usedforsecurity=False).digest()).decode()
    rows, columns = image.shape
    lines = [
        "###CBF: VERSION 1.5, CBFlib v0.7.8 - PILATUS detectors",
        "",
        f"data_{re.sub(r'[^!-~]', '_', name)}",
        "",
        '_array_data.header_convention "PILATUS_1.2"',
        "_array_data.header_contents",
        ";",
        *header.mini_cbf_lines(frame),
        ";",
        "",
        "_array_data.data",
        ";",
        "--CIF-BINARY-FORMAT-SECTION--",
        "Content-Type: application/octet-stream;",
        '     conversions="x-CBF_BYTE_OFFSET"',
        "Content-Transfer-Encoding: BINARY",
        f"X-Binary-Size: {len(packed)}",
        "X-Binary-ID: 1",
        'X-Binary-Element-Type: "signed 32-bit integer"',
        "X-Binary-Element-Byte-Order: LITTLE_ENDIAN",
        f"Content-MD5: {digest}",
        f"X-Binary-Number-of-Elements: {image.size}",
        f"X-Binary-Size-Fastest-Dimension: {columns}",
        f"X-Binary-Size-Second-Dimension: {rows}",
        f"X-Binary-Size-Padding: {PADDING}",
        "",
        "",
    ]
    end = "\r\n--CIF-BINARY-FORMAT-SECTION----\r\n;\r\n\r\n"
    return b"".join(
        ["\r\n".join(lines).encode("ascii", "replace"), BINARY_START, packed, bytes(PADDING), end.encode()]
    )


def write_cbf(
    path: Path, image: NDArray[Any], header: Header, frame: int = 0, slowly: Slowly | None = None
) -> None:
    """Write a mini-CBF; a name that ends in ``.gz`` or ``.bz2`` is compressed again.

    Args:
        path: where; see `cbf_bytes` for the rest.
        slowly: None to have it appear complete, or how to let it grow in place.

    Raises:
        FileExistsError: the file is there already.
        ValueError: the image cannot be written as a mini-CBF.
    """
    name = path.name.removesuffix(path.suffix) if path.suffix in {".gz", ".bz2"} else path.name
    data = cbf_bytes(image, header, name.removesuffix(".cbf"), frame)
    if path.suffix == ".gz":
        data = gzip.compress(data, compresslevel=1, mtime=0)
    elif path.suffix == ".bz2":
        data = bz2.compress(data, compresslevel=1)
    place(path, data, slowly)
