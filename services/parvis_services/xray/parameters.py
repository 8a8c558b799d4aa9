"""What a user may choose about spotfinding and per-image analysis; the defaults are those of DIALS."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Algorithm = Literal["dispersion", "dispersion_extended"]
Engine = Literal["parvis", "dials"]

ALGORITHMS: tuple[Algorithm, ...] = ("dispersion", "dispersion_extended")
ENGINES: tuple[Engine, ...] = ("parvis", "dials")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class DispersionParameters:
    """Settings of the two dispersion thresholds.

    Attributes:
        kernel_size: Half-size of the box in pixels, (slow, fast): (3, 3) is a 7 x 7 box.
        n_sigma_b: How many standard deviations the variance-to-mean ratio of the box must exceed 1 by.
        n_sigma_s: How many standard deviations a strong pixel must exceed the mean of the box by.
        min_local: Fewest usable pixels in a box that counts; 0 or less means every pixel of the box.
        global_threshold: A strong pixel is greater than this, in counts.
        gain: Counts a photon; 1 for a photon-counting detector.
    """

    kernel_size: tuple[int, int] = (3, 3)
    n_sigma_b: float = 6.0
    n_sigma_s: float = 3.0
    min_local: int = 2
    global_threshold: float = 0.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        _require(
            len(self.kernel_size) == 2 and all(size >= 1 for size in self.kernel_size),
            f"kernel_size must be two whole numbers of at least 1 (slow, fast), not {self.kernel_size}",
        )
        for name in ("n_sigma_b", "n_sigma_s"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, f"{name} must be 0 or more, not {value}")
        _require(math.isfinite(self.global_threshold), "global_threshold must be a finite number")
        _require(math.isfinite(self.gain) and self.gain > 0, f"gain must be more than 0, not {self.gain}")


@dataclass(frozen=True, slots=True)
class SpotFilters:
    """Which groups of strong pixels count as spots.

    Attributes:
        min_spot_size: Fewest pixels; None means 3 for a pad (pixel-array) detector and 6 for any other.
        max_spot_size: Most pixels.
        max_separation: Greatest distance between the brightest pixel and the centroid, in pixels.
        max_strong_pixel_fraction: An image with a greater fraction of strong pixels is an error.
    """

    min_spot_size: int | None = None
    max_spot_size: int = 1000
    max_separation: float = 2.0
    max_strong_pixel_fraction: float = 0.25

    def __post_init__(self) -> None:
        smallest = 1 if self.min_spot_size is None else self.min_spot_size
        _require(smallest >= 1, f"min_spot_size must be at least 1, not {smallest}")
        _require(
            self.max_spot_size >= smallest,
            f"max_spot_size ({self.max_spot_size}) must not be less than min_spot_size ({smallest})",
        )
        _require(self.max_separation >= 0, f"max_separation must be 0 or more, not {self.max_separation}")
        _require(
            0 < self.max_strong_pixel_fraction <= 1,
            f"max_strong_pixel_fraction must be between 0 and 1, not {self.max_strong_pixel_fraction}",
        )


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Pixels x0 <= fast < x1, y0 <= slow < y1 of one panel."""

    x0: int
    x1: int
    y0: int
    y1: int
    panel: int = 0


@dataclass(frozen=True, slots=True)
class Circle:
    """Pixels whose centre is within `radius` pixels of (`x`, `y`) = (fast, slow) on one panel."""

    x: float
    y: float
    radius: float
    panel: int = 0


@dataclass(frozen=True, slots=True)
class Polygon:
    """Pixels whose centre is inside the polygon with these (fast, slow) corners on one panel."""

    corners: tuple[tuple[float, float], ...]
    panel: int = 0

    def __post_init__(self) -> None:
        _require(len(self.corners) >= 3, f"a polygon needs three corners or more, not {len(self.corners)}")


@dataclass(frozen=True, slots=True)
class MaskParameters:
    """Pixels to leave out before spotfinding, beside those the file itself declares unusable.

    Attributes:
        border: Width of the edge of each panel to leave out, in pixels.
        untrusted: Rectangles, circles and polygons to leave out.
        d_min, d_max: Pixels outside this resolution range (Å) are left out.
        resolution_ranges: Pixels inside one of these (d_low, d_high) ranges (Å) are left out.
        ice_rings: Leave out the pixels in the rings of hexagonal ice.
        ice_rings_width: Full width of an ice ring, in 1/d² (Å⁻²).
        parallax_correction: Correct the resolution of a pixel for the depth of detection in the sensor.
    """

    border: int = 0
    untrusted: tuple[Rectangle | Circle | Polygon, ...] = ()
    d_min: float | None = None
    d_max: float | None = None
    resolution_ranges: tuple[tuple[float, float], ...] = ()
    ice_rings: bool = False
    ice_rings_width: float = 0.002
    parallax_correction: bool = False

    def __post_init__(self) -> None:
        _require(self.border >= 0, f"border must be 0 or more pixels, not {self.border}")
        _check_resolution(self.d_min, self.d_max)
        for low, high in self.resolution_ranges:
            _require(low > 0 and high > 0, f"a resolution range must be two lengths in Å, not {low}, {high}")
        _require(self.ice_rings_width > 0, f"ice_rings_width must be more than 0, not {self.ice_rings_width}")


@dataclass(frozen=True, slots=True)
class AnalysisParameters:
    """Everything `analyse` can be told; the defaults are those of the per-image analysis service.

    Attributes:
        algorithm: The threshold that tells strong pixels from background.
        d_min, d_max: Spots outside this resolution range (Å) are dropped, after spotfinding.
        filter_ice: Tell spots in the rings of hexagonal ice from the others.
        ice_rings_width: Full width of an ice ring, in 1/d² (Å⁻²).
        threshold: Settings of the threshold.
        filters: Which groups of strong pixels count as spots.
        masks: Pixels to leave out.
        engine: `parvis` for our own arithmetic, `dials` for DIALS itself where it is installed.
    """

    algorithm: Algorithm = "dispersion"
    d_min: float | None = None
    d_max: float | None = 40.0
    filter_ice: bool = True
    ice_rings_width: float = 0.004
    threshold: DispersionParameters = field(default_factory=DispersionParameters)
    filters: SpotFilters = field(default_factory=SpotFilters)
    masks: MaskParameters = field(default_factory=MaskParameters)
    engine: Engine = "parvis"

    def __post_init__(self) -> None:
        _require(
            self.algorithm in ALGORITHMS,
            f"algorithm must be one of {', '.join(ALGORITHMS)}, not {self.algorithm!r}",
        )
        _require(self.engine in ENGINES, f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        _check_resolution(self.d_min, self.d_max)
        _require(self.ice_rings_width > 0, f"ice_rings_width must be more than 0, not {self.ice_rings_width}")


def _check_resolution(d_min: float | None, d_max: float | None) -> None:
    for name, value in (("d_min", d_min), ("d_max", d_max)):
        _require(value is None or value > 0, f"{name} must be a length in Å greater than 0, not {value}")
    if d_min is not None and d_max is not None:
        _require(d_min < d_max, f"d_min ({d_min} Å) must be less than d_max ({d_max} Å)")
