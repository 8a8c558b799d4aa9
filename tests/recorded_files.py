"""HDF5 files of a series with spots, a mask and a saturation, as a detector's file writer leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from made_nxmx import axis, dataset, describe, group

SHAPE = (200, 300)
CONFIG = repr(
    {
        "x_pixels_in_detector": SHAPE[1],
        "y_pixels_in_detector": SHAPE[0],
        "bit_depth_image": 32,
        "nimages": 4,
        "ntrigger": 1,
        "x_pixel_size": 75e-6,
        "y_pixel_size": 75e-6,
        "beam_center_x": 150.0,
        "beam_center_y": 100.0,
        "detector_distance": 0.15,
        "wavelength": 1.0,
        "omega_start": 10.0,
        "omega_increment": 0.1,
        "pixel_mask_applied": True,
    }
)


def images(count: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Frames with spots, some of them on pixels that the mask leaves out."""
    random = np.random.default_rng(count)
    frames = random.poisson(1, (count, *SHAPE)).astype(np.uint32)
    for frame in frames:
        for y, x in random.integers(10, 180, (30, 2)):
            frame[y : y + 2, x : x + 3] = random.integers(50, 4000)
        frame[60:80] = np.iinfo(np.uint32).max
    return frames


def write_file(path: Path, frames: np.ndarray[Any, Any], **how: Any) -> Path:
    """A master file with a mask and a saturation, and the meta file that detectors write beside it."""
    mask = np.zeros(SHAPE, np.uint32)
    mask[60:80], mask[100:110, :100] = 1, 8
    with h5py.File(path, "w") as file:
        detector = describe(file)
        dataset(detector, "pixel_mask", mask)
        dataset(detector, "saturation_value", 3000)
        turned = group(group(file["entry"], "sample", "NXsample"), "transformations", "NXtransformations")  # pyright: ignore[reportArgumentType]
        angles = 10 + 0.1 * np.arange(len(frames))
        axis(turned, "omega", angles, "rotation", (-1.0, 0.0, 0.0), ".", "deg")
        how = how or {"chunks": (1, *SHAPE), **hdf5plugin.Bitshuffle()}
        file["entry/data"].create_dataset("data", data=frames, **how)  # pyright: ignore[reportAttributeAccessIssue]
    with h5py.File(path.with_name(f"{path.stem.removesuffix('_master')}_meta.h5"), "w") as file:
        file["config"] = CONFIG
    return path
