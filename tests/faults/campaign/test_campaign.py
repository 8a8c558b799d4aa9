"""At least ten thousand items go through three services while everything around them breaks.

Each item must be in the table once, or once among the dead letters with its reason. `PARVIS_FAULTS=long`
gives every fault a flow of its own, and its full length.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fault_account import account, wait_for_all
from fault_brokers import FaultyBroker
from fault_diagnosis import explained
from fault_injections import FAULTS, PATIENCE, Fault, Scale, logbook_disk_full
from fault_memory import Growth, growth, is_measurable
from fault_place import Feeder, Place, faulty_place
from real.mariadb import MariaDb
from stepped_clock import SteppedClock

ITEMS = 10_000
RESUMED = 200  # rows after which things are on their way again
MOST_GROWTH = 6.0  # MB in 10,000 rows
_MEASUREMENTS = 3

if os.environ.get("PARVIS_FAULTS") == "long":
    CAMPAIGNS = [pytest.param([fault], id=fault.__name__) for fault in FAULTS]
else:
    CAMPAIGNS = [pytest.param(FAULTS, id="all_faults")]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("faults", CAMPAIGNS)
def test_every_item_is_accounted_for(
    tmp_path: Path,
    broker_name: str,
    broker: FaultyBroker,
    mariadb: MariaDb,
    clock: SteppedClock,
    logbook: Path,
    scale: Scale,
    faults: Sequence[Fault],
    report: Callable[[str], None],
) -> None:
    begun = time.monotonic()
    with faulty_place(tmp_path, broker, mariadb, clock) as place:
        feeder = Feeder(place)
        with explained(place, feeder, report):
            feeder.start()
            place.wait_for_progress(scale.each, PATIENCE)
            for fault in faults:
                if _is_possible(fault, logbook):
                    report(f"{broker_name:9} {_suffer(place, feeder, fault, scale)}")
            grown = _growth(place, max(scale.steady, ITEMS - feeder.issued))
            feeder.stop()
            wait_for_all(place, feeder, PATIENCE)
            place.stop_services()
            found = account(place, feeder)
    assert found.items >= ITEMS
    report(f"{broker_name:9} {found} in {time.monotonic() - begun:.0f} s")
    report(f"{broker_name:9} {grown}")
    assert grown.most <= MOST_GROWTH, str(grown)


def _is_possible(fault: Fault, logbook: Path) -> bool:
    """Whether a fault can happen here: only who may mount can have a disk that is full."""
    return fault is not logbook_disk_full or logbook.is_mount()


def _growth(place: Place, rows: int) -> Growth:
    """How memory grows while nothing breaks; measured again if it does: what leaks goes on leaking."""
    measured: list[Growth] = []
    while len(measured) < _MEASUREMENTS and not (measured and measured[-1].most <= MOST_GROWTH):
        since = place.progress
        place.wait_for_progress(rows, PATIENCE)
        place.wait_for(lambda since=since: is_measurable(place, since), PATIENCE, "enough looks at memory")
        measured.append(growth(place, since))
    return measured[-1]


def _suffer(place: Place, feeder: Feeder, fault: Fault, scale: Scale) -> str:
    """Have one fault happen; say how long it took, and how long until the flow was on its way again."""
    begun, before = time.monotonic(), place.progress
    fault(place, feeder, scale)
    over, then = time.monotonic(), place.progress
    place.wait_for_progress(RESUMED, PATIENCE)
    recovery = time.monotonic() - over
    place.wait_for_progress(scale.each - RESUMED, PATIENCE)
    name = fault.__name__.replace("_", " ")
    return (
        f"{name:20} {over - begun:6.1f} s, {then - before:5} rows meanwhile; recovered in {recovery:5.1f} s"
    )
