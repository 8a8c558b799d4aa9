"""Grid scans: a list, and the heat map of one as it fills in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from parvis.observe.grid_scans import GridScan, GridScanSummary, GridScansUnavailable
from parvis.web.heat_map import heat_map
from parvis.web.live import Part, View
from parvis.web.rendering import harmless, part
from parvis.web.sources import Sources

_LISTED: Final = 30


@dataclass(frozen=True, slots=True)
class ShownScan:
    """A grid scan in a list."""

    dcid: int
    name: str
    place: str
    began: str
    columns: int
    rows: int
    seen: int
    size: int
    word: str
    tone: str


@dataclass(frozen=True, slots=True)
class ShownMap:
    """What is said below a heat map."""

    text: str
    largest: str


def grid_scans_view(sources: Sources) -> View:
    """The newest grid scans."""
    try:
        scans = sources.grid_scans().recent(_LISTED)
    except GridScansUnavailable as error:
        return {"scans": [part("said", "problem", "late", f"Grid scans cannot be shown: {error}")]}
    if not scans:
        return {"scans": [part("said", "none", "", "There is no grid scan in the metadata database.")]}
    return {"scans": [grid_line(scan) for scan in scans]}


def grid_line(scan: GridScanSummary) -> Part:
    """A line for a grid scan in a list."""
    size = scan.columns * scan.rows
    complete, begun = scan.seen >= size > 0, scan.seen > 0
    word, tone = ("complete", "ok") if complete else ("filling in", "busy") if begun else ("no images", "off")
    began = (scan.began or "").replace("T", " ")[:19]
    shown = ShownScan(
        scan.dcid, scan.name, scan.place, began, scan.columns, scan.rows, scan.seen, size, word, tone
    )
    return part("grid_line", str(scan.dcid), shown)


def grid_scan_view(sources: Sources, dcid: int) -> View:
    """One grid scan."""
    try:
        scan = sources.grid_scans().scan(dcid)
    except GridScansUnavailable as error:
        return {"head": [part("said", "problem", "late", f"Grid scans cannot be shown: {error}")], "map": []}
    if scan is None:
        text = f"Data collection {dcid} is no grid scan that could be shown."
        return {"head": [part("said", "none", "late", text)], "map": []}
    return {"head": [_progress(scan)], "map": [_map(scan)]}


def _progress(scan: GridScan) -> Part:
    seen, size = scan.summary.seen, scan.summary.columns * scan.summary.rows
    if seen >= size:
        return part("said", "progress", "ok", f"All {size:,} images have been looked at.")
    return part("said", "progress", "busy", f"{seen:,} of {size:,} images have been looked at.")


def _map(scan: GridScan) -> Part:
    text = _in_words(scan)
    largest = max((count for count in scan.counts if count is not None), default=0)
    name = harmless(scan.summary.name)
    picture = heat_map(scan, str(escape(f"Heat map of {name}. {text}")))
    return part("grid", str(scan.summary.dcid), ShownMap(text, f"{largest:g}"), Markup(picture))  # noqa: S704 - made of numbers and an escaped title


def _in_words(scan: GridScan) -> str:
    width, height = scan.box_um
    boxes = f"{scan.summary.columns} x {scan.summary.rows} boxes of {width:g} x {height:g} µm"
    if scan.best is None:
        return f"{boxes}; no spots found so far."
    row, column = divmod(scan.best, scan.summary.columns)
    return (
        f"{boxes}; most spots ({scan.counts[scan.best]:g}) on image {scan.images[scan.best]}, "
        f"column {column + 1}, row {row + 1}, framed."
    )
