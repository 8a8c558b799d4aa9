"""Arrays by pixel that come with the start of a series."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from parvis_services.stream.encoding import raw_size
from parvis_services.stream.events import MalformedStream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask: TypeAlias = NDArray[np.uint32]
    FlatField: TypeAlias = NDArray[np.float32]

_log = logging.getLogger(__name__)


def mask_of(shape: tuple[int, int] | None, data: memoryview | None) -> Mask | None:
    """The mask that a detector sent as little-endian `uint32`, as an array of its own.

    One that does not fit is left out and logged: without it the frames are still good.

    Args:
        shape: Pixels (rows, columns), or None if the detector did not say so in a form that is understood.
        data: Its bytes.
    """
    import numpy as np

    try:
        fits = shape is not None and data is not None and data.nbytes == raw_size(shape, "uint32")
    except MalformedStream:
        fits = False
    if not fits or data is None or shape is None:
        _log.warning("the pixel mask that the detector sent is left out: it is no array of its pixels")
        return None
    return np.frombuffer(data, "<u4").reshape(shape).astype(np.uint32)


def mask_or_zeros(mask: Mask | None, shape: tuple[int, int]) -> NDArray[Any]:
    """The mask as it is sent, zeros if there is none. Raises ValueError if it does not fit."""
    import numpy as np

    return _as_sent(np.zeros(shape, "<u4") if mask is None else mask.astype("<u4"), shape)


def flatfield_or_ones(flatfield: FlatField | None, shape: tuple[int, int]) -> NDArray[Any]:
    """The flat field as it is sent, ones if there is none. Raises ValueError if it does not fit."""
    import numpy as np

    return _as_sent(np.ones(shape, "<f4") if flatfield is None else flatfield.astype("<f4"), shape)


def _as_sent(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    if array.shape != shape:
        raise ValueError(f"an array by pixel has the shape {array.shape}, the frames have {shape}")
    return array
