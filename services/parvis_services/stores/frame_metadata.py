"""The metadata of the object of an image: what it takes to decode it, and where it comes from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from parvis_services.stream.events import Encoding

if TYPE_CHECKING:
    from parvis_services.stream.events import Frame

DTYPES: Final = frozenset({"uint8", "uint16", "uint32"})

_ENCODINGS: Final = frozenset(get_args(Encoding))
_MOST_PIXELS: Final = 1 << 28
_SHAPE: Final = re.compile(r"([1-9][0-9]{0,8}),([1-9][0-9]{0,8})", re.ASCII)
_NOT_ASCII: Final = re.compile(r"[^\x21-\x7e]+")
_LONGEST_HASH: Final = 128


class BadMetadata(ValueError):
    """The metadata of an object do not say what an image's must."""


@dataclass(frozen=True, slots=True)
class FrameMetadata:
    """How an image is stored.

    Attributes:
        shape: Pixels (rows, columns).
        dtype: Type of a count: `uint8`, `uint16`, `uint32`.
        encoding: How the counts are packed.
        frame: Number of the image in its series, from 1, as in its key; None if not said.
        series: Number of the series; None if not said.
        hash: What the detector says of the content; not to be relied on.
        sha256: Checksum of what is stored, in hexadecimal digits: the store writes and checks it.
        received: When the image came from the detector, seconds since 1970.
    """

    shape: tuple[int, int]
    dtype: str
    encoding: Encoding
    frame: int | None = None
    series: int | None = None
    hash: str | None = None
    sha256: str | None = None
    received: float | None = None


def metadata_of(frame: Frame, received: float) -> dict[str, str]:
    """The metadata to store an image with. The checksum is not among them: the store adds it.

    Args:
        frame: The image.
        received: When it came from the detector, seconds since 1970.
    """
    metadata = {
        "shape": f"{frame.shape[0]},{frame.shape[1]}",
        "dtype": frame.dtype,
        "encoding": frame.encoding,
        "frame": str(frame.number + 1),
        "series": str(frame.series),
        "received": f"{received:.6f}",
    }
    if frame.hash:
        metadata["hash"] = _NOT_ASCII.sub("?", frame.hash)[:_LONGEST_HASH]
    return metadata


def read_metadata(metadata: Mapping[str, str]) -> FrameMetadata:
    """Read what `metadata_of` made, and the checksum of the store.

    Raises:
        BadMetadata: It does not say how the counts are to be decoded: it is no image of ours.
    """
    match = _SHAPE.fullmatch(metadata.get("shape", ""))
    if match is None or int(match[1]) * int(match[2]) > _MOST_PIXELS:
        raise _bad(metadata, "shape", "two numbers, rows and columns")
    dtype = metadata.get("dtype", "")
    if dtype not in DTYPES:
        raise _bad(metadata, "dtype", "one of " + ", ".join(sorted(DTYPES)))
    encoding = metadata.get("encoding", "")
    if encoding not in _ENCODINGS:
        raise _bad(metadata, "encoding", "one of " + ", ".join(sorted(_ENCODINGS)))
    return FrameMetadata(
        shape=(int(match[1]), int(match[2])),
        dtype=dtype,
        encoding=cast("Any", encoding),
        frame=_whole(metadata, "frame"),
        series=_whole(metadata, "series"),
        hash=metadata.get("hash"),
        sha256=metadata.get("sha256"),
        received=_seconds(metadata),
    )


def _bad(metadata: Mapping[str, str], name: str, wanted: str) -> BadMetadata:
    found = f"it is {metadata[name][:40]!r}" if name in metadata else "there is none"
    return BadMetadata(f"the metadata {name!r} of an image must be {wanted}; {found}")


def _whole(metadata: Mapping[str, str], name: str) -> int | None:
    text = metadata.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def _seconds(metadata: Mapping[str, str]) -> float | None:
    try:
        seconds = float(metadata["received"])
    except (KeyError, ValueError):
        return None
    return seconds if math.isfinite(seconds) else None
