"""What a detector's stream says of a series, as the analysis of images wants it."""

from __future__ import annotations

import logging
import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from parvis_services.stream.events import Header
from parvis_services.xray.attenuation import KEV_ANGSTROM, attenuation, sensor_material
from parvis_services.xray.experiment import LARGEST_IMAGE, Experiment, Module, trusted_range
from parvis_services.xray.geometry import Beam, perpendicular_detector

_log = logging.getLogger(__name__)

#: Types of counts that a frame may have.
TYPES: Final = {name: np.dtype(name) for name in ("uint8", "uint16", "uint32")}


def experiment_of(
    header: Header, shape: tuple[int, int], dtype: np.dtype[Any], mask: NDArray[Any] | None = None
) -> Experiment:
    """What is the same for all frames of a series: the detector at right angles to the beam, and its mask.

    As of an EIGER file that describes no modules, a count is trusted from 0 to `saturation`, and never if it
    is one of the two highest of its type.

    Args:
        header: What the detector says.
        shape: Pixels of a frame (rows, columns).
        dtype: Of its counts.
        mask: For each pixel what is wrong with it, bits as NXmx has them, 0 for nothing; None if not known.
            As of a file, one of another shape is not used, and a warning says so.

    Raises:
        ValueError: Something that is needed is missing, or cannot be.
    """
    if min(shape) < 1 or shape[0] * shape[1] > LARGEST_IMAGE:
        raise ValueError(f"an image of {shape[0]} x {shape[1]} pixels is not possible")
    if header.shape is not None and header.shape != shape:
        raise ValueError(f"it has {shape} pixels (slow, fast), the header of its series says {header.shape}")
    if mask is not None and mask.shape != shape:
        _log.warning("the pixel mask has %s pixels, a frame %s (slow, fast): not used", mask.shape, shape)
        mask = None
    beam = Beam(_wavelength(header))
    pixel, centre = _pair(header.pixel_size, "pixel size"), _pair(header.beam_centre, "beam centre")
    thickness, mu = _sensor(header, beam.wavelength)
    detector = perpendicular_detector(
        shape,
        (pixel[0] * 1000, pixel[1] * 1000),
        centre,
        _number(header.distance, "distance of the detector") * 1000,
        trusted_range(dtype, highest=None if header.saturation is None else float(header.saturation)),
        thickness=thickness,
        attenuation=mu,
    )
    return Experiment.of(beam, detector, (Module((0, 0), shape),), mask)


def _wavelength(header: Header) -> float:
    if header.wavelength is None and header.energy is not None and header.energy > 0:
        return KEV_ANGSTROM * 1000 / _number(header.energy, "energy")
    return _number(header.wavelength, "wavelength")


def _sensor(header: Header, wavelength: float) -> tuple[float, float | None]:
    """Thickness in mm and linear attenuation coefficient in mm⁻¹."""
    if header.thickness is None or header.material is None:
        return 0.0, None
    known = sensor_material(header.material)
    thickness = _number(header.thickness, "thickness of the sensor")
    return thickness * 1000, attenuation(known, wavelength) if known else None


def _pair(values: tuple[float, float] | None, what: str) -> tuple[float, float]:
    if values is None:
        raise ValueError(f"the header of its series does not give the {what}")
    return _number(values[0], what), _number(values[1], what)


def _number(value: float | None, what: str) -> float:
    if value is None:
        raise ValueError(f"the header of its series does not give the {what}")
    if not math.isfinite(value):
        raise ValueError(f"the {what} in the header of its series is no number")
    return float(value)
