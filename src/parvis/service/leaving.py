"""Seeing services go: whether those that were told to stop have stopped, by their status cards."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from parvis.observe.cards import LATE, Card, read_card
from parvis.service.commands import stop_instance, stop_service
from parvis.service.status import TOPIC, Status
from parvis.transport.base import Message, Send, Transport

_PERIOD: Final = 7.0
"""Seconds within which everybody who is there says so."""
_OVER: Final = frozenset({Status.END, Status.TEARDOWN})


@dataclass(frozen=True, slots=True)
class Target:
    """Who is to stop.

    Attributes:
        host: One process, by its whole name; None for all instances of a service.
        service_class: The class of that service; None for front ends without one.
    """

    host: str | None = None
    service_class: str | None = None

    @property
    def command(self) -> Send:
        """What tells them."""
        return stop_service(self.service_class) if self.host is None else stop_instance(self.host)

    def means(self, card: Card) -> bool:
        """Whether somebody is meant."""
        if self.host is not None:
            return card.host == self.host
        if card.is_task:
            return False
        return (self.service_class or "") in card.service_class.split(", ")


class Leaving:
    """Those who were told to stop: who is still there, and who is gone.

    Args:
        targets: Who was told.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = targets
        self._begun = time.monotonic()
        self._last: dict[str, Card] = {}
        self._changed = threading.Condition()

    def take(self, message: Message) -> None:
        """Take a status broadcast."""
        card = read_card(message.body, time.monotonic())
        if card is not None and any(target.means(card) for target in self._targets):
            with self._changed:
                self._last[card.host] = card
                self._changed.notify_all()

    def wait(self, until: float) -> None:
        """Return when all are gone, or at `until` on the monotonic clock."""
        with self._changed:
            while not self._are_all_gone() and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, 0.5))

    def staying(self) -> list[str]:
        """Return the hosts of those that are still there."""
        now = time.monotonic()
        with self._changed:
            return sorted(host for host, card in self._last.items() if not _is_gone(card, now))

    def gone(self) -> list[str]:
        """Return the hosts of those that were there and are gone."""
        now = time.monotonic()
        with self._changed:
            return sorted(host for host, card in self._last.items() if _is_gone(card, now))

    def unheard(self) -> list[str]:
        """Return the hosts that were named and of which nothing was heard."""
        with self._changed:
            return sorted({target.host for target in self._targets if target.host} - self._last.keys())

    def _are_all_gone(self) -> bool:
        now = time.monotonic()
        if not all(_is_gone(card, now) for card in self._last.values()):
            return False
        hosts = {target.host for target in self._targets}
        # Of a service nobody knows how many there are: everybody must have had the time to say something.
        return now - self._begun >= _PERIOD or (None not in hosts and hosts <= self._last.keys())


def _is_gone(card: Card, now: float) -> bool:
    return card.status in _OVER or card.age(now) > LATE


def watch_leave(transport: Transport, targets: Sequence[Target]) -> Leaving:
    """Begin to watch, before they are told to stop."""
    leaving = Leaving(targets)
    transport.subscribe_broadcast(TOPIC, leaving.take)
    return leaving
