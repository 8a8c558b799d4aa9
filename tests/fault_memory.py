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
    now = place.progress
    settled, tenth = since + _SETTLED * (now - since), 0.1 * (now - since)
    gains: dict[int, float] = {}
    held: dict[int, float] = {}
    for number, samples in place.memory.items():
        early = [size for rows, size in samples if settled <= rows < settled + tenth]
        late = [size for rows, size in samples if rows >= now - tenth and size]
        alive = samples[0][0] <= since and samples[-1][0] >= now - tenth
        if alive and min(len(early), len(late)) >= _FEWEST_SAMPLES:
            held[number] = median(late) / 1e6
            gains[number] = (median(late) - median(early)) / 1e6 * 10_000 / (now - settled - 2 * tenth)
    assert gains, f"no process lived from row {since} to row {now}"
    number = max(gains, key=gains.__getitem__)
    return Growth(gains[number], place.names[number], max(held.values()), len(gains))
