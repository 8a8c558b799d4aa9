"""The detector's configuration as SIMPLON names it, and what it says as a `Header`.

It is what Stream V1 sends along, and what the prototype's object `header` is. Lengths in m, energies in eV,
wavelengths in Å, angles in degrees. Source: the description of the SIMPLON interface 1.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from parvis_services.stream.events import Header
from parvis_services.stream.values import beam_centre, number, positive, shape, text, truth, whole

AXES: Final = ("omega", "chi", "kappa", "phi", "two_theta")
"""Goniometer axes that there may be, each as NAME_start and NAME_increment."""

_POSITIVE: Final = {  # a detector that was not told of one of these says 0
    "distance": "detector_distance",
    "wavelength": "wavelength",
    "energy": "photon_energy",
    "thickness": "sensor_thickness",
    "count_time": "count_time",
    "frame_time": "frame_time",
    "threshold": "threshold_energy",
}
_WHOLE: Final = {"saturation": "countrate_correction_count_cutoff", "bit_depth": "bit_depth_readout"}
_TEXT: Final = {"material": "sensor_material", "description": "description", "serial": "detector_number"}
_SWITCH: Final = {
    "countrate_corrected": "countrate_correction_applied",
    "flatfield_corrected": "flatfield_correction_applied",
}


def header_of(config: Mapping[str, Any]) -> Header:
    """Read a configuration. What is not there, or cannot be, is None."""
    bits = whole(config.get("bit_depth_image"))
    told = dict(config)
    if positive(config.get("incident_energy")):  # as later firmware calls it
        told["photon_energy"] = config["incident_energy"]
    given: dict[str, Any] = {name: positive(told.get(key)) for name, key in _POSITIVE.items()}
    given |= {name: whole(config.get(key)) or None for name, key in _WHOLE.items()}
    given |= {name: text(config.get(key)) for name, key in _TEXT.items()}
    given |= {name: truth(config.get(key)) for name, key in _SWITCH.items()}
    return Header(
        shape=shape(config, "y_pixels_in_detector", "x_pixels_in_detector"),
        dtype=f"uint{bits}" if bits in (8, 16, 32) else None,
        images=_images(config),
        pixel_size=_pair(positive(config.get("y_pixel_size")), positive(config.get("x_pixel_size"))),
        beam_centre=beam_centre(config),
        axes=_axes(config),
        **given,
    )


def config_of(header: Header) -> dict[str, Any]:
    """The configuration that says what a header says; what it does not say is left out."""
    config: dict[str, Any] = {"nimages": header.images, "ntrigger": None if header.images is None else 1}
    if header.shape is not None:
        config["y_pixels_in_detector"], config["x_pixels_in_detector"] = header.shape
    if header.dtype is not None:
        config["bit_depth_image"] = int(header.dtype.removeprefix("uint"))
    if header.pixel_size is not None:
        config["y_pixel_size"], config["x_pixel_size"] = header.pixel_size
    if header.beam_centre is not None:
        config["beam_center_y"], config["beam_center_x"] = header.beam_centre
    for name, key in (_POSITIVE | _WHOLE | _TEXT | _SWITCH).items():
        config[key] = getattr(header, name)
    for axis, (start, increment) in header.axes.items():
        config[f"{axis}_start"], config[f"{axis}_increment"] = start, increment
    return {key: value for key, value in config.items() if value is not None}


def _pair(first: float | None, second: float | None) -> tuple[float, float] | None:
    return None if first is None or second is None else (first, second)


def _images(config: Mapping[str, Any]) -> int | None:
    images, triggers = whole(config.get("nimages")), whole(config.get("ntrigger"))
    return None if images is None else whole(images * (1 if triggers is None else triggers)) or None


def _axes(config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    found = (
        (axis, number(config.get(f"{axis}_start")), number(config.get(f"{axis}_increment"))) for axis in AXES
    )
    return {axis: (start, step or 0.0) for axis, start, step in found if start is not None}
