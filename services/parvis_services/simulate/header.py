"""What is known about an acquisition besides its pixels, and the mini-CBF header that says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from parvis_services.stream.events import Header as Facts

BIT_DEPTH = 16
"""Bits in which a simulated detector counts, before it sums up."""

_LINES = {
    "detector": r"# Detector: (.+)",
    "timestamp": r"# (\d{4}-\d\d-\d\dT[\d:.]+)",
    "pixel_size": r"# Pixel_size (\S+) m x (\S+) m",
    "sensor": r"# (\S+) sensor, thickness (\S+) m",
    "exposure_time": r"# Exposure_time (\S+) s",
    "exposure_period": r"# Exposure_period (\S+) s",
    "count_cutoff": r"# Count_cutoff (\d+) counts",
    "wavelength": r"# Wavelength (\S+) A",
    "distance": r"# Detector_distance (\S+) m",
    "beam_xy": r"# Beam_xy \((\S+), (\S+)\) pixels",
    "transmission": r"# Filter_transmission (\S+)",
    "start_angle": r"# Start_angle (\S+) deg",
    "angle_increment": r"# Angle_increment (\S+) deg",
}
_OPTIONAL = {"timestamp", "transmission", "start_angle", "angle_increment"}


@dataclass(frozen=True)
class Header:
    """Metadata of a series of images from a flat detector across the beam.

    Attributes:
        detector: the detector's name.
        wavelength: in angstrom.
        distance: from sample to sensor in m.
        beam_xy: where the beam hits the detector, in pixels (x along a row, y down), from the outer corner of
            the first pixel.
        pixel_size: (x, y) in m.
        sensor_thickness: in m.
        count_cutoff: the largest count that can be trusted, itself included.
        sensor_material: ``Silicon`` or ``CdTe``.
        exposure_time, exposure_period: in s.
        transmission: of the attenuator, 0 to 1.
        start_angle, angle_increment: of the rotation axis in degrees; a grid scan does not rotate.
        timestamp: local time of the first exposure.
    """

    detector: str
    wavelength: float
    distance: float
    beam_xy: tuple[float, float]
    pixel_size: tuple[float, float]
    sensor_thickness: float
    count_cutoff: int
    sensor_material: str = "Silicon"
    exposure_time: float = 0.019
    exposure_period: float = 0.02
    transmission: float = 1.0
    start_angle: float = 0.0
    angle_increment: float = 0.0
    timestamp: datetime = datetime(2024, 1, 1, tzinfo=UTC)

    @classmethod
    def from_mini_cbf(cls, text: str) -> Header:
        """Read the header lines of a mini-CBF.

        Raises:
            ValueError: a line that is needed is missing or does not hold a number.
        """
        found = {name: re.search(rf"(?m)^{pattern}", text) for name, pattern in _LINES.items()}
        missing = [name for name, match in found.items() if match is None and name not in _OPTIONAL]
        if missing:
            raise ValueError(f"the mini-CBF header does not give {', '.join(missing)}")
        values = {name: match.groups() for name, match in found.items() if match is not None}

        def number(name: str, place: int = 0, default: float = 0.0) -> float:
            return float(values[name][place]) if name in values else default

        time = values["timestamp"][0] if "timestamp" in values else "2024-01-01T00:00:00"
        return cls(
            detector=values["detector"][0].strip(),
            wavelength=number("wavelength"),
            distance=number("distance"),
            beam_xy=(number("beam_xy"), number("beam_xy", 1)),
            pixel_size=(number("pixel_size"), number("pixel_size", 1)),
            sensor_thickness=number("sensor", 1),
            count_cutoff=int(number("count_cutoff")),
            sensor_material=values["sensor"][0],
            exposure_time=number("exposure_time"),
            exposure_period=number("exposure_period"),
            transmission=number("transmission", default=1.0),
            start_angle=number("start_angle"),
            angle_increment=number("angle_increment"),
            timestamp=datetime.fromisoformat(time).replace(tzinfo=UTC),
        )

    def facts(self, shape: tuple[int, int], images: int) -> Facts:
        """The same in the words of a detector's stream, for so many images of this shape (rows, columns)."""
        return Facts(
            shape=shape,
            images=images,
            pixel_size=(self.pixel_size[1], self.pixel_size[0]),
            beam_centre=(self.beam_xy[1], self.beam_xy[0]),
            distance=self.distance,
            wavelength=self.wavelength,
            saturation=self.count_cutoff,
            thickness=self.sensor_thickness,
            material=self.sensor_material,
            count_time=self.exposure_time,
            frame_time=self.exposure_period,
            description=self.detector,
            axes={"omega": (self.start_angle, self.angle_increment)},
            countrate_corrected=True,
            flatfield_corrected=True,
            bit_depth=BIT_DEPTH,
        )

    def mini_cbf_lines(self, frame: int = 0) -> list[str]:
        """The header lines of a frame (from 0) as a PILATUS detector writes them."""
        angle = self.start_angle + frame * self.angle_increment
        return [
            f"# Detector: {self.detector}",
            f"# {self.timestamp.replace(tzinfo=None).isoformat(timespec='milliseconds')}",
            f"# Pixel_size {_micro(self.pixel_size[0])} m x {_micro(self.pixel_size[1])} m",
            f"# {self.sensor_material} sensor, thickness {self.sensor_thickness:.6f} m",
            f"# Exposure_time {self.exposure_time:.7f} s",
            f"# Exposure_period {self.exposure_period:.7f} s",
            "# Tau = 0 s",
            f"# Count_cutoff {self.count_cutoff} counts",
            f"# Threshold_setting: {12398.42 / self.wavelength / 2:.0f} eV",
            "# Gain_setting: autog (vrf = 1.000)",
            "# Comment: simulated",
            f"# Wavelength {_decimal(self.wavelength)} A",
            "# Energy_range (0, 0) eV",
            f"# Detector_distance {_decimal(self.distance)} m",
            "# Detector_Voffset 0.00000 m",
            f"# Beam_xy ({_decimal(self.beam_xy[0])}, {_decimal(self.beam_xy[1])}) pixels",
            f"# Filter_transmission {self.transmission:.4f}",
            f"# Start_angle {angle:.4f} deg.",
            f"# Angle_increment {self.angle_increment:.4f} deg.",
            "# Detector_2theta 0.0000 deg.",
            "# Polarization 0.990",
            "# Alpha 0.0000 deg.",
            "# Kappa 0.0000 deg.",
            "# Phi 0.0000 deg.",
            "# Phi_increment 0.0000 deg.",
            f"# Omega {angle:.4f} deg.",
            f"# Omega_increment {self.angle_increment:.4f} deg.",
            "# Chi 0.0000 deg.",
            "# Chi_increment 0.0000 deg.",
            "# Oscillation_axis OMEGA",
            "# N_oscillations 1",
        ]


def _micro(metres: float) -> str:
    """172e-6 as a PILATUS header has it, without losing a digit."""
    return f"{_decimal(round(metres * 1e6, 9)).removesuffix('.0')}e-6"


def _decimal(value: float) -> str:
    """The shortest decimal, without an exponent, that reads back as the same number."""
    return format(Decimal(repr(float(value))), "f")
