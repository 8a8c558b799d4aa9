"""Those who watch a host: which there are, and how they are told without getting in its way."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

from parvis.config import Config
from parvis.observe.tracing_settings import tracing_settings
from parvis.service.base import AnyService
from parvis.service.flow import FlowControl
from parvis.service.flow_limits import Limits
from parvis.service.observer import Handled, Observer
from parvis.transport.base import Message, Send, Transport

_log = logging.getLogger("parvis.host")


def default_observers(config: Config) -> list[Observer]:
    """Return the observers that the configuration asks for.

    Raises:
        ConfigError: One cannot be had as it is configured.
    """
    observers: list[Observer] = [FlowControl(Limits.of(config.storage))]
    if config.metrics_port is not None:
        from parvis.observe.metrics import start_metrics

        observers.append(start_metrics(config))
    tracing = tracing_settings(config)
    if tracing is not None:
        from parvis.observe.tracing import Tracing

        observers.append(Tracing(tracing))
    return observers


class Observers:
    """All observers of a host as one. What one of them raises is logged, and nobody else notices."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def __bool__(self) -> bool:
        return bool(self._observers)

    def started(self, transport: Transport, services: Sequence[AnyService]) -> None:
        """As `Observer.started`."""
        self._tell(lambda observer: observer.started(transport, services))

    def subscribed(self, service: AnyService, queue: str) -> None:
        """As `Observer.subscribed`."""
        self._tell(lambda observer: observer.subscribed(service, queue))

    @contextlib.contextmanager
    def handling(self, service: AnyService, messages: Sequence[Message]) -> Generator[None]:
        """As `Observer.handling`. What is raised inside is raised on, and observers cannot swallow it."""
        entered: list[tuple[Observer, contextlib.AbstractContextManager[None]]] = []
        for observer in self._observers:
            with _guarded(observer):
                context = observer.handling(service, messages)
                context.__enter__()
                entered.append((observer, context))
        try:
            yield
        finally:
            for observer, context in reversed(entered):
                with _guarded(observer):
                    context.__exit__(None, None, None)

    def sending(self, handled: Handled, sends: Sequence[Send]) -> Sequence[Send]:
        """As `Observer.sending`, one after the other."""
        for observer in self._observers:
            with _guarded(observer):
                sends = observer.sending(handled, sends)
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
            with _guarded(observer):
                card |= observer.card()
        return card

    def _tell(self, call: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            with _guarded(observer):
                call(observer)


@contextlib.contextmanager
def _guarded(observer: Observer) -> Generator[None]:
    try:
        yield
    except Exception:  # noqa: BLE001 - whoever watches must not stop the work
        _log.exception("%s failed; the messages go on without it", type(observer).__name__)
