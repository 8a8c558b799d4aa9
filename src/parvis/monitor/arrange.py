"""Which cards are shown, in which order, and in how much detail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import groupby, takewhile
from statistics import fmean
from typing import Any, Final

from parvis.observe.cards import LATE, Card


class Density(StrEnum):
    """How much is shown of an instance."""

    CARDS = "cards"
    ROWS = "rows"
    SERVICES = "services"


class Order(StrEnum):
    """What instances are sorted by."""

    SERVICE = "service"
    HOST = "host"
    STATE = "state"
    UTILISATION = "utilisation"
    LAST_SEEN = "last seen"


@dataclass(frozen=True, slots=True)
class Group:
    """The instances of a service."""

    service: str
    cards: Sequence[Card]


Item = Card | Group

#: States that ask for attention come first, those of rest last.
_URGENCY: Final = {
    name: place
    for place, name in enumerate(
        ("error", "", "shutting down", "starting", "constructing", "processing", "timer event", "idle")
    )
}
_SILENT: Final = 0.5
_OTHER: Final = float(_URGENCY[""])
_LONGEST_NUMBER: Final = 7


def key_of(item: Item) -> tuple[str, str]:
    """What tells an item from all others, also when it has changed."""
    return ("service", item.service) if isinstance(item, Group) else ("host", item.host)


def matching(cards: Iterable[Card], words: str) -> list[Card]:
    """Return the cards in which each of the words occurs, in any case."""
    wanted = words.casefold().split()
    return [card for card in cards if all(word in _words(card) for word in wanted)] if wanted else list(cards)


def _words(card: Card) -> str:
    parts = (
        card.service,
        card.service_class,
        card.host,
        card.place,
        card.tag,
        card.job,
        card.state,
        card.version,
        card.recipe,
    )
    return " ".join(parts).casefold()


def ordered(cards: Iterable[Card], order: Order, now: float) -> list[Card]:
    """Return the cards in an order; where they are equal, by service and host."""
    by_name = sorted(cards, key=lambda card: (card.service.casefold(), card.host))
    if order is Order.SERVICE:
        return by_name
    return sorted(by_name, key=lambda card: _place(card, order, now))


def _place(card: Card, order: Order, now: float) -> Any:
    match order:
        case Order.HOST:
            return card.host
        case Order.STATE:
            return _SILENT if card.age(now) > LATE else float(_URGENCY.get(card.state, _OTHER))
        case Order.UTILISATION:
            return -(card.utilisation if card.utilisation is not None else -1.0)
        case _:
            return -round(card.age(now)) if card.age(now) > LATE else 0


def grouped(cards: Iterable[Card], order: Order, now: float) -> list[Group]:
    """Return the cards by service, each service's in order, and the services as their most urgent cards.

    By host, services with the most instances come first; by utilisation, those whose instances are busiest.
    """
    by_name = ordered(cards, Order.SERVICE, now)
    groups = [
        Group(service, ordered(same, order, now))
        for service, same in groupby(by_name, key=lambda card: card.service)
    ]
    match order:
        case Order.SERVICE:
            return groups
        case Order.HOST:
            return sorted(groups, key=lambda group: -len(group.cards))
        case Order.UTILISATION:
            return sorted(groups, key=lambda group: -(mean_utilisation(group.cards) or 0.0))
        case _:
            return sorted(groups, key=lambda group: _place(group.cards[0], order, now))


def mean_utilisation(cards: Iterable[Card]) -> float | None:
    """Mean utilisation of those who tell it, 0 to 1, or None."""
    told = [card.utilisation for card in cards if card.utilisation is not None]
    return fmean(told) if told else None


def newest(cards: Iterable[Card]) -> Mapping[str, tuple[int, ...]]:
    """Return the newest version among the cards of each software."""
    found: dict[str, tuple[int, ...]] = {}
    for text in {card.version for card in cards}:
        software, number = _version(text)
        found[software] = max(found.get(software, ()), number)
    return found


def is_outdated(card: Card, newest_of: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether somebody runs a newer version of the same software."""
    software, number = _version(card.version)
    return number < newest_of.get(software, ())


@lru_cache(maxsize=1024)
def _version(text: str) -> tuple[str, tuple[int, ...]]:
    """The software, and the numbers that its version begins with; none if it is no version."""
    software, _, version = text.partition(" ")
    parts = takewhile(lambda part: part.isdecimal() and len(part) < _LONGEST_NUMBER, version.split("."))
    return software, tuple(int(part) for part in parts)[:4]
