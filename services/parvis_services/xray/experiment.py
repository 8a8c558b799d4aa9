"""What is the same for every frame of a series, and how a frame becomes an image with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parvis_services.xray.geometry import Beam, Detector
from parvis_services.xray.images import Image, Mask

LARGEST_IMAGE = 2**27
"""Pixels of a frame, more than any detector has."""


@dataclass(frozen=True, slots=True)
class Module:
    """Part of each frame that is one panel: `origin` and `size` of its pixels in the frame."""

    origin: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def where(self) -> tuple[slice, ...]:
        """The module's pixels in a frame."""
        return tuple(slice(o, o + n) for o, n in zip(self.origin, self.size, strict=True))


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is the same for every frame: `modules` says which pixels each panel of the detector has.

    Attributes:
        beam, detector, modules: As it says.
        mask: For each panel, True where a pixel may be used; None where all may.
        mask_key: As of `Image.mask_key`.
    """

    beam: Beam
    detector: Detector
    modules: tuple[Module, ...]
    mask: tuple[Mask | None, ...]
    mask_key: str | None

    @classmethod
    def of(
        cls, beam: Beam, detector: Detector, modules: tuple[Module, ...], pixel_mask: NDArray[Any] | None
    ) -> Experiment:
        """Make one.

        Args:
            beam, detector, modules: As the attributes.
            pixel_mask: In the shape of a frame, 0 for a good pixel, as NXmx has it; None if all are good.
        """
        whole = None if pixel_mask is None else pixel_mask == 0
        if whole is None or whole.all():
            return cls(beam, detector, modules, (None,) * len(modules), None)
        masks: list[Mask] = []
        for module in modules:
            mask = np.ascontiguousarray(whole[module.where].reshape(module.size[-2:]))
            mask.setflags(write=False)
            masks.append(mask)
        key = hashlib.blake2b(np.packbits(whole).tobytes(), digest_size=16).hexdigest()
        return cls(beam, detector, modules, tuple(masks), key)

    def image(self, counts: NDArray[Any], path: str, frame: int | None = None) -> Image:
        """The image of a frame, which shares memory with its counts as far as that is possible."""
        data = tuple(
            np.ascontiguousarray(counts[module.where].reshape(module.size[-2:])) for module in self.modules
        )
        return Image(data, self.detector, self.beam, self.mask, path, frame, self.mask_key)


def trusted_range(
    dtype: np.dtype[Any], lowest: float | None = None, highest: float | None = None
) -> tuple[float, float]:
    """The lowest and the highest count that means what it says, both included.

    The two highest values of unsigned counts mean `no count`: a gap, or a pixel that is masked.

    Args:
        dtype: Of the counts.
        lowest, highest: What the detector says, if anything.
    """
    if dtype.kind == "f":
        return (-np.inf if lowest is None else lowest), (np.inf if highest is None else highest)
    top = float(np.iinfo(dtype).max - (2 if dtype.kind == "u" else 0))
    return (0.0 if lowest is None else lowest), (top if highest is None else min(highest, top))
