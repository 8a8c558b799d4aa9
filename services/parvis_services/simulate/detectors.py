"""Pixel detectors that can be simulated: how large, where the modules and the gaps between them are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Detector:
    """A flat detector of equal modules in rows and columns.

    Attributes:
        name: as its headers give it.
        family: what its files look like: PILATUS writes mini-CBF, EIGER writes HDF5.
        modules: number of modules (down, across).
        module: pixels of a module (rows, columns).
        gap: pixels between modules (rows, columns).
        pixel_size: edge of a pixel in m.
        sensor_thickness: thickness of the silicon sensor in m.
        count_cutoff: the largest count that can be trusted.
    """

    name: str
    family: Literal["PILATUS", "EIGER"]
    modules: tuple[int, int]
    module: tuple[int, int]
    gap: tuple[int, int]
    pixel_size: float
    sensor_thickness: float
    count_cutoff: int

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of an image (rows, columns)."""
        return (
            self.modules[0] * (self.module[0] + self.gap[0]) - self.gap[0],
            self.modules[1] * (self.module[1] + self.gap[1]) - self.gap[1],
        )

    def gaps(self) -> NDArray[np.bool_]:
        """Mask of the image's shape, True between the modules."""
        import numpy as np

        rows, columns = (
            np.arange(length) % (module + gap) >= module
            for length, module, gap in zip(self.shape, self.module, self.gap, strict=True)
        )
        return rows[:, np.newaxis] | columns


def _pilatus3(size: str, down: int, across: int) -> Detector:
    return Detector(
        f"PILATUS3 {size}", "PILATUS", (down, across), (195, 487), (17, 7), 172e-6, 450e-6, 115897
    )


def _eiger2(size: str, down: int, across: int) -> Detector:
    return Detector(
        f"EIGER2 Si {size}", "EIGER", (down, across), (512, 1028), (38, 12), 75e-6, 450e-6, 121774
    )


DETECTORS: dict[str, Detector] = {
    "pilatus-300k": _pilatus3("300K", 3, 1),
    "pilatus-1m": _pilatus3("1M", 5, 2),
    "pilatus-2m": _pilatus3("2M", 8, 3),
    "pilatus-6m": _pilatus3("6M", 12, 5),
    "eiger-500k": _eiger2("500K", 1, 1),
    "eiger-1m": _eiger2("1M", 2, 1),
    "eiger-4m": _eiger2("4M", 4, 2),
    "eiger-16m": _eiger2("16M", 8, 4),
}
"""Detectors by the name a command line uses; those of DECTRIS, dimensions from their data sheets."""


def detector(name: str) -> Detector:
    """The detector of this name. Raises ValueError naming the known ones."""
    try:
        return DETECTORS[name]
    except KeyError:
        raise ValueError(f"no detector {name!r}; there are {', '.join(DETECTORS)}") from None
