"""How PILATUS and EIGER detectors are put together from modules."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.geometry import Detector, Panel, Vector

# Pixels of a module and of the gap between modules, each (slow, fast).
_PILATUS = ((195, 487), (17, 7))
_EIGER = ((514, 1030), (37, 10))
_EIGER2 = ((512, 1028), (38, 12))

PILATUS_12M_SHAPE = (5071, 2463)
"""All 24 rows of the barrel in one image (slow, fast)."""

_ROWS_12M = 24


@lru_cache(maxsize=8)
def module_gaps(shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """True where a module is, False in the gaps between, for any size a detector of this kind comes in.

    None if `shape` (slow, fast) is not made of whole modules, or of one module alone. Do not write to it.
    """
    for module, gap in (_PILATUS, _EIGER, _EIGER2):
        slow, fast = (_along(n, each, between) for n, each, between in zip(shape, module, gap, strict=True))
        if slow is not None and fast is not None:
            mask = np.logical_and.outer(slow, fast)
            mask.setflags(write=False)
            return None if mask.all() else mask
    return None


def _along(pixels: int, module: int, gap: int) -> NDArray[np.bool_] | None:
    modules, rest = divmod(pixels + gap, module + gap)
    if rest or not modules:
        return None
    return (np.arange(pixels) % (module + gap)) < module


def pilatus_12m(
    beam_centre: tuple[float, float],
    distance: float,
    thickness: float,
    attenuation: float | None,
) -> Detector:
    """The 24 rows of the PILATUS 12M of Diamond's I23, each one panel, round part of a cylinder.

    Args:
        beam_centre: Nominal beam centre of the header (slow, fast), pixels.
        distance: Detector distance of the header, mm.
        thickness, attenuation: Of the sensor, mm and mm⁻¹.

    Source: the dimensions DIALS uses (radius 250 mm, 7.903° a row and 0.441° between).
    """
    pixel = 0.172
    shift_x, shift_y = pixel * (1075 - beam_centre[1]), pixel * (2594 - beam_centre[0])
    panels: list[Panel] = []
    for row in range(_ROWS_12M):
        angle = math.radians(-12.2 + 0.5 * 7.903 + row * (7.903 + 0.441))
        sine, cosine = math.sin(angle), math.cos(angle)
        slow: Vector = (0.0, sine, -cosine)
        corner = (
            184.9 - shift_x,
            -250 * cosine - 16.8 * sine + shift_y,
            -distance - 250 * sine + 16.8 * cosine,
        )
        panels.append(
            Panel(
                shape=(195, 2463),
                pixel_size=(pixel, pixel),
                origin=corner,
                slow_axis=slow,
                fast_axis=(-1.0, 0.0, 0.0),
                trusted=(0, 1_000_000),
                thickness=thickness,
                attenuation=attenuation,
                offset=(row * (195 + 17), 0),
            )
        )
    return Detector(tuple(panels))
