"""Check that the services are there that a site expects."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from parvis.observe.cards import Card, CardBoard
from parvis.observe.health import Finding
from parvis.observe.health_settings import SERVICES, texts
from parvis.observe.wording import counted
from parvis.service.status import TOPIC, Status

if TYPE_CHECKING:
    from parvis.config import Config

_LISTEN: Final = 7.5  # seconds; everybody broadcasts every six
_LOOK: Final = 0.1


def services(config: Config) -> Iterable[Finding]:
    """The services that the site expects say that they are there."""
    wanted = texts(config, SERVICES)
    if not wanted:
        yield Finding("skipped", f"{SERVICES} names no service")
        return
    board = CardBoard()
    transport = config.transport()
    transport.connect(timeout=10)
    try:
        transport.subscribe_broadcast(TOPIC, board.take)
        deadline = time.monotonic() + _LISTEN
        while time.monotonic() < deadline and not all(_of(name, board.cards()) for name in wanted):
            time.sleep(_LOOK)
    finally:
        transport.disconnect()
    for name in wanted:
        yield _judge(name, _of(name, board.cards()))


def _judge(name: str, cards: list[Card]) -> Finding:
    if not cards:
        message = f"no instance was heard of within {_LISTEN:g} s"
        return Finding("error", message, name, f"Start it: parvis service -s {name}")
    failed = [card.place for card in cards if card.status == Status.ERROR]
    count = counted(len(cards), "instance")
    if failed:
        message = f"{count}, in error: {', '.join(failed[:5])}"
        level = "error" if len(failed) == len(cards) else "warning"
        return Finding(level, message, name, f"Look into its log: parvis logs --service {name}")
    return Finding("ok", f"seen at {', '.join(card.place for card in cards[:5])}", name)


def _of(name: str, cards: list[Card]) -> list[Card]:
    """The cards of a service, by its name or that of its class; a process may run several."""
    wanted = name.casefold()
    return [
        card
        for card in cards
        if wanted
        in {one.strip().casefold() for text in (card.service, card.service_class) for one in text.split(",")}
    ]
