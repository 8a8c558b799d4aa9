"""The objects `header` and `mask` of a series: what is the same for all of its images."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from parvis_services.stores.layout import Layout
from parvis_services.stream.events import Header, SeriesStart

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import TypeAdapter

FORMAT: Final = "parvis-series-header"
VERSION: Final = 1

_LARGEST: Final = 4 << 20  # bytes of a header
_LARGEST_LITERAL: Final = 1 << 18
_MOST_PIXELS: Final = 1 << 28


class BadHeader(ValueError):
    """An object is no header, or no mask, of a series."""


def dump_header(start: SeriesStart, dcid: int, layout: Layout = "standard") -> bytes:
    """The object `header`.

    Args:
        start: What the detector said at the start of the series.
        dcid: ID of the data collection.
        layout: `standard`: JSON that says all of it. `prototype`: the detector's configuration as SIMPLON
            names it, which is what the prototype's tools read.
    """
    import orjson

    from parvis_services.stream.simplon import config_of

    if layout == "prototype":
        return orjson.dumps({**config_of(start.header), **start.config})
    content = {
        "format": FORMAT,
        "version": VERSION,
        "dcid": dcid,
        "series": start.series,
        "unique_id": start.unique_id,
        "header": asdict(start.header),
        "appendix": start.appendix,
        "config": start.config,
    }
    return orjson.dumps(content)


def load_header(data: bytes) -> Header:
    """Read the object `header`, of either layout.

    Raises:
        BadHeader: It is none.
    """
    from pydantic import ValidationError

    from parvis_services.stream.simplon import header_of

    content = read_mapping(data)
    if content.get("format") != FORMAT:
        header = header_of(content)
    elif content.get("version") != VERSION:
        raise BadHeader(
            f"the header has version {str(content.get('version'))[:20]!r}; {VERSION} is known here"
        )
    else:
        try:
            header = _adapter().validate_python(content.get("header"))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BadHeader(f"the header cannot be read: {place}: {first['msg']}") from None
    if header.shape is not None and not (min(header.shape) > 0 and math.prod(header.shape) <= _MOST_PIXELS):
        raise BadHeader(f"a detector cannot have {header.shape[0]} x {header.shape[1]} pixels")
    return header


def dump_mask(mask: NDArray[np.uint32]) -> tuple[bytes, dict[str, str]]:
    """The object `mask`, and its metadata: the mask packed as images are (`bslz4`).

    Args:
        mask: For each pixel (rows, columns) what is wrong with it, bits as NXmx has them, 0 for nothing.
    """
    import h5py
    import hdf5plugin
    import numpy as np

    counts = np.ascontiguousarray(mask, np.uint32)
    with h5py.File("mask", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("mask", data=counts, chunks=counts.shape, **hdf5plugin.Bitshuffle())
        file.flush()
        _, packed = dataset.id.read_direct_chunk((0, 0))
    shape = f"{counts.shape[0]},{counts.shape[1]}"
    return bytes(packed), {"shape": shape, "dtype": "uint32", "encoding": "bslz4"}


def load_mask(data: bytes, metadata: Mapping[str, str]) -> NDArray[np.uint32]:
    """Read the object `mask`, as `dump_mask` made it.

    Raises:
        BadHeader: It is none.
    """
    from parvis_services.stores.frame_metadata import BadMetadata, read_metadata
    from parvis_services.xray.images import Buffers
    from parvis_services.xray.stored_image import decode

    try:
        how = read_metadata(metadata)
    except BadMetadata as error:
        raise BadHeader(f"this is no mask: {error}") from None
    if (how.dtype, how.encoding) != ("uint32", "bslz4"):
        raise BadHeader(f"a mask is stored as uint32 and bslz4, not as {how.dtype} and {how.encoding}")
    try:
        return decode(data, "bslz4", how.shape, "uint32", Buffers())
    except ValueError as error:
        raise BadHeader(f"the mask cannot be read: {error}") from None


@cache
def _adapter() -> TypeAdapter[Header]:
    from pydantic import TypeAdapter

    return TypeAdapter(Header)


def read_mapping(data: bytes) -> dict[str, Any]:
    """Read a mapping that is written as JSON, or as Python writes it: file writers keep SIMPLON's in both.

    Raises:
        BadHeader: It is none.
    """
    import orjson

    if len(data) > _LARGEST:
        raise BadHeader(f"the header has {len(data)} bytes, more than {_LARGEST}")
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        content = _literal(data, str(error))
    if not isinstance(content, dict):
        raise BadHeader(f"the header must be a mapping, it is a {type(content).__name__}")
    return cast("dict[str, Any]", content)


def _literal(data: bytes, problem: str) -> Any:
    """Read what Python writes for a mapping: some detector configurations in HDF5 files are such."""
    if len(data) <= _LARGEST_LITERAL:
        try:
            return ast.literal_eval(data.decode().strip("\0 \n"))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pass
    raise BadHeader(f"the header is no JSON: {problem[:200]}") from None
