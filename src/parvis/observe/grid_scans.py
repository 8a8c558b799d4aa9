"""What is known of a grid scan while its images are being analysed.

Where the results are kept is a matter of the site: whoever can read them says so in the entry point group
`parvis.grid_scans`. What is read is what the services have stored, so every grid scan can be seen, whoever
started it, and nothing is asked of those who analyse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from parvis.config import Config

ENTRY_POINTS = "parvis.grid_scans"


class GridScansUnavailable(Exception):
    """Grid scans cannot be read just now; the text says why."""


@dataclass(frozen=True, slots=True)
class GridScanSummary:
    """A line in a list of grid scans.

    Attributes:
        dcid: Number of the data collection.
        name: What people call it.
        place: The beamline, as far as known.
        began: When it began, as the database has it, in ISO form; or None.
        columns: Boxes in a row.
        rows: Boxes in a column.
        seen: Of how many boxes there is a result.
    """

    dcid: int
    name: str
    place: str
    began: str | None
    columns: int
    rows: int
    seen: int

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GridScan:
    """A grid scan, and the results of its images so far.

    Attributes:
        summary: What and where it is.
        box_um: Width and height of a box in micrometres.
        counts: Number of spots in each box, row by row from the top left; None where nothing is known.
        images: Number of the image of each box, in the same order.
    """

    summary: GridScanSummary
    box_um: tuple[float, float]
    counts: Sequence[float | None]
    images: Sequence[int]

    @property
    def best(self) -> int | None:
        """Index of the box with the most spots, the first of several; None if no spot was found."""
        known = [(count, -index) for index, count in enumerate(self.counts) if count]
        return -max(known)[1] if known else None

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            **self.summary.to_json(),
            "box_um": list(self.box_um),
            "counts": list(self.counts),
            "images": list(self.images),
        }


class GridScanSource(Protocol):
    """Where grid scans are read from. Methods may be called from any thread."""

    def recent(self, most: int) -> Sequence[GridScanSummary]:
        """Return the newest grid scans, the newest first. Raises GridScansUnavailable."""
        ...

    def scan(self, dcid: int) -> GridScan | None:
        """Return one grid scan, None if that data collection is none. Raises GridScansUnavailable."""
        ...


def grid_scan_source(config: Config) -> GridScanSource | None:
    """Return where grid scans can be read from with this configuration; None if nowhere.

    Each entry point is a function that takes the configuration and returns a source, or None if what it reads
    from is not configured. The first source counts.
    """
    from importlib.metadata import entry_points

    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda found: found.name):
        source: GridScanSource | None = entry.load()(config)
        if source is not None:
            return source
    return None
