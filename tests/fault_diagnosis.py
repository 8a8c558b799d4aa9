"""What to tell of a flow that does not come to its end: where everything is, and what the services do."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any

import orjson

from fault_account import QUEUES, dead_letters, left_over
from fault_place import Feeder, Place
from parvis.service.failure import REASON
from parvis.transport.base import Message, TransportError
from waiting import wait_until

_FRAMES = 2  # of each thread
_MAIN_FRAMES = 6  # of the one that handles messages
_LAST_WORDS = 2  # lines of each log
_WIDTH = 300
_THREAD = re.compile(r"^(?:Current thread|Thread) 0x\w+", re.MULTILINE)
_FRAME = re.compile(r'File "[^"]*?([^/"]+)", line (\d+) in (\w+)')


@contextlib.contextmanager
def explained(place: Place, feeder: Feeder, report: Callable[[str], None]) -> Generator[None]:
    """Report where everything is if the block fails; the services have stopped then."""
    try:
        yield
    except Exception:
        for line in diagnosis(place, feeder):
            report(line[:_WIDTH])
        raise


def diagnosis(place: Place, feeder: Feeder) -> Iterator[str]:
    """Lines that say what was under way, what is in the queues and the table, and the ends of the logs."""
    last_words = [
        f"{log.stem}: {line}"
        for log in place.logs
        for line in log.read_text(errors="replace").splitlines()[-_LAST_WORDS:]
    ]
    yield f"{place.progress} rows; {feeder.issued} items were asked for, {len(feeder.poison)} of them poison"
    yield from _stacks(place)
    try:
        place.stop_services()
        feeder.stop()
    except AssertionError as error:
        yield str(error)
    try:
        yield from _whereabouts(place, feeder)
    except (TransportError, AssertionError, OSError) as error:
        yield f"the broker does not say what it has: {error}"
    yield from last_words


def _stacks(place: Place) -> Iterator[str]:
    """What each thread of each service is at. This ends the services (see `faulthandler`)."""
    sizes = {log: log.stat().st_size for log in place.logs}
    ended = dict(place.supervisor.process_ids)
    for number in ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGABRT)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: ended.keys().isdisjoint(place.supervisor.process_ids), 5, "their ends")
    for log, size in sizes.items():
        said = log.read_bytes()[size:].decode(errors="replace")
        threads = _THREAD.split(said.partition("Fatal Python error: Aborted")[2])[1:]
        stacks = [[f"{file}:{line} {name}" for file, line, name in _FRAME.findall(one)] for one in threads]
        # What waits for another thread is told by the line that waits, not by `threading`.
        told = [[frame for frame in stack if not frame.startswith("threading.py")] for stack in stacks]
        if told:  # the main thread comes last
            shown = [told[-1][:_MAIN_FRAMES], *(stack[:_FRAMES] for stack in told[:-1] if stack)]
            yield f"{log.stem} was at {'; '.join(map(' < '.join, shown))}"


def _whereabouts(place: Place, feeder: Feeder) -> Iterator[str]:
    """What each queue holds, and which items are neither in the table nor in any queue."""
    seen: Counter[int] = Counter(item for (item,) in place.read("SELECT DISTINCT item FROM result"))
    for queue in QUEUES:
        for kind, messages in (
            ("left", left_over(place.transport, queue)),
            ("dead", dead_letters(place.transport, queue)),
        ):
            items = [item for message in messages for item in _items(message)]
            seen.update(items)
            if messages:
                why = f" ({messages[0].headers.get(REASON, '')})" if kind == "dead" else ""
                yield f"{queue}: {len(messages)} {kind}, items {sorted(items)[:10]}{why}"
    missing = [item for item in range(1, feeder.issued + 1) if item not in seen]
    yield f"nowhere: {len(missing)} items, {missing[:10]}"


def _items(message: Message) -> range | tuple[int, ...]:
    """The items that a message is about."""
    content: Any = orjson.loads(message.body)
    payload = content.get("payload") if "payload" in content else content["custom_recipe"]["start"][0][1]
    return (payload["item"],) if "item" in payload else range(payload["first"], payload["last"] + 1)
