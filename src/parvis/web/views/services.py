"""Services: a card for each, its instances within."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from parvis.observe.cards import LATE, Card
from parvis.observe.recent_messages import RecentMessage
from parvis.service.status import Status
from parvis.web.live import Part, View
from parvis.web.rendering import part, part_id
from parvis.web.sources import Sources

_MOST_MESSAGES: Final = 10
_MOST_INSTANCES: Final = 300
_TONES: Final = {
    Status.PROCESSING: "busy",
    Status.TIMER: "busy",
    Status.IDLE: "idle",
    Status.ERROR: "bad",
    Status.END: "off",
    Status.TEARDOWN: "off",
    Status.SHUTDOWN: "off",
}
_ORDER: Final = ("bad", "late", "busy", "idle", "off")
_RESULTS: Final = {"done": "ok", "duplicate": "ok", "retry": "late"}


@dataclass(frozen=True, slots=True)
class ShownCard:
    """A card as it is shown: `busy` and `memory` as text, `seen` in seconds since 1970."""

    host: str
    place: str
    tag: str
    word: str
    tone: str
    late: bool
    seen: int
    busy: str
    memory: str
    version: str
    recipe: str
    is_task: bool


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A message that was handled, as it is shown."""

    time: float
    recipe: str
    node: str
    result: str
    seconds: float
    reason: str
    tone: str


@dataclass(frozen=True, slots=True)
class Group:
    """All instances of a service.

    Attributes:
        name: What people call it.
        address: What a command calls it; nothing for what takes none.
        tone: That of the instance that is worst off.
        states: How many are in which state: tone, word and number.
        busy: Percent of their time that they work, on average; None if nobody says.
        where: The host, if it is one.
        instances: Them.
        messages: What they handled last.
    """

    name: str
    address: str
    tone: str
    states: Sequence[tuple[str, str, int]]
    busy: int | None
    where: str
    instances: Sequence[ShownCard]
    messages: Sequence[ShownMessage]


def services_view(sources: Sources) -> View:
    """All services."""
    groups = service_groups(sources.broker.board.cards())
    cards = [part("service", group.name, group) for group in groups]
    return {"head": [_head(sources, groups)], "services": cards}


def service_view(sources: Sources, key: str) -> View:
    """One service, by the `id` of its card: its instances, and what they handled last."""
    group = find_group(sources, key)
    if group is None:
        said = part("said", "gone", "late", "None of its instances is there any more.")
        return {"head": [said], "instances": (), "actions": (), "handled": ()}
    more = len(group.instances) - _MOST_INSTANCES
    left_out = [part("said", "more", "", f"and {more:,} more")] if more > 0 else []
    shown = [part("instance", card.host, card) for card in group.instances[:_MOST_INSTANCES]]
    handled = [
        part("handled", f"{one.time} {one.recipe} {one.node} {n}", one)
        for n, one in enumerate(group.messages)
    ]
    return {
        "head": [part("summary", "summary", group)],
        "instances": shown + left_out,
        "actions": [part("stop_all", key, group)] if group.address else (),
        "handled": handled,
    }


def find_group(sources: Sources, key: str) -> Group | None:
    """Return the service whose card has this `id`, None if it is not there."""
    groups = service_groups(sources.broker.board.cards())
    return next((group for group in groups if part_id("service", group.name) == key), None)


def service_groups(cards: Sequence[Card]) -> list[Group]:
    """Put cards, sorted by service, together."""
    named = groupby(cards, key=lambda card: card.service or card.service_class or "(without a name)")
    return [_group(name, list(members)) for name, members in named]


def _head(sources: Sources, groups: Sequence[Group]) -> Part:
    if not sources.broker.is_connected:
        return part("said", "head", "bad", f"There is no connection to the broker at {sources.broker.where}.")
    if not groups:
        return part("said", "head", "late", "Nobody is there: no service has said anything.")
    count = sum(len(group.instances) for group in groups)
    tones = Counter(card.tone for group in groups for card in group.instances)
    trouble = [
        f"{tones[tone]} {word}" for tone, word in (("bad", "in error"), ("late", "silent")) if tones[tone]
    ]
    text = f"{count} {'instance' if count == 1 else 'instances'} of {len(groups)} " + (
        "service" if len(groups) == 1 else "services"
    )
    tone = "bad" if tones["bad"] else "late" if tones["late"] else "ok"
    return part("said", "head", tone, ", ".join([text, *trouble]) + ".")


def _group(name: str, cards: Sequence[Card]) -> Group:
    shown = sorted((_shown(card) for card in cards), key=lambda card: (_ORDER.index(card.tone), card.place))
    counted = Counter((card.tone, card.word) for card in shown)
    states = [(tone, word, count) for (tone, word), count in counted.items()]
    shares = [card.utilisation for card in cards if card.utilisation is not None]
    hosts = {card.place.rpartition(".")[0] for card in cards}
    messages = sorted((message for card in cards for message in card.doings.last), key=lambda one: -one.time)
    return Group(
        name=name,
        address="" if all(card.is_task for card in cards) else cards[0].service_class or name,
        tone=shown[0].tone,
        states=states,
        busy=round(100 * sum(shares) / len(shares)) if shares else None,
        where=hosts.pop() if len(hosts) == 1 else "",
        instances=shown,
        messages=[_message(one) for one in messages[:_MOST_MESSAGES]],
    )


def _shown(card: Card) -> ShownCard:
    late = card.age() > LATE
    known = card.status is not None and card.status in Status.__members__.values()
    tone = _TONES.get(Status(card.status), "idle") if known else "idle"
    return ShownCard(
        host=card.host,
        place=card.place,
        tag=card.tag,
        word="silent" if late else card.state or "there",
        tone="late" if late and tone != "off" else tone,
        late=late,
        seen=round(time.time() - card.age()),
        busy="" if card.utilisation is None else f"{100 * card.utilisation:.0f} %",
        memory="" if card.memory is None else f"{card.memory:.0f} MB",
        version=card.version,
        recipe=card.recipe,
        is_task=card.is_task,
    )


def _message(one: RecentMessage) -> ShownMessage:
    return ShownMessage(
        one.time, one.recipe, one.node, one.result, one.seconds, one.reason, _RESULTS.get(one.result, "bad")
    )
