"""Those who watch a host: which there are, and how they are told without getting in its way."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from parvis.config import Config
from parvis.observe.hops import reports_hops
from parvis.observe.liveness_settings import liveness_settings
from parvis.observe.log_broadcast import LogBroadcast, broadcast_level
from parvis.observe.recent import Recent
from parvis.observe.tracing_settings import tracing_settings
from parvis.service.base import AnyService
from parvis.service.figures import OwnFigures
from parvis.service.flow import FlowControl
from parvis.service.flow_limits import Limits
from parvis.service.observer import Handled, Observer, Pulse
from parvis.transport.base import Message, Send, Transport

logger = logging.getLogger("parvis.host")
_FAILED = "%s failed; the messages go on without it"


def default_observers(config: Config) -> list[Observer]:
    """Return the observers that the configuration asks for.

    Raises:
        ConfigError: One cannot be had as it is configured.
    """
    observers: list[Observer] = [FlowControl(Limits.of(config.storage)), Recent(), OwnFigures()]
    if (level := broadcast_level(config)) is not None:
        observers.append(LogBroadcast(level))
    if config.metrics_port is not None:
        from parvis.observe.metrics import start_metrics

        observers.append(start_metrics(config))
    liveness = liveness_settings(config)
    if liveness is not None:
        from parvis.observe.endpoints import start_endpoints

        observers.append(start_endpoints(liveness))
    if reports_hops(config):
        from parvis.observe.hop_recorder import HopRecorder

        observers.append(HopRecorder())
    tracing = tracing_settings(config)
    if tracing is not None:
        from parvis.observe.tracing import Tracing

        observers.append(Tracing(tracing))
    return observers


class Observers:
    """All observers of a host as one. What one of them raises is logged, and nobody else notices."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        # Called for every message: only those that have something to do there.
        self._handling = [one for one in observers if type(one).handling is not Observer.handling]
        self._sending = [one for one in observers if type(one).sending is not Observer.sending]
        self._closing = [one for one in observers if type(one).closing is not Observer.closing]

    @property
    def has_closing(self) -> bool:
        """Whether any of them adds to transactions."""
        return bool(self._closing)

    def pulse(self, pulse: Pulse) -> None:
        """As `Observer.pulse`."""
        self._tell(lambda observer: observer.pulse(pulse))

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:
        """As `Observer.started`."""
        self._tell(lambda observer: observer.started(transport, services))

    def inbox(self, depth: Callable[[], int]) -> None:
        """As `Observer.inbox`."""
        self._tell(lambda observer: observer.inbox(depth))

    def subscribed(self, service: AnyService, queue: str) -> None:
        """As `Observer.subscribed`."""
        self._tell(lambda observer: observer.subscribed(service, queue))

    def handling(
        self, service: AnyService, messages: Sequence[Message]
    ) -> contextlib.AbstractContextManager[None]:
        """As `Observer.handling`. What is raised inside is raised on, and observers cannot swallow it."""
        return _Inside(self._handling, lambda observer: observer.handling(service, messages))

    def settling(self, handled: Handled) -> contextlib.AbstractContextManager[None]:
        """As `Observer.settling`."""
        return _Inside(self._observers, lambda observer: observer.settling(handled))

    def sending(self, handled: Handled, sends: Sequence[Send]) -> Sequence[Send]:
        """As `Observer.sending`, one after the other."""
        for observer in self._sending:
            try:
                sends = observer.sending(handled, sends)
            except Exception:
                logger.exception(_FAILED, type(observer).__name__)
        return sends

    def closing(self, handled: Sequence[Handled]) -> list[Send]:
        """As `Observer.closing`, of all together."""
        sends: list[Send] = []
        for observer in self._closing:
            try:
                sends += observer.closing(handled)
            except Exception:
                logger.exception(_FAILED, type(observer).__name__)
        return sends

    def committed(self, handled: Sequence[Handled]) -> None:
        """As `Observer.committed`."""
        self._tell(lambda observer: observer.committed(handled))

    def uncommitted(self, handled: Sequence[Handled], reason: str) -> None:
        """As `Observer.uncommitted`."""
        self._tell(lambda observer: observer.uncommitted(handled, reason))

    def stopped(self) -> None:
        """As `Observer.stopped`."""
        self._tell(lambda observer: observer.stopped())

    def card(self) -> dict[str, Any]:
        """As `Observer.card`, of all together."""
        card: dict[str, Any] = {}
        for observer in self._observers:
            try:
                card |= observer.card()
            except Exception:
                logger.exception(_FAILED, type(observer).__name__)
        return card

    def _tell(self, call: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:
                logger.exception(_FAILED, type(observer).__name__)


class _Inside(contextlib.AbstractContextManager[None]):
    """The contexts of all observers as one. A class, as it is entered for every message."""

    __slots__ = ("_context_of", "_entered", "_observers")

    def __init__(
        self,
        observers: Sequence[Observer],
        context_of: Callable[[Observer], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._observers = observers
        self._context_of = context_of
        self._entered: list[tuple[Observer, contextlib.AbstractContextManager[None]]] = []

    def __enter__(self) -> None:
        for observer in self._observers:
            try:
                context = self._context_of(observer)
                context.__enter__()
            except Exception:
                logger.exception(_FAILED, type(observer).__name__)
            else:
                self._entered.append((observer, context))

    def __exit__(self, *_: object) -> None:
        for observer, context in reversed(self._entered):
            try:
                context.__exit__(None, None, None)
            except Exception:
                logger.exception(_FAILED, type(observer).__name__)
