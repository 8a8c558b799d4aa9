"""DECTRIS Stream V1, which SIMPLON calls legacy: messages of several parts, JSON and arrays in turn.

Source: the description of the SIMPLON stream interface 1.8. What a part is, its `htype` says and not its
place: some senders put a header and the first image into one message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from parvis_services.stream.encoding import check_size, parse_v1, raw_size, v1_name
from parvis_services.stream.events import (
    Bytes,
    Event,
    Frame,
    HeaderDetail,
    MalformedStream,
    SeriesEnd,
    SeriesStart,
)
from parvis_services.stream.masks import flatfield_or_ones, mask_of, mask_or_zeros
from parvis_services.stream.simplon import config_of, header_of
from parvis_services.stream.values import mapping, needed, number, pair, parse_json, shown, text

if TYPE_CHECKING:
    from parvis_services.stream.masks import FlatField, Mask

_JSON_STARTS: Final = b"{ \t\r\n"
_NANOSECONDS: Final = 1_000_000_000
_HTYPES: Final = frozenset(
    {
        "dheader-1.0",
        "dflatfield-1.0",
        "dpixelmask-1.0",
        "dcountrate_table-1.0",
        "dimage-1.0",
        "dimage_d-1.0",
        "dconfig-1.0",
        "dseries_end-1.0",
    }
)
_LONGEST_JSON: Final = 1 << 20  # of a part that may say what it is; a configuration may be longer


def decode(parts: Sequence[memoryview]) -> list[Event]:
    """Read a message.

    Args:
        parts: Its parts. The frames keep theirs alive.

    Raises:
        MalformedStream: It cannot be read.
    """
    reader = _Parts(parts)
    events: list[Event] = []
    while not reader.is_at_end:
        described = reader.described()
        if described is None:
            raise MalformedStream(f"part {reader.position + 1} of the message does not say what it is")
        htype = described["htype"]
        if htype == "dheader-1.0":
            events.append(_start(described, reader))
        elif htype == "dimage-1.0":
            events.append(_image(described, reader))
        elif htype == "dseries_end-1.0":
            events.append(SeriesEnd(needed(described, "series")))
        else:
            raise MalformedStream(f"part {reader.position} of the message is a {htype!r} on its own")
    if not events:
        raise MalformedStream("the message is empty")
    return events


def encode(event: Event, *, detail: HeaderDetail = "all", flatfield: FlatField | None = None) -> list[Bytes]:
    """Write an event as a message.

    Args:
        event: A series that starts, with a shape if all is to be told; a frame; the end.
        detail: How much the start tells: `all` has the flat field, the mask and the count-rate table.
        flatfield: The factors of the flat field, by pixel; ones if not given.

    Returns:
        The parts of the message; the data of a frame is not copied.

    Raises:
        ValueError: A frame has an encoding that this format has not, or a start does not say the shape.
    """
    if isinstance(event, SeriesEnd):
        return [_dump({"htype": "dseries_end-1.0", "series": event.series})]
    if isinstance(event, SeriesStart):
        return _encoded_start(event, detail, flatfield)
    rows, columns = event.shape
    described = {
        "htype": "dimage_d-1.0",
        "shape": [columns, rows],
        "type": event.dtype,
        "encoding": v1_name(event.encoding, event.dtype),
        "size": event.data.nbytes,
    }
    times = {"start_time": event.start_time, "stop_time": event.stop_time, "real_time": event.real_time}
    parts: list[Bytes] = [
        _dump(
            {"htype": "dimage-1.0", "series": event.series, "frame": event.number, "hash": event.hash or ""}
        ),
        _dump(described),
        event.data,
        _dump(
            {"htype": "dconfig-1.0"}
            | {name: round((time or 0) * _NANOSECONDS) for name, time in times.items()}
        ),
    ]
    return [*parts, *_appendix(event.appendix)]


def _encoded_start(start: SeriesStart, detail: HeaderDetail, flatfield: FlatField | None) -> list[Bytes]:
    parts: list[Bytes] = [_dump({"htype": "dheader-1.0", "series": start.series, "header_detail": detail})]
    if detail != "none":
        parts.append(_dump({**start.config, **config_of(start.header)}))
    if detail == "all":
        import numpy as np

        if start.header.shape is None:
            raise ValueError("a header with all details needs the shape of the frames")
        rows, columns = start.header.shape
        arrays = {
            "dflatfield-1.0": ("float32", [columns, rows], flatfield_or_ones(flatfield, start.header.shape)),
            "dpixelmask-1.0": ("uint32", [columns, rows], mask_or_zeros(start.mask, start.header.shape)),
            "dcountrate_table-1.0": ("float32", [2, 2], np.array([[0, 1e6], [0, 1e6]], "<f4")),
        }
        for htype, (kind, shape, array) in arrays.items():
            parts += [_dump({"htype": htype, "shape": shape, "type": kind}), memoryview(array.tobytes())]
    return [*parts, *_appendix(start.appendix)]


def _appendix(value: Any) -> list[Bytes]:
    if value is None:
        return []
    return [value.encode() if isinstance(value, str) else _dump(value)]


def _dump(value: Any) -> bytes:
    import orjson

    return orjson.dumps(value)


class _Parts:
    """The parts of a message, read one after the other."""

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self.position = 0
        self._parts = parts

    @property
    def is_at_end(self) -> bool:
        return self.position >= len(self._parts)

    def take(self, what: str) -> memoryview:
        """The next part. Raises MalformedStream if there is none."""
        if self.is_at_end:
            raise MalformedStream(f"the message ends after {len(self._parts)} parts, before {what}")
        self.position += 1
        return self._parts[self.position - 1]

    def described(self, *wanted: str) -> Mapping[str, Any] | None:
        """The next part, if its `htype` is one of those `wanted`, or any if none is named; else None."""
        if self.is_at_end:
            return None
        part = self._parts[self.position]
        if not part.nbytes or part.nbytes > _LONGEST_JSON or part[0] not in _JSON_STARTS:
            return None
        try:
            read = mapping(parse_json(part))
        except MalformedStream:
            return None
        htype = read.get("htype")
        if isinstance(htype, str) and f"d{htype}" in _HTYPES:  # as some senders leave the d out
            htype = f"d{htype}"
        if htype not in (wanted or _HTYPES):
            return None
        self.position += 1
        return {**read, "htype": htype}

    def appendix(self) -> Any:
        """The next part, if it does not say what it is: text, or what JSON makes of it."""
        position = self.position
        if self.is_at_end or self.described() is not None:
            self.position = position
            return None
        part = self.take("the appendix")
        if part.nbytes > _LONGEST_JSON:
            raise MalformedStream(f"an appendix of {part.nbytes:,} bytes is too large")
        try:
            return parse_json(part)
        except MalformedStream:
            return str(part, "utf-8", "replace")


def _start(described: Mapping[str, Any], parts: _Parts) -> SeriesStart:
    series, detail = needed(described, "series"), described.get("header_detail")
    config: Mapping[str, Any] = {}
    if detail in {"basic", "all"}:
        part = parts.take("the configuration")
        config = mapping(parse_json(part))
    elif detail != "none":
        raise MalformedStream(f"header_detail must be all, basic or none, it is {shown(detail)}")
    mask = None
    while array := parts.described("dflatfield-1.0", "dpixelmask-1.0", "dcountrate_table-1.0"):
        data = parts.take(f"the data of {array['htype']}")
        if array["htype"] == "dpixelmask-1.0":
            mask = _mask(array, data)
    return SeriesStart(series, None, header_of(config), mask, parts.appendix(), config)


def _mask(described: Mapping[str, Any], data: memoryview) -> Mask | None:
    shape = pair(described.get("shape"))
    if shape is None or described.get("type") != "uint32":
        return mask_of(None, data)
    return mask_of((shape[1], shape[0]), data)


def _image(described: Mapping[str, Any], parts: _Parts) -> Frame:
    series, frame = needed(described, "series"), needed(described, "frame")
    form = parts.described("dimage_d-1.0")
    if form is None:
        raise MalformedStream(f"image {frame} does not say its shape, type and encoding")
    shape, dtype, encoding = pair(form.get("shape")), form.get("type"), form.get("encoding")
    if shape is None or not isinstance(dtype, str) or not isinstance(encoding, str):
        raise MalformedStream(f"image {frame}: shape, type or encoding is missing or no good")
    data = parts.take(f"the data of image {frame}")
    size = form.get("size")
    if size is not None and size != data.nbytes:
        raise MalformedStream(f"image {frame} is said to have {shown(size)} bytes, and has {data.nbytes}")
    rows_columns = (shape[1], shape[0])
    raw_size(rows_columns, dtype)
    packed = parse_v1(encoding, dtype)
    check_size(data, packed, rows_columns, dtype)
    times = parts.described("dconfig-1.0") or {}
    return Frame(
        series,
        frame,
        data,
        packed,
        dtype,
        rows_columns,
        hash=text(described.get("hash")),
        start_time=_seconds(times.get("start_time")),
        stop_time=_seconds(times.get("stop_time")),
        real_time=_seconds(times.get("real_time")),
        appendix=parts.appendix(),
    )


def _seconds(nanoseconds: Any) -> float | None:
    found = number(nanoseconds)
    return None if found is None else found / _NANOSECONDS
