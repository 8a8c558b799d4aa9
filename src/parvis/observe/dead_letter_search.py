"""Looking for dead letters: which of them somebody means, and where they are.

Looking takes nothing from a queue; `parvis.steer.dead_letters` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from parvis.observe.dead_letters import DeadLetter, of_peeked, origin_of
from parvis.observe.queue_figures import LONGEST_PEEK, NoPeek, QueueFigures, QueueSource

_LATE: Final = "RabbitMQ"
_SHORTEST: Final = 4  # characters of an identity that may mean a letter


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters somebody means: those that fit everything that is given.

    Attributes:
        namespace: Of the queue that they died in; empty for any.
        queues: Names of queues that they died in, with or without namespace and prefix; empty for any.
        reason: What the reason says somewhere, or between two slashes a regular expression; in any case.
        service: Who gave them up, in any case.
        older, newer: Seconds that they have been dead at least, and at most.
        recipe_id: How the recipe ID begins.
    """

    namespace: str = ""
    queues: tuple[str, ...] = ()
    reason: str = ""
    service: str = ""
    older: float | None = None
    newer: float | None = None
    recipe_id: str = ""

    def has_queue(self, queue: str) -> bool:
        """Whether a queue of dead letters, by its whole name, can hold what is wanted."""
        origin = origin_of(queue)
        if not origin:
            return not self.queues or queue in self.queues
        inside = not self.namespace or origin.startswith(f"{self.namespace}.")
        names = {origin, queue, origin.removeprefix(f"{self.namespace}.") if self.namespace else origin}
        return (inside and not self.queues) or bool(
            names & {*self.queues} and (inside or queue in self.queues)
        )

    def matches(self, letter: DeadLetter) -> bool:
        """Whether a dead letter in one of these queues is wanted.

        Raises:
            ValueError: `reason` is no regular expression.
        """
        if self.namespace and not origin_of(letter.queue) and not self._is_inside(letter.origin):
            return False
        if self.service and letter.service.casefold() != self.service.casefold():
            return False
        if self.recipe_id and not (letter.recipe_id or "").startswith(self.recipe_id):
            return False
        age = letter.age
        if self.older is not None and (age is None or age < self.older):
            return False
        if self.newer is not None and (age is None or age > self.newer):
            return False
        return not self.reason or _says(letter.reason, self.reason)

    def _is_inside(self, origin: str) -> bool:
        return not origin or origin.startswith(f"{self.namespace}.")


@dataclass(frozen=True, slots=True)
class Listing:
    """The dead letters that were found.

    Attributes:
        letters: Those that are wanted, by queue, the oldest first.
        held: How many there are in each queue of dead letters, wanted or not, by its whole name.
        problems: Queues that could not be looked into, and why; or not to their end.
        has_more: Whether more may be found once these are gone.
    """

    letters: Sequence[DeadLetter]
    held: Mapping[str, int]
    problems: Mapping[str, str]
    has_more: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters of one queue with one reason.

    Attributes:
        queue: As of `DeadLetter`.
        reason: What their reasons have in common: figures and names in it are left out, as `…`.
        letters: The oldest first.
    """

    queue: str
    reason: str
    letters: Sequence[DeadLetter]


def find(
    source: QueueSource, wanted: Wanted | None = None, *, most: int = LONGEST_PEEK, at_a_price: bool = False
) -> Listing:
    """Look for dead letters, and leave them where they are.

    Args:
        source: Who looks into queues.
        wanted: Which; by default all.
        most: How many to look at in each queue, from its head; up to `LONGEST_PEEK`.
        at_a_price: As of `QueueSource.peek`.

    Raises:
        TransportError: The broker does not answer.
        ValueError: `wanted.reason` is no regular expression.
    """
    wanted = wanted or Wanted()
    # RabbitMQ tells some seconds late how many messages there are, and a look may change their order.
    is_late = source.product == _LATE
    queues = dead_letter_queues(source.figures(), wanted, even_empty=is_late)
    held: dict[str, int] = {}
    letters: list[DeadLetter] = []
    problems: dict[str, str] = {}
    has_more = False
    for queue in queues:
        try:
            peeked = source.peek(queue.absolute, most, at_a_price=at_a_price)
        except NoPeek as error:
            problems[queue.absolute] = str(error)
            held[queue.absolute] = queue.held or 0
            continue
        found = [letter for one in peeked if wanted.matches(letter := of_peeked(one))]
        letters += sorted(found, key=_age_and_name if is_late else _age)
        is_all = len(peeked) < most
        held[queue.absolute] = len(peeked) if is_late and is_all else queue.held or 0
        if not is_all and (queue.held or 0) > most:
            problems[queue.absolute] = f"only the first {most} of {queue.held} were looked at"
            has_more = True
    held = {queue: count for queue, count in held.items() if count}
    return Listing(numbered(letters), held, problems, has_more)


def _age(letter: DeadLetter) -> float:
    return letter.died or 0.0


def _age_and_name(letter: DeadLetter) -> tuple[float, str]:
    return _age(letter), letter.identity


def numbered(letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Return dead letters with their numbers in a listing."""
    return [replace(letter, number=number) for number, letter in enumerate(letters, 1)]


def dead_letter_queues(
    figures: Iterable[QueueFigures], wanted: Wanted, *, even_empty: bool = False
) -> list[QueueFigures]:
    """Return the queues that may hold wanted dead letters and are not empty, by name."""
    found = [
        one
        for one in figures
        if one.kind == "queue"
        and one.dead_letters
        and (one.held or even_empty)
        and wanted.has_queue(one.absolute)
    ]
    return sorted(found, key=lambda one: one.absolute)


def grouped(letters: Iterable[DeadLetter]) -> list[Group]:
    """Return dead letters by queue and what their reasons have in common, most frequent first in a queue."""
    groups: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault((letter.queue, common_reason(letter.reason)), []).append(letter)
    found = [Group(queue, reason, members) for (queue, reason), members in groups.items()]
    return sorted(found, key=lambda one: (one.queue, -len(one.letters), one.reason))


_VARIABLE: Final = re.compile(r"""'[^']*'|"[^"]*"|/\S+|\b0x[0-9a-fA-F]+|\d+(?:\.\d+)?""")
_LONGEST_REASON: Final = 2000


def common_reason(reason: str) -> str:
    """Return a reason in one line, without what differs from message to message: figures, names, paths."""
    line = " ".join(reason[:_LONGEST_REASON].split())
    return _VARIABLE.sub("…", line)


def chosen(letters: Sequence[DeadLetter], name: str) -> DeadLetter:
    """Return the dead letter that somebody means: by its number, or the beginning or end of its identity.

    Raises:
        LookupError: None, or more than one; the text says so.
    """
    long_enough = len(name) >= _SHORTEST
    found = (
        [one for one in letters if name == str(one.number)]
        or [one for one in letters if name and name in (one.identity, one.message_id)]
        or [one for one in letters if long_enough and one.identity.startswith(name)]
        or [one for one in letters if long_enough and one.identity.endswith(name)]
    )
    if len(found) == 1:
        return found[0]
    if found:
        numbers = ", ".join(str(one.number) for one in found[:5])
        raise LookupError(f"{name[:80]!r} means {len(found)} dead letters ({numbers}): give a number")
    raise LookupError(
        f"there is no dead letter {name[:80]!r} among {len(letters)}; `parvis dlq list` shows them"
    )


def check_reason(wanted: str) -> None:
    """Raise ValueError if `Wanted.reason` is to be a regular expression, and is none."""
    _says("", wanted)


def _says(reason: str, wanted: str) -> bool:
    if len(wanted) > 2 and wanted[0] == wanted[-1] == "/":
        try:
            return re.search(wanted[1:-1], reason, re.IGNORECASE) is not None
        except re.error as error:
            raise ValueError(f"{wanted} is no regular expression: {error}") from None
    return wanted.casefold() in reason.casefold()
