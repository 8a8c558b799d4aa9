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
from functools import cache
from typing import Any, ClassVar, cast

from workflows.services.common_service import CommonService
from workflows.transport.common_transport import CommonTransport

from parvis.compat.incoming import SettlingTransport, incoming
from parvis.config import Config
from parvis.observe.logs import complete_records
from parvis.service.base import AnyService, BatchService
from parvis.service.handling import Batch, Outcome, handle, handle_batch, read
from parvis.service.identity import identified
from parvis.service.isolated import IsolatedService
from parvis.service.registry import BrokenService, UnknownService, find_services, load_service
from parvis.service.settling import CRASHES, count, settle
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
        service = self._service = self.service_class(config)
        service.start()
        self._isolated = IsolatedService(service)
        self._batch = Batch()
        self._headers: list[Mapping[str, Any]] = []
        self._batch_due = float("inf")
        self._settling = SettlingTransport(cast("CommonTransport", self.transport))
        self._register_idle(_IDLE, self._look_around)
        window = 2 * service.batch_size if isinstance(service, BatchService) else service.prefetch
        self._settling.theirs.subscribe(
            service.queue,
            self._take,
            acknowledgement=True,
            exclusive=service.exclusive,
            prefetch_count=window,
            disable_mangling=True,
        )

    def in_shutdown(self) -> None:
        """Handle what is in hand, and stop the service."""
        if not hasattr(self, "_settling"):
            return
        if self._settling.theirs.is_connected():
            self._close_batch()
        self._isolated.close()
        self._service.stop()

    def _take(self, header: Mapping[str, Any], body: str | bytes) -> None:
        message = incoming(self._service.queue, header, body)
        if isinstance(self._service, BatchService):
            self._add_to_batch(self._service, header, message)
        else:
            self._settle([header], [message], [self._handle(message)])

    def _handle(self, message: Message) -> Outcome:
        if _killed_somebody(message):
            return self._isolated.handle([message])[0]
        return handle(self._service, message)

    def _add_to_batch(
        self, service: BatchService[Any, Any], header: Mapping[str, Any], message: Message
    ) -> None:
        if not self._batch.messages:
            self._batch_due = time.monotonic() + service.batch_wait
            self._register_idle(service.batch_wait, self._look_around)
        work = read(service, message)
        self._batch.messages.append(message)
        self._batch.work.append(work)
        self._headers.append(header)
        full = len(self._headers) >= service.batch_size or time.monotonic() >= self._batch_due
        if full or isinstance(work, Outcome) or self._closes(service):
            self._close_batch()

    def _closes(self, service: BatchService[Any, Any]) -> bool:
        try:
            return service.closes_batch(self._batch.readable())
        except Exception:
            # The same message fails in process_batch, where the fault is charged to it.
            service.log.exception("closes_batch failed")
            return True

    def _look_around(self) -> None:
        """Nothing has come for a while."""
        self._isolated.close_if_idle()
        self._close_batch()

    def _close_batch(self) -> None:
        batch, headers = self._batch, self._headers
        self._batch, self._headers, self._batch_due = Batch(), [], float("inf")
        self._register_idle(_IDLE, self._look_around)
        if not headers or not isinstance(self._service, BatchService):
            return
        if any(_killed_somebody(message) for message in batch.messages):
            outcomes = self._isolated.handle(batch.messages)
        else:
            outcomes = handle_batch(self._service, batch)
        self._settle(headers, batch.messages, outcomes)

    def _settle(
        self, headers: Sequence[Mapping[str, Any]], messages: Sequence[Message], outcomes: Sequence[Outcome]
    ) -> None:
        try:
            sends = [
                send
                for message, outcome in zip(messages, outcomes, strict=True)
                for send in self._sends(message, outcome)
            ]
            self._settling.commit(headers, sends)
        except (TypeError, ValueError, RecursionError) as error:
            self._service.log.exception("what %s sends cannot be sent", self._service.name)
            self._reject(headers, messages, outcomes, error)

    def _sends(self, message: Message, outcome: Outcome) -> Sequence[Send]:
        return identified(message, settle(cast("Transport", self._settling), self._service, message, outcome))

    def _reject(
        self,
        headers: Sequence[Mapping[str, Any]],
        messages: Sequence[Message],
        outcomes: Sequence[Outcome],
        error: Exception,
    ) -> None:
        """Settle messages one by one; refuse the one that cannot be settled, and hand it back if need be."""
        if len(headers) > 1:
            for header, message, outcome in zip(headers, messages, outcomes, strict=True):
                self._settle([header], [message], [outcome])
        elif outcomes[0].result != "reject":
            reason = f"what came of it cannot be sent: {type(error).__name__}: {error}"
            self._settle(headers, messages, [Outcome("reject", reason=reason)])
        else:
            self._settling.theirs.nack(dict(headers[0]))


def _killed_somebody(message: Message) -> bool:
    return message.redelivered or count(message, CRASHES) > 0


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
