"""How a card, a line for an instance and a line for a service are drawn: pieces of text with their styles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from parvis.monitor.arrange import Group, Order, is_outdated, mean_utilisation
from parvis.monitor.look import (
    BAD,
    CHOSEN,
    DIM,
    FRAME,
    NOTE,
    PLAIN,
    SILENT,
    STRONG,
    WARN,
    bar,
    fitted,
    load_style,
    state_look,
)
from parvis.observe.cards import LATE, Card

CARD_HEIGHT: Final = 6
_NAMELESS: Final = "(no service)"
LEAST_CARD: Final = 38

Parts = Sequence[tuple[str, Style]]


@dataclass(frozen=True, slots=True)
class Scene:
    """What drawing depends on beside what is drawn.

    Attributes:
        now: The time, on the monotonic clock.
        newest: The newest version of each software.
    """

    now: float
    newest: Mapping[str, tuple[int, ...]]


def joined(parts: Parts, width: int) -> list[Segment]:
    """Return parts as a piece of a line that is `width` cells wide, cut where there is no room."""
    segments: list[Segment] = []
    left = width
    for text, style in parts:
        length = cell_len(text)
        if length > left:
            segments.append(Segment(fitted(text, left), style))
            return segments
        segments.append(Segment(text, style))
        left -= length
    return [*segments, Segment(" " * left)] if left else segments


def state_parts(card: Card, scene: Scene) -> Parts:
    """The state, or since when nothing was heard."""
    age = card.age(scene.now)
    if age > LATE:
        sign, style = SILENT
        return [(f"{sign} last seen {age:.0f} s", style)]
    sign, style = state_look(card.state)
    return [(f"{sign} {card.state or '-'}", style)]


def _service(card: Card, _: Scene) -> Parts:
    return [(card.service or _NAMELESS, STRONG if card.service else DIM)]


def _place(card: Card, _: Scene) -> Parts:
    machine, _dot, process = card.place.rpartition(".")
    job = [(f" job {card.job}", DIM)] if card.job else []
    return [(f"{machine}.", PLAIN), (process, DIM), *job] if machine else [(process, PLAIN), *job]


def _tag(card: Card, _: Scene) -> Parts:
    return [(card.tag, NOTE)]


def _busy(card: Card, _: Scene) -> Parts:
    return busy_parts(card.utilisation)


def busy_parts(share: float | None) -> Parts:
    """A utilisation as a bar and in per cent."""
    if share is None:
        return []
    style = load_style(share)
    return [*bar(share, 5, style), (f"{share:5.0%}", style)]


def _recipe(card: Card, _: Scene) -> Parts:
    return [(card.recipe[:8], NOTE)]


def _memory(card: Card, _: Scene) -> Parts:
    return [] if card.memory is None else [(f"{card.memory:4.0f} MB", DIM)]


def _errors(card: Card, _: Scene) -> Parts:
    return errors_parts([card])


def errors_parts(cards: Sequence[Card]) -> Parts:
    """How many messages came to nothing good."""
    count = sum(sum(card.doings.errors.values()) for card in cards)
    return [(f"{count:6d}", BAD)] if count else []


def _flow(card: Card, _: Scene) -> Parts:
    return flow_parts([card])


def flow_parts(cards: Sequence[Card]) -> Parts:
    """Figures of flow control, added up; what is held back stands out."""
    names = sorted({name for card in cards for name in card.flow})
    sums = {name: sum(card.flow.get(name, 0) for card in cards) for name in names}
    return [
        (f"{name} {number:g} ", WARN if name == "held" else DIM) for name, number in sums.items() if number
    ]


def version_parts(card: Card, scene: Scene) -> Parts:
    """The version, and whether there is a newer one."""
    if is_outdated(card, scene.newest):
        return [("outdated ", WARN), (card.version, WARN)]
    return [(card.version, DIM)]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list.

    Attributes:
        title: Its heading.
        width: How wide it is at least.
        most: How wide it may become where there is room.
        of_card: What stands there for an instance.
        of_group: What stands there for a service.
        order: What a click on the heading sorts by.
    """

    title: str
    width: int
    most: int
    of_card: Callable[[Card, Scene], Parts]
    of_group: Callable[[Group, Scene], Parts]
    order: Order | None = None


def _nothing(_: Group, _scene: Scene) -> Parts:
    return []


def _group_name(group: Group, _: Scene) -> Parts:
    return [(group.service or _NAMELESS, STRONG)]


def _inside(card: Card, scene: Scene) -> Parts:
    return [("└ ", FRAME), *_place(card, scene)]


def _group_count(group: Group, _: Scene) -> Parts:
    return [(f"{len(group.cards):5d}", PLAIN)]


def group_states(group: Group, scene: Scene) -> Parts:
    """How many instances are in which state; what asks for attention first, rest last."""
    silent = sum(card.age(scene.now) > LATE for card in group.cards)
    states = Counter(card.state for card in group.cards if card.age(scene.now) <= LATE)
    parts = [(f"{SILENT[0]} {silent} silent  ", SILENT[1])] if silent else []
    for state, count in sorted(
        states.items(), key=lambda pair: (pair[0] == "idle", pair[0] != "error", pair[0])
    ):
        sign, style = state_look(state)
        parts.append((f"{sign} {count} {state or '-'}  ", style))
    return parts


def _group_busy(group: Group, _: Scene) -> Parts:
    return busy_parts(mean_utilisation(group.cards))


def _group_memory(group: Group, _: Scene) -> Parts:
    told = [card.memory for card in group.cards if card.memory is not None]
    return [(f"{sum(told):5.0f} MB", DIM)] if told else []


def _group_errors(group: Group, _: Scene) -> Parts:
    return errors_parts(group.cards)


def _group_flow(group: Group, _: Scene) -> Parts:
    return flow_parts(group.cards)


def _group_version(group: Group, scene: Scene) -> Parts:
    old = sum(is_outdated(card, scene.newest) for card in group.cards)
    versions = sorted({card.version for card in group.cards}, reverse=True)
    first = versions[0] if versions else ""
    return [(first, DIM), (f"  {old} outdated", WARN)] if old else [(first, DIM)]


_BUSY: Final = Column("BUSY", 10, 10, _busy, _group_busy, Order.UTILISATION)
_ERRORS: Final = Column("ERRORS", 6, 6, _errors, _group_errors)
_MEMORY: Final = Column("MEMORY", 8, 8, _memory, _group_memory)
_FLOW: Final = Column("FLOW", 16, 34, _flow, _group_flow)
_VERSION: Final = Column("VERSION", 14, 26, version_parts, _group_version)

# In the order in which they stand, and in which they grow. The second half of a line is given up first.
_OF_INSTANCES: Final = (
    Column("SERVICE", 18, 30, _service, _group_name, Order.SERVICE),
    Column("HOST", 18, 34, _place, _nothing, Order.HOST),
    Column("STATE", 17, 26, state_parts, _nothing, Order.STATE),
    _BUSY,
    Column("RECIPE", 8, 8, _recipe, _nothing),
    _ERRORS,
    _MEMORY,
    _VERSION,
    Column("TAG", 6, 12, _tag, _nothing),
    _FLOW,
)
_OF_SERVICES: Final = (
    Column("SERVICE", 19, 32, _inside, _group_name, Order.SERVICE),
    Column("COUNT", 5, 5, lambda _card, _scene: [], _group_count, Order.HOST),
    Column("STATE", 30, 48, state_parts, group_states, Order.STATE),
    _BUSY,
    _ERRORS,
    _MEMORY,
    _VERSION,
    _FLOW,
)
MARGIN: Final = 2
_GAP: Final = 1


@lru_cache(maxsize=16)
def columns_for(width: int, *, services: bool, empty: frozenset[str]) -> Sequence[tuple[Column, int]]:
    """Return the columns that a line of `width` cells has room for, and how wide each is.

    Args:
        width: Cells of a line.
        services: Whether there is a line for each service.
        empty: Titles of columns for which nobody has anything to say: they get no room.
    """
    left = width - MARGIN
    columns = [
        column for column in (_OF_SERVICES if services else _OF_INSTANCES) if column.title not in empty
    ]
    chosen: list[Column] = []
    for column in columns:
        need = column.width + (_GAP if chosen else 0)
        if need > left:
            break
        chosen.append(column)
        left -= need
    if not chosen:
        return [(columns[0], max(1, left))]
    widths = [column.width for column in chosen]
    while left > 0 and (growing := [n for n, column in enumerate(chosen) if widths[n] < column.most]):
        for number in growing[:left]:
            widths[number] += 1
            left -= 1
    return list(zip(chosen, widths, strict=True))


def empty_columns(cards: Sequence[Card]) -> frozenset[str]:
    """Return the titles of columns for which nobody has anything to say."""
    told = {
        "TAG": any(card.tag for card in cards),
        "FLOW": any(card.flow for card in cards),
        "MEMORY": any(card.memory is not None for card in cards),
        "ERRORS": any(card.doings.errors for card in cards),
    }
    return frozenset(title for title, is_told in told.items() if not is_told)


def row_line(
    card: Card, columns: Sequence[tuple[Column, int]], scene: Scene, *, chosen: bool, repeats: bool
) -> list[Segment]:
    """Return a line for an instance; the name of the service stands back where it `repeats`."""
    line = [Segment("▶ " if chosen else "  ", CHOSEN)]
    for number, (column, width) in enumerate(columns):
        parts = column.of_card(card, scene)
        if repeats and number == 0:
            parts = [(text, DIM) for text, _ in parts]
        line += joined(parts, width)
        line.append(Segment(" "))
    return line


def group_line(
    group: Group, columns: Sequence[tuple[Column, int]], scene: Scene, *, chosen: bool, opened: bool
) -> list[Segment]:
    """Return a line for a service."""
    sign = ("▼ " if opened else "▶ ") if chosen else ("▾ " if opened else "▸ ")
    line = [Segment(sign, CHOSEN if chosen else DIM)]
    for column, width in columns:
        line += joined(column.of_group(group, scene), width)
        line.append(Segment(" "))
    return line


def heading_line(columns: Sequence[tuple[Column, int]], order: Order) -> list[tuple[str, Style]]:
    """Return the heads of the columns; that which is sorted by stands out."""
    parts: list[tuple[str, Style]] = [(" " * MARGIN, DIM)]
    for column, width in columns:
        sorted_by = column.order is order
        title = f"{column.title} ▾" if sorted_by else column.title
        parts += [(fitted(title, width), STRONG if sorted_by else DIM), (" ", DIM)]
    return parts


def card_lines(card: Card, width: int, scene: Scene, *, chosen: bool) -> list[list[Segment]]:
    """Return the `CARD_HEIGHT` lines of a card that is `width` cells wide."""
    inner = width - 4
    frame = CHOSEN if chosen else FRAME
    top, side, bottom = ("┏━┓", "┃", "┗━┛") if chosen else ("╭─╮", "│", "╰─╯")
    name = fitted(card.service or _NAMELESS, min(cell_len(card.service) or 12, inner))
    title: Parts = [(f" {name} ", STRONG if card.service else DIM)]
    line = top[1] * (width - 3 - cell_len(name) - 2)
    busy = busy_parts(card.utilisation)
    content: list[Parts] = [
        _beside(state_parts(card, scene), busy, inner),
        _beside([*_place(card, scene), *_tag_beside(card)], _held(card), inner),
        _doing(card),
        _keeping(card, scene),
    ]
    return [
        [Segment(top[0] + top[1], frame), *(Segment(*part) for part in title), Segment(line + top[2], frame)],
        *(
            [Segment(side + " ", frame), *joined(parts, inner), Segment(" " + side, frame)]
            for parts in content
        ),
        [Segment(bottom[0] + bottom[1] * (width - 2) + bottom[2], frame)],
    ]


def _beside(left: Parts, right: Parts, width: int) -> Parts:
    """What stands at the left and at the right of a line; only the left if there is no room for both."""
    need = sum(cell_len(text) for text, _ in left) + sum(cell_len(text) for text, _ in right)
    return [*left, (" " * (width - need), PLAIN), *right] if need < width else left


def _doing(card: Card) -> Parts:
    """What is in hand, else what came last."""
    if card.recipe:
        return [("recipe ", DIM), (card.recipe, NOTE)]
    if not card.doings.last:
        return [("a task: ends by itself", DIM)] if card.is_task else []
    last = card.doings.last[0]
    if last.result in {"done", "duplicate"}:
        return [(f"last {last.result} ", DIM), (last.recipe[:8], DIM), (f" in {last.seconds:.3g} s", DIM)]
    return [(f"last {last.result}: ", BAD), (last.reason, PLAIN)]


def _tag_beside(card: Card) -> Parts:
    return [(f"  {card.tag}", NOTE)] if card.tag and not card.node else []


def _held(card: Card) -> Parts:
    """Whether it holds messages back because those before them are not handled yet."""
    held = card.flow.get("held", 0)
    return [(f"held {held:g}", WARN)] if held else []


def _keeping(card: Card, scene: Scene) -> Parts:
    parts: list[tuple[str, Style]] = [*version_parts(card, scene)]
    errors = sum(card.doings.errors.values())
    if errors:
        parts.append((f" · {errors} error{'s' if errors > 1 else ''}", BAD))
    if card.memory is not None:
        parts.append((f" · {card.memory:.0f} MB", DIM))
    return parts
