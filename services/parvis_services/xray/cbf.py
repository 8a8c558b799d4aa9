"""CBF images: mini-CBF as PILATUS and EIGER detectors write it, and full imgCIF with axis tables.

Source of the format: Bernstein & Hammersley, International Tables for Crystallography G, chapters 2.3 and
5.6. The MD5 digest in the header is not compared: it would take longer than everything else that is done to
an image. A file that was cut short is noticed without it, and so is most damage to the compressed data.
"""

from __future__ import annotations

import bz2
import gzip
import io
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray import tiers
from parvis_services.xray.attenuation import attenuation, sensor_material
from parvis_services.xray.errors import (
    BrokenImageError,
    MissingImageError,
    UnfinishedImageError,
    UnknownFormatError,
)
from parvis_services.xray.geometry import Beam, Detector, perpendicular_detector
from parvis_services.xray.images import LARGEST_FILE, Buffers, Image
from parvis_services.xray.imgcif import ImgCif
from parvis_services.xray.pilatus import PILATUS_12M_SHAPE, module_gaps, pilatus_12m

_BINARY_START = b"\x0c\x1a\x04\xd5"
_LONGEST_HEADER = 2**20
_NO_CUTOFF = float(2**31 - 1)

_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_SENSOR = re.compile(rf"^#\s*(\S[^\n]*?)\s+sensor,\s*thickness\s*=?\s*{_NUMBER}\s*m\b", re.MULTILINE)

_ELEMENT_TYPES = {
    "signed 32-bit integer": "<i4",
    "unsigned 32-bit integer": "<u4",
    "signed 16-bit integer": "<i2",
    "unsigned 16-bit integer": "<u2",
    "unsigned 8-bit integer": "<u1",
}


@dataclass(frozen=True, slots=True)
class _Binary:
    """What the header says about the binary section that follows it."""

    shape: tuple[int, int]
    size: int
    compressed: bool
    element_type: str


def read_cbf(path: Path, buffers: Buffers) -> Image:
    """Read a CBF file, compressed with gzip or bzip2 or not. Raises as `open_image`."""
    contents = _contents(path, buffers)
    try:
        header, start = _header(path, contents)
        binary = _describe_binary(header)
        detector, beam = _geometry(header, binary.shape)
    except ValueError as error:
        raise BrokenImageError(path, str(error)) from None
    counts = _counts(path, contents[start:], binary, buffers)
    gaps = module_gaps(binary.shape) if re.search("PILATUS|EIGER", header, re.IGNORECASE) else None
    data: list[NDArray[Any]] = []
    masks: list[NDArray[np.bool_] | None] = []
    for panel in detector.panels:
        slow, fast = panel.offset
        where = np.s_[slow : slow + panel.shape[0], fast : fast + panel.shape[1]]
        data.append(np.ascontiguousarray(counts[where]))
        masks.append(None if gaps is None else gaps[where])
    mask_key = None if gaps is None else "gaps between modules"
    return Image(tuple(data), detector, beam, tuple(masks), str(path), None, mask_key)


def _contents(path: Path, buffers: Buffers) -> memoryview:
    try:
        contents = buffers.read(path)
        opener = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}.get(bytes(contents[:2]))
        if opener is None:
            return contents
        with opener(io.BytesIO(contents)) as file:
            plain = file.read(LARGEST_FILE)
    except EOFError:
        raise UnfinishedImageError(
            path, "the compressed file ends too soon: still being written, or cut short"
        ) from None
    except (zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise MissingImageError(path, f"cannot be read: {error.strerror}") from None
        raise BrokenImageError(path, f"the compressed file is damaged: {error}") from None
    if not plain.startswith(b"###CBF"):
        raise UnknownFormatError(path, "the compressed file is not a CBF image")
    return memoryview(plain)


def _header(path: Path, contents: memoryview) -> tuple[str, int]:
    """The text before the binary section, and where that begins."""
    beginning = bytes(contents[:_LONGEST_HEADER])
    end = beginning.find(_BINARY_START)
    if end < 0:
        if len(beginning) < _LONGEST_HEADER:
            raise UnfinishedImageError(path, "the file ends in its header: still being written, or cut short")
        raise ValueError("no image follows the CBF header")
    return beginning[:end].decode("latin-1").replace("\r\n", "\n"), end + len(_BINARY_START)


def _describe_binary(header: str) -> _Binary:
    conversion = re.search(r'conversions\s*=\s*"?([\w-]+)', header, re.IGNORECASE)
    kind = conversion[1].lower() if conversion else "none"
    if kind not in ("x-cbf_byte_offset", "x-cbf_none", "none"):
        raise ValueError(f"the image is compressed with {conversion and conversion[1]}, not byte offset")
    element_type = re.search(r'X-Binary-Element-Type:\s*"([^"\n]+)"', header)
    element = element_type[1].lower() if element_type else "signed 32-bit integer"
    if element not in _ELEMENT_TYPES:
        raise ValueError(f"pixels of the type {element!r} cannot be read")
    shape = (
        _whole(header, "X-Binary-Size-Second-Dimension"),
        _whole(header, "X-Binary-Size-Fastest-Dimension"),
    )
    return _Binary(shape, _whole(header, "X-Binary-Size"), kind == "x-cbf_byte_offset", element)


def _whole(header: str, field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d{{1,12}})\s*$", header, re.MULTILINE)
    if not found or int(found[1]) == 0:
        raise ValueError(f"the header does not give {field}, or not as a number greater than 0")
    return int(found[1])


def _counts(path: Path, follows: memoryview, binary: _Binary, buffers: Buffers) -> NDArray[Any]:
    slow, fast = binary.shape
    kind = np.dtype(_ELEMENT_TYPES[binary.element_type])
    # A pixel takes one byte at least: a header that promises more than the file can hold costs no memory.
    least = slow * fast * (1 if binary.compressed else kind.itemsize)
    if binary.size < least:
        raise BrokenImageError(
            path, f"{binary.size} bytes of data cannot hold the {slow} x {fast} pixels of the header"
        )
    if len(follows) < binary.size:
        raise UnfinishedImageError(
            path,
            f"the file ends after {len(follows)} of the {binary.size} bytes of the image: still being "
            "written, or cut short",
        )
    if not binary.compressed:
        return np.frombuffer(follows[:least], kind).reshape(binary.shape).astype(kind.newbyteorder("="))
    try:
        out = buffers.array(binary.shape, np.int32)
        return tiers.decode_byte_offset(follows[: binary.size], binary.shape, out)
    except ValueError as error:
        raise BrokenImageError(path, f"the compressed image is damaged: {error}") from None


def _geometry(header: str, shape: tuple[int, int]) -> tuple[Detector, Beam]:
    if "_axis.id" in header:
        return _full_geometry(header, shape)
    beam = Beam(_field(header, "Wavelength")[0])
    pixel_x, pixel_y = _field(header, "Pixel_size", 2)
    beam_x, beam_y = _field(header, "Beam_xy", 2)
    thickness, mu = _sensor(header, beam.wavelength)
    if shape == PILATUS_12M_SHAPE and "PILATUS" in header:
        distance = _field(header, "Detector_distance")[0] * 1000
        return pilatus_12m((beam_y, beam_x), distance, thickness, mu), beam
    detector = perpendicular_detector(
        shape,
        (pixel_y * 1000, pixel_x * 1000),
        (beam_y, beam_x),
        _field(header, "Detector_distance")[0] * 1000,
        (0.0, _cutoff(header)),
        thickness=thickness,
        attenuation=mu,
    )
    if thickness == 0 and "EIGER" not in header.upper():
        detector = Detector(tuple(replace(panel, pad=False) for panel in detector.panels))
    return detector, beam


def _full_geometry(header: str, shape: tuple[int, int]) -> tuple[Detector, Beam]:
    tables = ImgCif(header)
    beam = tables.beam()
    thickness, mu = _sensor(header, beam.wavelength)
    trusted = tables.trusted() or (0.0, _cutoff(header) - 1)
    panel = tables.panel(trusted, thickness, mu)
    if panel.shape != shape:
        raise ValueError(f"the axis tables describe {panel.shape} pixels, the image has {shape} (slow, fast)")
    return Detector((panel,)), beam


def _sensor(header: str, wavelength: float) -> tuple[float, float | None]:
    """Thickness in mm and linear attenuation coefficient in mm⁻¹ of the sensor."""
    found = _SENSOR.search(header)
    if not found:
        return 0.0, None
    material = sensor_material(found[1])
    return float(found[2]) * 1000, attenuation(material, wavelength) if material else None


def _cutoff(header: str) -> float:
    found = re.search(rf"^#\s*Count_cutoff\W+{_NUMBER}", header, re.MULTILINE)
    return float(found[1]) if found else _NO_CUTOFF


def _field(header: str, name: str, how_many: int = 1) -> list[float]:
    """The numbers on the line of a mini-CBF header that begins with `# name`."""
    line = re.search(rf"^#\s*{name}\b([^\n]*)$", header, re.MULTILINE | re.IGNORECASE)
    numbers = [float(number) for number in re.findall(_NUMBER, line[1])] if line else []
    if len(numbers) < how_many:
        raise ValueError(f"the header does not give {name}")
    return numbers[:how_many]
