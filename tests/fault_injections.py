"""The faults: each is a function that breaks something of a place under load, and mends it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from fault_place import Feeder, Place, let_pass
from fault_services import Habit
from tcp_proxy import Cut, Direction

PATIENCE = 120.0
_CUT_CONNECTIONS = 12
_SMALLEST_CUT = 200
_SLOW_RATE = 30_000.0  # bytes a second
_DUPLICATED = 300
_POISONED = 300
_UNNOTED = 20  # recipes
_UNNOTED_ITEMS = 25
_BLOCK = 512
_NO_SPACE = "No space left on device"


@dataclass(frozen=True)
class Scale:
    """How long faults last, in seconds, and how many there are.

    Attributes:
        kills: Services killed.
        broker_away: From the end of the broker to its new start.
        black_hole: Network that swallows everything.
        slow: Network that is slow.
        database_away: From the end of the database to its new start.
        poison: Items of each kind of poison.
        each: Items that go through the recipe from one fault to the next, at least.
        steady: Items that go through with no fault, to see that memory does not grow.
    """

    kills: int = 50
    broker_away: float = 1
    black_hole: float = 4
    slow: float = 4
    database_away: float = 8
    poison: int = 1
    each: int = 300
    steady: int = 3000


LONG = Scale(
    kills=50, broker_away=10, black_hole=60, slow=60, database_away=60, poison=5, each=5000, steady=4000
)

Fault = Callable[[Place, Feeder, Scale], None]


def services_killed(place: Place, feeder: Feeder, scale: Scale) -> None:
    """SIGKILL of a service, at random, again and again."""
    for _ in range(scale.kills):
        place.wait_for_progress(place.chance.randint(10, 80), PATIENCE)
        number = place.chance.choice(sorted(place.supervisor.process_ids))
        with contextlib.suppress(ProcessLookupError):  # it may have died of a poisonous item just now
            os.kill(number, signal.SIGKILL)


def broker_stopped(place: Place, feeder: Feeder, scale: Scale) -> None:
    """The broker stopped in good order and started again."""
    place.broker.stop()
    let_pass(scale.broker_away)
    place.broker.start()


def broker_killed(place: Place, feeder: Feeder, scale: Scale) -> None:
    """The broker killed and started again."""
    place.broker.kill()
    let_pass(scale.broker_away)
    place.broker.start()


def network_cut(place: Place, feeder: Feeder, scale: Scale) -> None:
    """Connections broken in the middle of a frame, now in this direction, now in that."""
    done = threading.Event()
    lock = threading.Lock()
    left: list[Direction] = ["up", "down"] * (_CUT_CONNECTIONS // 2)

    def cut(direction: Direction, data: bytes) -> bytes:
        with lock:
            if not left or left[-1] != direction or len(data) < _SMALLEST_CUT:
                return data
            left.pop()
            if not left:
                done.set()
        return Cut(data[: place.chance.randint(1, len(data) - 1)])

    place.proxy.watch = cut
    assert done.wait(PATIENCE), f"{len(left)} connections could not be cut"
    place.proxy.watch = None


def network_black_holed(place: Place, feeder: Feeder, scale: Scale) -> None:
    """A network that swallows what is sent and breaks no connection."""
    place.proxy.black_hole()
    let_pass(scale.black_hole)
    place.proxy.black_hole(False)


def network_slowed(place: Place, feeder: Feeder, scale: Scale) -> None:
    """A network that lets little through."""
    place.proxy.slow(_SLOW_RATE)
    let_pass(scale.slow)
    place.proxy.slow(None)


def database_away(place: Place, feeder: Feeder, scale: Scale) -> None:
    """The database stopped and started again."""
    place.mariadb.stop()
    try:
        let_pass(scale.database_away)
    finally:
        place.mariadb.start()  # others use it, too


def logbook_disk_full(place: Place, feeder: Feeder, scale: Scale) -> None:
    """No room on the disk of the dispatcher's logbook: recipes start, and it says what it cannot note."""
    ballast = place.logbook / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(_BLOCK))
    before = place.log("Dispatcher-0").count(_NO_SPACE)
    for _ in range(_UNNOTED):
        feeder.ask(_UNNOTED_ITEMS)
    place.wait_for(
        lambda: place.log("Dispatcher-0").count(_NO_SPACE) >= before + _UNNOTED, PATIENCE, "complaints"
    )
    ballast.unlink()
    first = feeder.ask(1)
    entries = f"*/*/*-{first}"  # month, first two letters of the recipe's ID, the rest of it
    place.wait_for(lambda: any(place.logbook.glob(entries)), PATIENCE, "an entry in the logbook")


def clock_stepped(place: Place, feeder: Feeder, scale: Scale) -> None:
    """The wall clock of some processes, and of the embedded broker, an hour on, two hours back, and right."""
    for hours in (1, -1, 0):
        place.clock.step(hours * 3600)
        let_pass(0.5)
        place.wait_for_progress(200, PATIENCE)


def poison(place: Place, feeder: Feeder, scale: Scale) -> None:
    """Items that kill, hang, exhaust and confuse whoever works on them, among good ones."""
    habits: Sequence[Habit] = get_args(Habit)
    places = place.chance.sample(range(_POISONED), scale.poison * len(habits))
    feeder.ask(_POISONED, {offset: habits[n % len(habits)] for n, offset in enumerate(places)})


def duplicates(place: Place, feeder: Feeder, scale: Scale) -> None:
    """A message to the source that comes three times, and so does everything that is sent because of it."""
    feeder.ask(_DUPLICATED, copies=3)


FAULTS: tuple[Fault, ...] = (
    poison,  # first, as a poisoned item is given up only after a while
    services_killed,
    broker_stopped,
    broker_killed,
    network_cut,
    network_black_holed,
    network_slowed,
    database_away,
    logbook_disk_full,
    clock_stepped,
    duplicates,
)
