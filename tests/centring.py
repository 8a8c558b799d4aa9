"""Grids for the X-ray centring of tests, and what came to its queue."""

from __future__ import annotations

from typing import Any

from parvis.transport.embedded.thread import BrokerThread
from running import NAMESPACE

QUEUE = "reduce.xray_centering"


def grid_info(columns: int, rows: int) -> dict[str, Any]:
    """What ISPyB says of a grid of 20 micron boxes that is scanned row by row, always from left to right."""
    return {
        "steps_x": columns,
        "steps_y": rows,
        "dx_mm": 0.02,
        "dy_mm": 0.02,
        "micronsPerPixelX": 1.0,
        "micronsPerPixelY": 1.0,
        "snapshot_offsetXPixel": 0.0,
        "snapshot_offsetYPixel": 0.0,
        "snaked": 0,
        "orientation": "horizontal",
    }


def come_to_centring(broker: BrokerThread) -> int:
    """How many messages have ever come to the queue of the centring."""
    name = f"/queue/{NAMESPACE}.{QUEUE}"
    (queue,) = [each for each in broker.statistics() if each.name == name]
    return queue.enqueued
