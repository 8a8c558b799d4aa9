"""From an image to its spots, and to the nine numbers of per-image analysis.

>>> from parvis_services.xray.analysis import analyse
>>> analyse("thau_3_2_0003.cbf").n_spots_total  # doctest: +SKIP
1373
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray import tiers
from parvis_services.xray.errors import TooManyStrongPixelsError
from parvis_services.xray.geometry import Panel
from parvis_services.xray.images import Buffers, Image, is_cbf, open_image
from parvis_services.xray.masks import image_masks
from parvis_services.xray.parameters import AnalysisParameters, SpotFilters
from parvis_services.xray.resolution import d_star_squared, in_ice_ring, within_resolution
from parvis_services.xray.spots import Spots
from parvis_services.xray.statistics import ImageAnalysis, image_statistics

if TYPE_CHECKING:
    from parvis_services.xray.stored_frames import FetchedFrame

_DEFAULTS = AnalysisParameters()
_buffers = Buffers()


@dataclass(frozen=True, slots=True)
class ImageSpots:
    """The spots of an image, after all filters.

    Attributes:
        spots: What each is like; its position is in pixels of its panel.
        panel: Which panel each is on, shape (n,).
        d_star_sq: 1/d² of each, Å⁻², shape (n,).
        ice: Which of them lie in ice rings, shape (n,).
        strong_pixels: For each panel, the sorted flat indices of its strong pixels, in a spot or not.
    """

    spots: Spots
    panel: NDArray[np.int64]
    d_star_sq: NDArray[np.float64]
    ice: NDArray[np.bool_]
    strong_pixels: tuple[NDArray[np.int64], ...]

    @property
    def d(self) -> NDArray[np.float64]:
        """The d spacing of each spot, Å, shape (n,)."""
        return 1 / np.sqrt(self.d_star_sq)


def analyse(
    image: Image | str | Path,
    parameters: AnalysisParameters = _DEFAULTS,
    *,
    frame: int | None = None,
    allowed: Callable[[Path], bool] | None = None,
) -> ImageAnalysis:
    """The nine numbers of one image.

    Args:
        image: An image, or a file to read it from (see `images.open_image`).
        parameters: How to find spots, and which to count.
        frame: Which frame of an HDF5 file, from 0; the first if not given.
        allowed: Whether a file may be opened, asked for this one and each that it links to; by default all
            may.

    Raises:
        ImageError: The file cannot be read (see `images.open_image`), or too much of the image is strong.
        RuntimeError: The engine `dials` is asked for and DIALS is not installed.
        ValueError: The engine `dials` is asked for, which follows links wherever they lead, for a file that
            may have links, and not every file is allowed.
    """
    if parameters.engine == "dials":
        from parvis_services.xray import dials_engine

        if isinstance(image, Image):
            return dials_engine.analyse(image.path, parameters, image.frame)
        if allowed is not None and not (allowed(Path(image)) and is_cbf(image)):
            raise ValueError(
                f"{image}: where a site allows some directories only, the engine 'dials' is given CBF files "
                "in them and nothing else: use the engine 'parvis'"
            )
        return dials_engine.analyse(str(image), parameters, frame)
    if not isinstance(image, Image):
        image = open_image(image, frame, buffers=_buffers, allowed=allowed)
    found = find_spots(image, parameters)
    return image_statistics(found.d_star_sq, found.spots.intensity, found.ice)


def analyse_frame(frame: FetchedFrame, parameters: AnalysisParameters = _DEFAULTS) -> ImageAnalysis:
    """The nine numbers of a frame that was fetched from a store.

    Raises:
        ImageError: It is damaged, or too much of it is strong.
        ValueError: The engine `dials` is asked for, which reads files.
    """
    if parameters.engine == "dials":
        raise ValueError(f"{frame.url}: the engine 'dials' reads files alone: use the engine 'parvis'")
    return analyse(frame.image(_buffers), parameters)


def find_spots(image: Image, parameters: AnalysisParameters = _DEFAULTS) -> ImageSpots:
    """The spots of an image with their resolution.

    Raises:
        TooManyStrongPixelsError: More than the allowed fraction of the image is strong.
    """
    masks = image_masks(image, parameters.masks)
    panels = list(zip(image.detector.panels, image.data, masks, strict=True))
    threshold = tiers.threshold(parameters.algorithm)
    strong = tuple(threshold(data, mask, panel.trusted, parameters.threshold) for panel, data, mask in panels)
    _check_fraction(image, sum(map(len, strong)), parameters.filters)
    parts: list[Spots] = []
    d_star_sq: list[NDArray[np.float64]] = []
    for (panel, data, _), indices in zip(panels, strong, strict=True):
        spots = _panel_spots(panel, data, indices, parameters.filters)
        parts.append(spots)
        d_star_sq.append(d_star_squared(panel, image.beam, spots.centroid_slow, spots.centroid_fast))
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return _filter_resolution(
        Spots.concatenate(parts), numbers, np.concatenate(d_star_sq), strong, parameters
    )


def _check_fraction(image: Image, n_strong: int, filters: SpotFilters) -> None:
    pixels = sum(data.size for data in image.data)
    if n_strong > math.ceil(filters.max_strong_pixel_fraction * pixels):
        raise TooManyStrongPixelsError(
            image.path,
            f"{n_strong} of {pixels} pixels are strong, more than {filters.max_strong_pixel_fraction:.0%}: "
            "no spots can be told from the rest",
        )


def _panel_spots(panel: Panel, data: NDArray[Any], strong: NDArray[np.int64], filters: SpotFilters) -> Spots:
    """The groups of strong pixels of one panel that are spots."""
    spots = tiers.spots(strong, data.reshape(-1)[strong], panel.shape)
    smallest = filters.min_spot_size
    if smallest is None:
        smallest = 3 if panel.pad else 6
    separation = np.hypot(
        spots.peak_slow + 0.5 - spots.centroid_slow, spots.peak_fast + 0.5 - spots.centroid_fast
    )
    return spots.select(
        (spots.n_pixels >= smallest)
        & (spots.n_pixels <= filters.max_spot_size)
        & (separation <= filters.max_separation)
    )


def _filter_resolution(
    spots: Spots,
    panel: NDArray[np.int64],
    d_star_sq: NDArray[np.float64],
    strong: tuple[NDArray[np.int64], ...],
    parameters: AnalysisParameters,
) -> ImageSpots:
    with np.errstate(divide="ignore"):
        d = 1 / np.sqrt(d_star_sq)
    wanted = (d_star_sq > 0) & within_resolution(d, parameters.d_min, parameters.d_max)
    kept = d_star_sq[wanted]
    if parameters.filter_ice:
        ice = in_ice_ring(kept, parameters.ice_rings_width)
    else:
        ice = np.zeros(len(kept), np.bool_)
    return ImageSpots(spots.select(wanted), panel[wanted], kept, ice, strong)
