"""Figures that a service gives of itself, beside what its host counts: for status card and Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from parvis.service.observer import Observer

if TYPE_CHECKING:
    from parvis.service.base import AnyService
    from parvis.transport.base import Transport

#: Keys of the status card.
FIGURES: Final = "parvis-figures"
DOING: Final = "parvis-doing"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that says how a service gets on.

    Attributes:
        name: Small letters and underscores, with the unit at the end: `frames_dropped`, `held_bytes`.
        about: What it is, in a line.
        value: The number; not below 0.
        is_counter: Whether it only ever grows.
    """

    name: str
    about: str
    value: float
    is_counter: bool = False


class OwnFigures(Observer):
    """Puts the figures of services, and what they say they are doing, on the status card."""

    def __init__(self) -> None:
        self._services: Sequence[AnyService] = ()

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:  # noqa: ARG002
        """Take note of the services."""
        self._services = services

    def card(self) -> Mapping[str, Any]:
        """What the services say; nothing of those that have nothing to say."""
        doing = ", ".join(filter(None, (service.doing() for service in self._services)))
        told = {figure.name: figure.value for service in self._services for figure in service.figures()}
        return ({DOING: doing} if doing else {}) | ({FIGURES: told} if told else {})
