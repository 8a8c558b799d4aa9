"""DECTRIS Stream V2: each message is one CBOR map.

Source: the description of the SIMPLON stream interface V2, RFC 8949 and, for arrays, RFC 8746.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from parvis_services.stream.cbor import Tag, read_cbor
from parvis_services.stream.encoding import ITEM_SIZES, check_size, parse_v2, raw_size, v2_name
from parvis_services.stream.events import (
    Encoding,
    Event,
    Frame,
    Header,
    HeaderDetail,
    MalformedStream,
    SeriesEnd,
    SeriesStart,
)
from parvis_services.stream.masks import flatfield_or_ones, mask_of, mask_or_zeros
from parvis_services.stream.values import (
    beam_centre,
    mapping,
    needed,
    number,
    pair,
    plain,
    positive,
    shape,
    shown,
    text,
    truth,
    whole,
)

if TYPE_CHECKING:
    from parvis_services.stream.masks import FlatField, Mask

DEFAULT_CHANNEL: Final = "threshold_1"

_SELF_DESCRIBED: Final = 55799
_DATE: Final = 0
_ARRAY: Final = 40
_PACKED: Final = 56500
_TYPES: Final = {64: "uint8", 68: "uint8", 69: "uint16", 70: "uint32"}
_TAGS: Final = {"uint8": 64, "uint16": 69, "uint32": 70}
_FLOAT32: Final = 85
_TICKS: Final = 50_000_000  # of a detector's clock, in a second
_LARGE: Final = ("flatfield", "pixel_mask", "countrate_correction_lookup_table")


def decode(message: memoryview, channel: str | None = None) -> Event:
    """Read a message.

    Args:
        message: It. A frame keeps it alive.
        channel: Which energy threshold to take of an image that has several, or None for the first.

    Raises:
        MalformedStream: It cannot be read, or has no such channel.
    """
    read = read_cbor(message)
    if isinstance(read, Tag) and read.number == _SELF_DESCRIBED:
        read = read.value
    if not isinstance(read, dict):
        raise MalformedStream("the CBOR message is no map")
    content = cast("dict[str, Any]", read)
    kind, series, unique_id = (
        content.get("type"),
        needed(content, "series_id"),
        text(content.get("series_unique_id")),
    )
    if kind == "image":
        return _image(content, series, unique_id, channel)
    if kind == "start":
        return _start(content, series, unique_id, channel)
    if kind == "end":
        return SeriesEnd(series, unique_id)
    raise MalformedStream(f"the type of a message must be start, image or end, it is {shown(kind)}")


def encode(
    event: Event,
    *,
    detail: HeaderDetail = "all",
    channels: Sequence[str] = (DEFAULT_CHANNEL,),
    flatfield: FlatField | None = None,
) -> bytes:
    """Write an event as a message.

    Args:
        event: A series that starts, with a shape if all is to be told; a frame; the end.
        detail: How much the start tells: `all` has the flat field, the mask and the count-rate table.
        channels: Names of the energy thresholds that the start announces.
        flatfield: The factors of the flat field, by pixel; ones if not given.

    Raises:
        ValueError: A frame has an encoding that this format has not, or a start does not say the shape.
    """
    if isinstance(event, SeriesStart):
        return _dumps(_described(event, "start") | _encoded_start(event, detail, channels, flatfield))
    if isinstance(event, SeriesEnd):
        return _dumps(_described(event, "end"))
    times = {
        name: [round(time * _TICKS), _TICKS]
        for name in ("real_time", "start_time", "stop_time")
        if (time := getattr(event, name)) is not None
    }
    message = _described(event, "image") | {"image_id": event.number} | times
    if event.appendix is not None:
        message["user_data"] = event.appendix
    return _with_data(message, event)


def _with_data(message: dict[str, Any], frame: Frame) -> bytes:
    """An image message. The counts come last, so that they are copied only once."""
    import cbor2

    empty: Any = b""
    if frame.encoding != "none":
        element = 0 if frame.encoding == "hdf5-lz4" else ITEM_SIZES[frame.dtype]
        empty = cbor2.CBORTag(_PACKED, [v2_name(frame.encoding), element, b""])
    counts = cbor2.CBORTag(_TAGS[frame.dtype], empty)
    array = cbor2.CBORTag(_ARRAY, [list(frame.shape), counts])
    envelope = _dumps(message | {"data": {frame.channel or DEFAULT_CHANNEL: array}})
    return b"".join((envelope[:-1], _bytes_head(frame.data.nbytes), frame.data))


def _bytes_head(size: int) -> bytes:
    """What stands in front of a byte string of that size."""
    if size < 24:
        return bytes([0x40 | size])
    width = next(width for width in (1, 2, 4, 8) if size < 1 << 8 * width)
    return bytes([0x58 + width.bit_length() - 1]) + size.to_bytes(width, "big")


def _dumps(message: dict[str, Any]) -> bytes:
    import cbor2

    return cbor2.dumps(cbor2.CBORTag(_SELF_DESCRIBED, message))


def _described(event: Event, kind: str) -> dict[str, Any]:
    return {"type": kind, "series_id": event.series, "series_unique_id": event.unique_id or str(event.series)}


def _encoded_start(
    start: SeriesStart, detail: HeaderDetail, channels: Sequence[str], flatfield: FlatField | None
) -> dict[str, Any]:
    message: dict[str, Any] = {"channels": list(channels), **_told_of(start.header, channels)}
    if start.appendix is not None:
        message["user_data"] = start.appendix
    message = {key: value for key, value in message.items() if value is not None}
    if detail == "all":
        message |= _encoded_arrays(start, channels, flatfield)
    return message


def _told_of(header: Header, channels: Sequence[str]) -> dict[str, Any]:
    rows, columns = header.shape or (None, None)
    size_y, size_x = header.pixel_size or (None, None)
    beam_y, beam_x = header.beam_centre or (None, None)
    translation = None
    if header.distance is not None:
        translation = [(beam_x or 0) * (size_x or 0), (beam_y or 0) * (size_y or 0), -header.distance]
    return {
        "beam_center_x": beam_x,
        "beam_center_y": beam_y,
        "count_time": header.count_time,
        "countrate_correction_enabled": header.countrate_corrected,
        "detector_description": header.description,
        "detector_serial_number": header.serial,
        "detector_translation": translation,
        "flatfield_enabled": header.flatfield_corrected,
        "frame_time": header.frame_time,
        "goniometer": {
            axis: {"increment": increment, "start": start} for axis, (start, increment) in header.axes.items()
        },
        "image_dtype": header.dtype,
        "image_size_x": columns,
        "image_size_y": rows,
        "incident_energy": header.energy,
        "incident_wavelength": header.wavelength,
        "number_of_images": header.images,
        "pixel_size_x": size_x,
        "pixel_size_y": size_y,
        "saturation_value": header.saturation,
        "sensor_material": header.material,
        "sensor_thickness": header.thickness,
        "threshold_energy": None if header.threshold is None else dict.fromkeys(channels, header.threshold),
    }


def _encoded_arrays(
    start: SeriesStart, channels: Sequence[str], flatfield: FlatField | None
) -> dict[str, Any]:
    import cbor2
    import numpy as np

    if start.header.shape is None:
        raise ValueError("a start with all details needs the shape of the frames")
    size = list(start.header.shape)
    factors = cbor2.CBORTag(_FLOAT32, flatfield_or_ones(flatfield, start.header.shape).tobytes())
    mask = cbor2.CBORTag(_TAGS["uint32"], mask_or_zeros(start.mask, start.header.shape).tobytes())
    table = cbor2.CBORTag(_TAGS["uint32"], np.arange(2, dtype="<u4").tobytes())
    return {
        "countrate_correction_lookup_table": table,
        "flatfield": dict.fromkeys(channels, cbor2.CBORTag(_ARRAY, [size, factors])),
        "pixel_mask": dict.fromkeys(channels, cbor2.CBORTag(_ARRAY, [size, mask])),
        "pixel_mask_enabled": start.mask is not None,
    }


def _start(
    content: Mapping[str, Any], series: int, unique_id: str | None, channel: str | None
) -> SeriesStart:
    masks = mapping(content.get("pixel_mask"))
    mask = _mask(_of_channel(masks, channel)) if masks else None
    small = {key: value for key, value in content.items() if key not in _LARGE}
    config = cast("dict[str, Any]", plain(small))
    appendix = config.pop("user_data", None)
    return SeriesStart(series, unique_id, _header(config, channel), mask, appendix, config)


def _header(content: Mapping[str, Any], channel: str | None) -> Header:
    dtype = content.get("image_dtype")
    dtype = dtype if isinstance(dtype, str) and dtype in ITEM_SIZES else None
    return Header(
        shape=shape(content, "image_size_y", "image_size_x"),
        dtype=dtype,
        images=whole(content.get("number_of_images")) or None,
        pixel_size=_pixel_size(content),
        beam_centre=beam_centre(content),
        distance=_distance(content.get("detector_translation")),
        wavelength=positive(content.get("incident_wavelength")),
        energy=positive(content.get("incident_energy")),
        saturation=whole(content.get("saturation_value")) or None,
        thickness=positive(content.get("sensor_thickness")),
        material=text(content.get("sensor_material")),
        count_time=positive(content.get("count_time")),
        frame_time=positive(content.get("frame_time")),
        description=text(content.get("detector_description")),
        serial=text(content.get("detector_serial_number")),
        axes=_axes(content.get("goniometer")),
        threshold=positive(_of_channel(mapping(content.get("threshold_energy")), channel)),
        countrate_corrected=truth(content.get("countrate_correction_enabled")),
        flatfield_corrected=truth(content.get("flatfield_enabled")),
        bit_depth=None if dtype is None else 8 * ITEM_SIZES[dtype],
    )


def _of_channel(by_channel: Mapping[str, Any], channel: str | None) -> Any:
    return by_channel.get(next(iter(by_channel), "") if channel is None else channel)


def _pixel_size(content: Mapping[str, Any]) -> tuple[float, float] | None:
    y, x = positive(content.get("pixel_size_y")), positive(content.get("pixel_size_x"))
    return None if y is None or x is None else (y, x)


def _distance(translation: Any) -> float | None:
    """The last of three coordinates, whichever way the axis points."""
    if not isinstance(translation, list) or len(cast("list[Any]", translation)) != 3:
        return None
    z = number(cast("list[Any]", translation)[2])
    return None if not z else abs(z)


def _axes(goniometer: Any) -> dict[str, tuple[float, float]]:
    axes: dict[str, tuple[float, float]] = {}
    for axis, told in mapping(goniometer).items():
        start, increment = number(mapping(told).get("start")), number(mapping(told).get("increment"))
        if start is not None and len(axis) <= 40 and len(axes) < 20:
            axes[axis] = (start, increment or 0.0)
    return axes


def _mask(value: Any) -> Mask | None:
    try:
        size, dtype, encoding, data = _array(value)
    except MalformedStream:
        return mask_of(None, None)
    fits = dtype == "uint32" and encoding == "none"
    return mask_of(size if fits else None, data)


def _image(content: Mapping[str, Any], series: int, unique_id: str | None, channel: str | None) -> Frame:
    image = needed(content, "image_id")
    channels = mapping(content.get("data"))
    chosen = next(iter(channels), "") if channel is None else channel
    if chosen not in channels:
        raise MalformedStream(
            f"image {image} has no channel {shown(chosen)}: {', '.join(channels)[:80] or 'none'}"
        )
    try:
        size, dtype, encoding, data = _array(channels[chosen])
        check_size(data, encoding, size, dtype)
    except MalformedStream as error:
        raise MalformedStream(f"image {image}: {error}") from None
    frame = Frame(series, image, data, encoding, dtype, size, unique_id, chosen[:100])
    return replace(
        frame,
        hash=text(content.get("hash")),
        start_time=_seconds(content.get("start_time")),
        stop_time=_seconds(content.get("stop_time")),
        real_time=_seconds(content.get("real_time")),
        appendix=plain(content.get("user_data")),
    )


def _array(value: Any) -> tuple[tuple[int, int], str, Encoding, memoryview]:
    """Shape, type, packing and data of an array of two dimensions."""
    content = value.value if isinstance(value, Tag) and value.number == _ARRAY else None
    if not isinstance(content, list) or len(cast("list[Any]", content)) != 2:
        raise MalformedStream("the data is no array of rows and columns")
    size, typed = pair(cast("list[Any]", content)[0]), cast("list[Any]", content)[1]
    if size is None or not isinstance(typed, Tag):
        raise MalformedStream("the array does not say its shape and type")
    if typed.number not in _TYPES:
        raise MalformedStream(f"an array of the type with tag {typed.number} is not understood")
    dtype = _TYPES[typed.number]
    raw_size(size, dtype)
    if isinstance(typed.value, memoryview):
        return size, dtype, "none", typed.value
    packed = typed.value.value if isinstance(typed.value, Tag) and typed.value.number == _PACKED else None
    if isinstance(packed, list) and len(cast("list[Any]", packed)) == 3:
        algorithm, element, data = cast("list[Any]", packed)
        if isinstance(algorithm, str) and isinstance(data, memoryview):
            return size, dtype, parse_v2(algorithm, whole(element) or 0, dtype), data
    raise MalformedStream("the array has no data, or data that is packed in a way that is not understood")


def _seconds(ratio: Any) -> float | None:
    ticks = pair(ratio)
    return None if ticks is None or not ticks[1] else ticks[0] / ticks[1]
