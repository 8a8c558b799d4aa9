"""Dead letters, and what will become of them, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.text import Text

from parvis.observe.dead_letter_search import Group, Listing, grouped
from parvis.observe.dead_letters import origin_of
from parvis.observe.message_text import sections, summary
from parvis.observe.queue_figures import PeekedMessage
from parvis.observe.wording import age_text, moment_text, times
from parvis.recipe.problem import printable
from parvis.service.failure import HEADERS, TRACEBACK

if TYPE_CHECKING:
    from parvis.observe.dead_letters import DeadLetter
    from parvis.steer.preview import Prospect

_REASON: Final = 160
_LISTED: Final = 5
_TRACEBACK_LINES: Final = 60


def list_lines(listing: Listing, *, is_any: bool, every: bool) -> Iterator[Text]:
    """What there is: a line for each queue as `zocalo.dlq_check` words it, and the reasons below.

    Args:
        listing: What was found.
        is_any: Nothing restricts it: the counts are those of the broker.
        every: Show a line for each letter.
    """
    groups = grouped(listing.letters)
    total = 0
    for queue, held in sorted(listing.held.items()):
        mine = [group for group in groups if group.queue == queue]
        count = held if is_any else sum(len(group.letters) for group in mine)
        if not count:
            continue
        total += count
        name = printable(origin_of(queue) or queue, 255)
        yield Text(f"DLQ for {name} contains {count} entries", style="bold")
        for group in mine:
            yield from _group_lines(group, every=every)
    yield Text(f"Total of {total} DLQ messages found" if total else "No DLQ messages found")


def _group_lines(group: Group, *, every: bool) -> Iterator[Text]:
    letters = group.letters
    services = sorted({printable(one.service, 60) for one in letters if one.service})
    # What is left out of a reason differs from letter to letter: of one letter it can be told.
    reason = letters[0].reason if len(letters) == 1 else group.reason
    yield Text.assemble((f"  {len(letters):>5} x ", "red"), printable(" ".join(reason.split()), _REASON))
    ages = [age for one in letters if (age := one.age) is not None]
    told = [*services[:3], _ages(ages)] if ages else services[:3]
    if told:
        yield Text(f"          {', '.join(told)}", style="dim")
    shown = letters if every else letters[:_LISTED]
    for one in shown:
        yield Text(f"    {one.number:>4}  {printable(one.short_id, 40):<24}  {_content(one)}")
    if len(shown) < len(letters):
        yield Text(f"          {len(letters) - len(shown)} more: --all shows them", style="dim")


def _ages(ages: Sequence[float]) -> str:
    oldest, newest = age_text(max(ages)), age_text(min(ages))
    return f"{oldest} ago" if oldest == newest else f"from {oldest} to {newest} ago"


def _content(letter: DeadLetter) -> str:
    again = f"sent in again {times(letter.reinjected)} before  " if letter.reinjected else ""
    return again + printable(summary(_message(letter)), 100)


def letter_lines(letter: DeadLetter, *, full: bool) -> Iterator[Text]:
    """All of a dead letter, what was wrong with it first."""
    yield Text(f"── {letter.number}  {printable(letter.identity, 100)}", style="bold")
    yield from _block("reason", [printable(line, 8000) for line in letter.reason.split("\n")], "red")
    yield from _block("died", list(_circumstances(letter)))
    if letter.traceback:
        lines = [printable(line, 2000) for line in letter.traceback.rstrip().split("\n")]
        if not full and len(lines) > _TRACEBACK_LINES:
            lines = ["…", *lines[-_TRACEBACK_LINES:]]
        yield from _block("traceback", lines)
    if letter.route:
        yield from _block("route", [printable(letter.route, 1000)])
    for section in sections(_message(letter), full=full):
        if section.title != "reason":
            yield from _block(section.title, section.lines)


def _circumstances(letter: DeadLetter) -> Iterator[str]:
    yield f"in     {printable(letter.origin or letter.queue, 255)}"
    if letter.died is not None:
        yield f"at     {moment_text(letter.died)} ({age_text(letter.age or 0)} ago)"
    if letter.service:
        yield f"by     {printable(letter.service, 100)}  {printable(letter.host, 100)}".rstrip()
    tries = "" if letter.tries is None else f"tried {times(letter.tries)}"
    told = ", ".join(part for part in (printable(letter.result, 100), tries) if part)
    if told:
        yield f"how    {told}"
    if letter.reinjected:
        yield f"again  it was sent in again {times(letter.reinjected)} before"


def _block(title: str, lines: Sequence[str], style: str = "") -> Iterator[Text]:
    yield Text(f"  {title}", style="blue")
    for line in lines:
        yield Text(f"    {line}", style=style)


def _message(letter: DeadLetter) -> PeekedMessage:
    """The letter as a message without what is told elsewhere."""
    told = {*HEADERS, TRACEBACK}
    headers = {name: value for name, value in letter.headers.items() if name not in told}
    return PeekedMessage(
        letter.queue, letter.number, letter.message_id, headers, letter.body, letter.size, letter.died
    )


def prospect_lines(prospects: Sequence[Prospect]) -> Iterator[Text]:
    """What sending them in again will do: by queue, and what stands against it."""
    for queue in sorted({one.queue for one in prospects}):
        mine = [one for one in prospects if one.queue == queue]
        listeners = mine[0].listeners
        heard = "" if listeners is None else f", {listeners} listening"
        name = printable(queue, 255) if queue else "nowhere"
        services = sorted({one.service for one in mine if one.service})
        who = f" ({', '.join(services)}{heard})" if services else f" ({heard[2:]})" if heard else ""
        plural = "dead letter" if len(mine) == 1 else "dead letters"
        yield Text(f"{len(mine)} {plural} → {name}{who}", style="bold")
        yield from _notes(mine, obstacles=True)
        yield from _notes(mine, obstacles=False)


def _notes(prospects: Sequence[Prospect], *, obstacles: bool) -> Iterator[Text]:
    found: dict[str, list[int]] = {}
    for one in prospects:
        for note in one.obstacles if obstacles else one.warnings:
            found.setdefault(note, []).append(one.letter.number)
    for note, numbers in list(found.items())[:_LISTED]:
        which = ", ".join(map(str, numbers[:_LISTED])) + (", …" if len(numbers) > _LISTED else "")
        everyone = len(numbers) == len(prospects)
        place = "" if everyone or not any(numbers) else f"{which}: "
        yield Text(f"    {'✗' if obstacles else '!'} {place}{note}", style="red" if obstacles else "yellow")
    if len(found) > _LISTED:
        yield Text(f"    {len(found) - _LISTED} more notes", style="dim")
