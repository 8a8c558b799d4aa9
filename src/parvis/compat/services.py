"""Our services as services of `workflows`, to be run by `zocalo.service` or any other of its launchers.

Each service has its class here under its own name, made when it is asked for. So an entry point

    [project.entry-points."workflows.services"]
    PerImageAnalysis = "parvis.compat.services:PerImageAnalysis"

is all that a service needs, those of other packages, too: they are found as everywhere, by the entry points
`parvis.services`.
"""

# `workflows` says of little what type it has, and what a service may use of it has names with underscores.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, cast

from workflows.services.common_service import CommonService
from workflows.transport.common_transport import CommonTransport

from parvis.compat.incoming import SettlingTransport, incoming
from parvis.config import Config
from parvis.observe.hop_recorder import reported
from parvis.observe.hops import reports_hops
from parvis.observe.logs import complete_records
from parvis.service.base import AnyBatchService, AnyService, BatchService
from parvis.service.handling import Outcome
from parvis.service.identity import identified, occasion_of
from parvis.service.observer import Handled
from parvis.service.observers import Observers
from parvis.service.registry import BrokenService, UnknownService, find_services, load_service
from parvis.service.remembered import Remembered
from parvis.service.settling import settle
from parvis.service.worker import Worker
from parvis.transport.base import Message, Send, Transport

_IDLE = 10.0  # seconds; each time that they have passed is a status that is broadcast
_OURS = ("parvis", "parvis_services", "parvis_wrappers")


class ServiceAdapter(CommonService):
    """Runs a service of ours on the transport and under the front end of `workflows`.

    Messages are handled and settled as in a host of ours: retries, dead letters with their reasons, and what
    is redelivered in a process of its own.
    """

    service_class: ClassVar[type[AnyService]]
    _logger_name = "parvis.service"

    def initializing(self) -> None:
        """Start the service and take its messages."""
        config = Config.load(environments=getattr(self.config, "active_environments", ()))
        level = logging.DEBUG if config.verbosity else logging.INFO
        for name in _OURS:
            logging.getLogger(name).setLevel(level)
        complete_records(config)
        self._reports_hops = reports_hops(config)
        service = self._service = self.service_class(config)
        service.start()
        self._worker = Worker(service, Observers(()), survived=())
        if service.remember:
            self._worker.memory = Remembered(service.remember)
        self._headers: list[Mapping[str, Any]] = []
        self._settling = SettlingTransport(cast("CommonTransport", self.transport))
        self._register_idle(_IDLE, self._look_around)
        self._settling.theirs.subscribe(
            service.queue,
            self._take,
            acknowledgement=True,
            exclusive=service.exclusive,
            prefetch_count=self._worker.prefetch,
            disable_mangling=True,
        )

    def in_shutdown(self) -> None:
        """Handle what is in hand, and stop the service."""
        if not hasattr(self, "_settling"):
            return
        if self._settling.theirs.is_connected():
            self._close_batch()
        self._worker.close()
        self._service.stop()

    def _take(self, header: Mapping[str, Any], body: str | bytes) -> None:
        message = incoming(self._service.queue, header, body)
        if isinstance(self._service, BatchService):
            self._add_to_batch(self._service, header, message)
        else:
            self._settle([header], [self._worker.handle(message)])

    def _add_to_batch(self, service: AnyBatchService, header: Mapping[str, Any], message: Message) -> None:
        if not self._headers:
            self._register_idle(service.batch_wait, self._look_around)
        self._headers.append(header)
        if self._worker.gather(service, message) or time.monotonic() >= self._worker.batch_due:
            self._close_batch()

    def _look_around(self) -> None:
        """Nothing has come for a while."""
        self._worker.close_child_if_idle()
        self._close_batch()

    def _close_batch(self) -> None:
        if not self._headers or not isinstance(self._service, BatchService):
            return
        headers, self._headers = self._headers, []
        self._register_idle(_IDLE, self._look_around)
        self._settle(headers, self._worker.handle_batch(self._service, self._worker.take_batch()))

    def _settle(self, headers: Sequence[Mapping[str, Any]], handled: Sequence[Handled]) -> None:
        try:
            pairs = [(one, self._sends(one)) for one in handled]
            sends = reported(pairs) if self._reports_hops else [send for _, sends in pairs for send in sends]
            self._settling.commit(headers, sends)
        except (TypeError, ValueError, RecursionError) as error:
            self._service.log.exception("what %s sends cannot be sent", self._service.name)
            self._settle_what_can_be(headers, handled, error)
            return
        if self._worker.memory is not None:
            done = [one.message for one in handled if one.outcome.result == "done"]
            self._worker.memory.record(map(occasion_of, done))

    def _sends(self, handled: Handled) -> Sequence[Send]:
        transport = cast("Transport", self._settling)
        sends = settle(transport, self._service, handled.message, handled.outcome)
        return identified(handled.message, sends)

    def _settle_what_can_be(
        self, headers: Sequence[Mapping[str, Any]], handled: Sequence[Handled], error: Exception
    ) -> None:
        """Settle messages one by one; reject the one that cannot be settled, and hand it back if need be."""
        if len(headers) > 1:
            for header, one in zip(headers, handled, strict=True):
                self._settle([header], [one])
        elif handled[0].outcome.result != "reject":
            reason = f"what came of it cannot be sent: {type(error).__name__}: {error}"
            self._settle(headers, [replace(handled[0], outcome=Outcome("reject", reason=reason))])
        else:
            self._settling.theirs.nack(dict(headers[0]))


@cache
def adapter(name: str) -> type[ServiceAdapter]:
    """Return the class by which `workflows` runs the service `name`.

    Raises:
        UnknownService, BrokenService: There is no such service, or it cannot be loaded.
    """
    service = load_service(name)
    attributes = {"service_class": service, "_service_name": service.name, "__doc__": service.__doc__}
    made = type(service.__name__, (ServiceAdapter,), {**attributes, "__module__": __name__})
    return cast("type[ServiceAdapter]", made)


def __getattr__(name: str) -> Any:
    if name in find_services():
        with contextlib.suppress(UnknownService):
            try:
                return adapter(name)
            except BrokenService as error:
                raise ImportError(str(error)) from error
    raise AttributeError(f"module {__name__} has no attribute {name!r}: there is no such service")
