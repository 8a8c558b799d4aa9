"""Accounting for a recipe flow: each item once in the table or once among the dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import uuid4

import orjson

from fault_place import Feeder, Place
from fault_services import Habit, digest_of
from parvis.service.failure import REASON
from parvis.service.identity import IDENTITY
from parvis.transport.base import Message, Send, Transport
from waiting import wait_until

QUEUES = ("processing_recipe", "faults.source", "faults.work", "faults.sink")

REASONS: dict[Habit, str] = {
    "segfault": "died of SIGSEGV",
    "killed": "died of SIGKILL",
    "hang": "it took longer than 3 s",
    "stuck": "it took longer than 3 s, and could not be interrupted",
    "memory": "MemoryError",
    "raise": "ValueError: item {item} is a surprise",
    "reject": "item {item} is no good",
}


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter of the worker: which item, as which message, and why."""

    item: int
    identity: str
    reason: str


@dataclass(frozen=True)
class Account:
    """What became of everything.

    Attributes:
        items: How many items went in.
        rows: How many are in the table.
        dead: How many are among the dead letters.
        doubled_rows: How many of the rows were written more than once, without having been sent twice.
        doubled_letters: How many dead letters came a second time.
    """

    items: int
    rows: int
    dead: int
    doubled_rows: int
    doubled_letters: int

    def __str__(self) -> str:
        return (
            f"{self.items} items: {self.rows} rows and {self.dead} dead letters; "
            f"handled twice: {self.doubled_rows} and {self.doubled_letters}"
        )


def dead_letters(transport: Transport, queue: str) -> list[Message]:
    """All dead letters of a queue; they stay there."""
    probe = Message(queue, b"", {}, "", 0)
    letter = transport.dead_letter(probe, {REASON: "probe"})
    return _content(transport, letter.destination, absolute=letter.absolute)


def left_over(transport: Transport, queue: str) -> list[Message]:
    """All messages in a queue to which nobody listens."""
    return _content(transport, queue, absolute=False)


def _content(transport: Transport, queue: str, *, absolute: bool) -> list[Message]:
    """Everything in front of a mark that is put at the end of the queue."""
    mark = uuid4().hex
    transport.send(Send(queue, mark.encode(), absolute=absolute))
    messages: list[Message] = []
    number = transport.subscribe(queue, messages.append, prefetch=60_000, absolute=absolute)
    wait_until(lambda: any(message.body == mark.encode() for message in messages), 60, f"the end of {queue}")
    transport.unsubscribe(number)
    return [message for message in messages if b"recipe" in message.body]


def letters_of_worker(transport: Transport) -> list[DeadLetter]:
    """The dead letters of the worker, read."""
    return [
        DeadLetter(
            orjson.loads(message.body)["payload"]["item"],
            message.headers.get(IDENTITY, ""),
            message.headers[REASON],
        )
        for message in dead_letters(transport, "faults.work")
    ]


def wait_for_all(place: Place, feeder: Feeder, timeout: float) -> None:
    """Return when every item has a row, or should have become a dead letter and did; and so have copies."""
    good = feeder.issued - len(feeder.poison)
    place.wait_for_rows(good, timeout)
    copied = "SELECT COUNT(*) FROM result WHERE writes > 1"
    place.wait_for(
        lambda: place.read(copied)[0][0] >= len(feeder.copies) or place.progress > good, timeout, "all copies"
    )
    place.wait_for(
        lambda: {letter.item for letter in letters_of_worker(place.transport)} >= set(feeder.poison),
        timeout,
        f"the dead letters of {feeder.poison}",
    )


def account(place: Place, feeder: Feeder) -> Account:
    """Account for every item; the services must have stopped.

    Raises:
        AssertionError: An item is nowhere, or in two places, or not what it should be.
    """
    rows = place.read("SELECT item, digest, writes FROM result ORDER BY item")
    good = [number for number in range(1, feeder.issued + 1) if number not in feeder.poison]
    _check_same("rows", [item for item, _, _ in rows], good)
    wrong = [item for item, digest, _ in rows if digest != digest_of(item)]
    assert not wrong, f"rows with another item's result: {wrong[:10]}"
    letters = letters_of_worker(place.transport)
    once = {letter.identity: letter for letter in letters}
    _check_same("dead letters", sorted(letter.item for letter in once.values()), sorted(feeder.poison))
    for letter in letters:
        expected = REASONS[feeder.poison[letter.item]].format(item=letter.item)
        assert expected in letter.reason, f"item {letter.item}: {letter.reason!r} does not say {expected!r}"
    for queue in QUEUES:
        if queue != "faults.work":
            reasons = [message.headers.get(REASON) for message in dead_letters(place.transport, queue)]
            assert not reasons, f"dead letters of {queue}: {reasons[:5]}"
        rest = left_over(place.transport, queue)
        assert not rest, f"{len(rest)} messages are left in {queue}: {rest[0]}"
    short = [item for item, _, writes in rows if writes < feeder.copies.get(item, 1)]
    assert not short, f"sent several times, and not all of them came: {short[:10]}"
    doubled = sum(writes > feeder.copies.get(item, 1) for item, _, writes in rows)
    return Account(feeder.issued, len(rows), len(once), doubled, len(letters) - len(once))


def _check_same(what: str, found: Sequence[int], expected: Sequence[int]) -> None:
    twice = {one for one, other in pairwise(found) if one == other}
    assert not twice, f"{what} that are there twice: {_some(twice)}"
    missing = set(expected) - set(found)
    strange = set(found) - set(expected)
    assert not missing, f"{len(missing)} of {len(expected)} {what} are missing: {_some(missing)}"
    assert not strange, f"{what} that should not be there: {_some(strange)}"


def _some(numbers: Iterable[int]) -> Any:
    return sorted(numbers)[:10]
