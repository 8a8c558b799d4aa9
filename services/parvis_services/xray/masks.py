"""Which pixels of a panel to leave out: what the file says, and what the user asks for."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.cache import Cache
from parvis_services.xray.geometry import Beam, Panel
from parvis_services.xray.images import Image, Mask
from parvis_services.xray.parameters import Circle, MaskParameters, Polygon, Rectangle
from parvis_services.xray.resolution import d_star_squared, in_ice_ring

_ROWS_AT_ONCE = 256

_masks: Cache[Mask] = Cache(max_size=64)


def image_masks(image: Image, parameters: MaskParameters) -> tuple[Mask | None, ...]:
    """For each panel, True where a pixel may be used, or None where all may be.

    The masks of the last detectors are kept; do not write to them.
    """
    if parameters == MaskParameters():
        return image.mask
    return tuple(_cached(image, index, parameters) for index in range(len(image.detector.panels)))


def _cached(image: Image, index: int, parameters: MaskParameters) -> Mask:
    panel, given = image.detector.panels[index], image.mask[index]
    key: Hashable = (image.mask_key, index, panel.shape, parameters)
    if _by_resolution(parameters):
        key = (key, panel, image.beam)

    def make() -> Mask:
        asked = panel_mask(panel, image.beam, parameters, index)
        mask = asked if given is None else asked & given
        mask.setflags(write=False)
        return mask

    if given is not None and image.mask_key is None:
        return make()
    return _masks.get(key, make)


def panel_mask(panel: Panel, beam: Beam, parameters: MaskParameters, index: int = 0) -> Mask:
    """The mask that `parameters` ask for on one panel, True where a pixel may be used.

    Args:
        panel: Its shape and, for masks by resolution, its geometry.
        beam: The beam.
        parameters: What to leave out.
        index: Number of the panel, which rectangles, circles and polygons name.
    """
    mask = np.ones(panel.shape, np.bool_)
    border = parameters.border
    if border:
        mask[:border] = mask[-border:] = False
        mask[:, :border] = mask[:, -border:] = False
    for region in parameters.untrusted:
        if region.panel == index:
            _leave_out(mask, region)
    if _by_resolution(parameters):
        _leave_out_resolution(mask, panel, beam, parameters)
    return mask


def _by_resolution(parameters: MaskParameters) -> bool:
    limits = parameters.d_min is not None or parameters.d_max is not None
    return limits or bool(parameters.resolution_ranges) or parameters.ice_rings


def _leave_out(mask: Mask, region: Rectangle | Circle | Polygon) -> None:
    if isinstance(region, Rectangle):
        mask[max(region.y0, 0) : max(region.y1, 0), max(region.x0, 0) : max(region.x1, 0)] = False
        return
    slow, fast = np.ogrid[: mask.shape[0], : mask.shape[1]]
    y, x = slow + 0.5, fast + 0.5
    if isinstance(region, Circle):
        mask &= (x - region.x) ** 2 + (y - region.y) ** 2 > region.radius**2
    else:
        mask &= ~_inside(x, y, region.corners)


def _inside(
    x: NDArray[np.float64], y: NDArray[np.float64], corners: tuple[tuple[float, float], ...]
) -> NDArray[np.bool_]:
    """Which points lie inside a polygon: a ray from them crosses its sides an odd number of times."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.bool_)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > y) != (y2 > y)
        inside ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside


def _leave_out_resolution(mask: Mask, panel: Panel, beam: Beam, parameters: MaskParameters) -> None:
    """A band of rows at a time, so that a large panel needs little memory."""
    slow_size, fast_size = panel.shape
    fast = np.arange(fast_size, dtype=np.float64) + 0.5
    for start in range(0, slow_size, _ROWS_AT_ONCE):
        slow = np.arange(start, min(start + _ROWS_AT_ONCE, slow_size), dtype=np.float64) + 0.5
        grid_slow, grid_fast = (axis.ravel() for axis in np.meshgrid(slow, fast, indexing="ij"))
        d_star_sq = d_star_squared(panel, beam, grid_slow, grid_fast, parallax=parameters.parallax_correction)
        with np.errstate(divide="ignore"):
            d = 1 / np.sqrt(d_star_sq)
        wanted = np.ones(len(d), np.bool_)
        if parameters.d_min is not None:
            wanted &= d >= parameters.d_min
        if parameters.d_max is not None:
            wanted &= d <= parameters.d_max
        for low, high in parameters.resolution_ranges:
            wanted &= (d > max(low, high)) | (d < min(low, high))
        if parameters.ice_rings:
            wanted &= ~in_ice_ring(d_star_sq, parameters.ice_rings_width)
        mask[start : start + _ROWS_AT_ONCE] &= wanted.reshape(-1, fast_size)
