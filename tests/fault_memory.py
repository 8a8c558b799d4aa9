"""Whether processes grow while nothing but work happens to them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from fault_place import Place

_SETTLED = 0.3  # of the rows: by then all that is loaded at first use is loaded
_FEWEST_SAMPLES = 3


@dataclass(frozen=True)
class Growth:
    """What processes gained, in MB in 10,000 rows of the table.

    Attributes:
        most: Of the process that gained most.
        name: Which that is.
        largest: What the largest process holds, in MB.
        processes: How many were looked at.
    """

    most: float
    name: str
    largest: float
    processes: int

    def __str__(self) -> str:
        return (
            f"memory: at most {self.most:+.1f} MB in 10,000 rows ({self.name}, "
            f"of {self.processes} processes); the largest holds {self.largest:.0f} MB"
        )


def growth(place: Place, since: int) -> Growth:
    """How much processes grew that lived from when there were `since` rows until now.

    What each held in the last tenth of that time is compared with the tenth after all had settled.
    """
    measured = _measured(place, since)
    assert measured, f"no process lived from row {since} to row {place.progress}"
    number = max(measured, key=lambda each: measured[each][0])
    largest = max(held for _, held in measured.values())
    return Growth(measured[number][0], place.names[number], largest, len(measured))


def is_measurable(place: Place, since: int) -> bool:
    """Whether anything can be said yet: a quick broker leaves little time to look at memory."""
    return bool(_measured(place, since))


def _measured(place: Place, since: int) -> dict[int, tuple[float, float]]:
    """What each process gained, in MB in 10,000 rows, and what it holds, in MB."""
    now = place.progress
    settled, tenth = since + _SETTLED * (now - since), 0.1 * (now - since)
    measured: dict[int, tuple[float, float]] = {}
    for number, samples in list(place.memory.items()):
        early = [size for rows, size in samples if settled <= rows < settled + tenth]
        late = [size for rows, size in samples if rows >= now - tenth and size]
        alive = samples[0][0] <= since and samples[-1][0] >= now - tenth
        if alive and min(len(early), len(late)) >= _FEWEST_SAMPLES:
            gained = (median(late) - median(early)) / 1e6 * 10_000 / (now - settled - 2 * tenth)
            measured[number] = gained, median(late) / 1e6
    return measured
