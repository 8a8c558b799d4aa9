"""What a detector's stream says, whichever of its formats it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Encoding = Literal["bslz4", "hdf5-lz4", "lz4", "none"]
"""How the counts of a frame are packed.

`bslz4`: bitshuffle and LZ4 as HDF5's filter 32008 stores them, behind 12 bytes (size, block size).
`hdf5-lz4`: LZ4 as HDF5's filter 32004 stores it, behind 12 bytes likewise. `lz4`: one bare LZ4 block.
`none`: little-endian counts as they are.
"""


HeaderDetail = Literal["all", "basic", "none"]
"""How much the start of a series tells: `all`, `basic` (without the arrays by pixel), or `none`."""

Bytes = bytes | memoryview


class MalformedStream(ValueError):
    """A message of a stream cannot be read. Others may be fine."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is the same for all frames of a series; None where the detector does not say.

    Attributes:
        shape: Pixels of a frame (rows, columns).
        dtype: Type of a count, as numpy names it: `uint8`, `uint16`, `uint32`.
        images: How many frames there will be.
        pixel_size: Of a pixel (y, x), m.
        beam_centre: Where the beam meets the detector (y, x), pixels.
        distance: From the sample to the detector, m.
        wavelength: Of the beam, Å.
        energy: Of the photons, eV.
        saturation: The highest count that can be trusted.
        thickness: Of the sensor, m.
        material: Of the sensor: `Si`, `CdTe`.
        count_time, frame_time: Exposure of a frame, and from one frame to the next, s.
        description, serial: The detector's, as it gives them.
        axes: Start and increment of each goniometer axis, degrees: `{"omega": (0.0, 0.1)}`.
        threshold: Energy threshold, eV.
        countrate_corrected, flatfield_corrected: Whether the detector did that.
        bit_depth: Bits of a count as the detector counts.
    """

    shape: tuple[int, int] | None = None
    dtype: str | None = None
    images: int | None = None
    pixel_size: tuple[float, float] | None = None
    beam_centre: tuple[float, float] | None = None
    distance: float | None = None
    wavelength: float | None = None
    energy: float | None = None
    saturation: int | None = None
    thickness: float | None = None
    material: str | None = None
    count_time: float | None = None
    frame_time: float | None = None
    description: str | None = None
    serial: str | None = None
    axes: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    threshold: float | None = None
    countrate_corrected: bool | None = None
    flatfield_corrected: bool | None = None
    bit_depth: int | None = None


@dataclass(frozen=True, slots=True)
class SeriesStart:
    """A series begins.

    Attributes:
        series: Its number; a detector that is switched on counts from 1 again.
        unique_id: What tells it from all other series, if the detector says so (Stream V2).
        header: What all frames share.
        mask: For each pixel what is wrong with it, bits as NXmx has them, 0 for nothing; None if not sent.
        appendix: What the beamline gave the detector to send along: text, or what JSON or CBOR made of it.
        config: The detector's configuration as SIMPLON names it (Stream V1), or the start message without its
            large arrays (V2): plain JSON values.
    """

    series: int
    unique_id: str | None = None
    header: Header = field(default_factory=Header)
    mask: NDArray[np.uint32] | None = None
    appendix: Any = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Frame:
    """One image.

    Attributes:
        series, unique_id: Which series it is of.
        number: Its number in the series, from 0.
        data: Its counts, exactly as the detector sent them. A view into the message, which it keeps alive.
        encoding: How they are packed.
        dtype: Type of a count: `uint8`, `uint16`, `uint32`.
        shape: Pixels (rows, columns).
        channel: Which energy threshold it is of, where there are several (Stream V2).
        hash: What the detector says of the content; not to be relied on.
        start_time, stop_time, real_time: Of the exposure, s since the start of the series.
        appendix: What the beamline had sent along with this image.
    """

    series: int
    number: int
    data: memoryview
    encoding: Encoding
    dtype: str
    shape: tuple[int, int]
    unique_id: str | None = None
    channel: str | None = None
    hash: str | None = None
    start_time: float | None = None
    stop_time: float | None = None
    real_time: float | None = None
    appendix: Any = None

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that it takes: those of the message, which may hold other channels, too."""
        return memoryview(self.data.obj).nbytes


@dataclass(frozen=True, slots=True)
class SeriesEnd:
    """A series is over."""

    series: int
    unique_id: str | None = None


Event = SeriesStart | Frame | SeriesEnd
