"""Run services: take messages, have them handled, commit what came of it, say how things are.

One handling is one transaction: the acknowledgement of a message and everything that is sent because of it
leave together. A message that cannot be handled is sent to the dead letters or to its own queue once more in
such a transaction, too; so nothing is lost, whatever happens to this process.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from parvis.observe.logs import process_label, recipe_context
from parvis.recipe.envelope import Envelope, MalformedMessage, parse_json
from parvis.service.base import AnyService, BatchService
from parvis.service.handling import Batch, Outcome, handle, handle_batch, read
from parvis.service.identity import identified
from parvis.service.isolated import IsolatedService
from parvis.service.observer import Handled, Observer
from parvis.service.observers import Observers, default_observers
from parvis.service.settling import CRASHES, bare_dead_letter, count, settle
from parvis.service.status import Status, StatusBroadcast, host_id
from parvis.service.supervisor import is_orphan
from parvis.transport.base import BrokerRefused, Disconnected, Message, Send, Transport

COMMAND_TOPIC = "command"
_log = logging.getLogger("parvis.host")
_CONNECT_LIMIT = 10.0
_CONNECT_ATTEMPT = 3.0
_TICK = 1.0  # seconds between looks at the clock when nothing arrives
_TRIES_AFTER_REFUSAL = 3
_LONGEST_PAUSE = 30.0
_PAUSE_TICK = 0.05


class _Subscribed:
    """A service and its open batch."""

    def __init__(self, service: AnyService) -> None:
        self.service = service
        self.isolated = IsolatedService(service)
        self.batch = Batch()
        self.batch_due = float("inf")

    def take_batch(self) -> Batch:
        batch, self.batch = self.batch, Batch()
        self.batch_due = float("inf")
        return batch


@dataclass(slots=True)
class _Refused:
    """A message that the broker did not let us settle: how often, and what it said."""

    times: int
    reason: str


class Host:
    """Runs services in this process, on one connection, until told to stop.

    Args:
        transport: Connection to the broker, not yet connected.
        services: What to run. They share one thread: several light ones in a process save memory.
        queue: Queue to listen to in place of the one that the (single) service names.
        tag: A word shown on the status card.
        observers: Who is told what happens here; by default those that the configuration asks for.
    """

    def __init__(
        self,
        transport: Transport,
        services: Sequence[AnyService],
        *,
        queue: str | None = None,
        tag: str | None = None,
        observers: Sequence[Observer] | None = None,
    ) -> None:
        self._observers = Observers(default_observers(services[0].config) if observers is None else observers)
        self._transport = transport
        self._subscribed = [_Subscribed(service) for service in services]
        self._queue = queue
        self._inbox: SimpleQueue[tuple[_Subscribed, Message] | None] = SimpleQueue()
        self._stopping = False  # not an Event, whose lock a signal handler might find taken
        self._refused: dict[str, _Refused] = {}
        description: dict[str, Any] = {
            "service": ", ".join(service.name for service in services),
            "serviceclass": ", ".join(type(service).__name__ for service in services),
        }
        self._classes = {type(service).__name__ for service in services}
        self._names = description["service"]
        self._status = StatusBroadcast(transport.post, description | ({"tag": tag} if tag else {}))

    def stop(self) -> None:
        """Ask for the end: the message in hand is finished, the rest goes back. Any thread may ask."""
        self._stopping = True
        self._inbox.put(None)

    def run(self) -> None:
        """Run until `stop` is called or a shutdown command comes.

        Raises:
            Disconnected, BrokerRefused: There is no broker, or it does not let us do what we must.
        """
        with process_label(workflows_service=self._names, workflows_host=host_id()):
            if self._connect():
                self._run()

    def _run(self) -> None:
        self._status.start()
        self._status.set(Status.STARTING)
        try:
            with self._services_started():
                self._observers.started(self._transport, [one.service for one in self._subscribed])
                self._subscribe()
                _log.info("ready: %s on %s", ", ".join(sorted(self._classes)), host_id())
                self._loop()
                self._status.set(Status.SHUTDOWN)
                self._drain()
            self._status.set(Status.END)
        except BaseException:
            self._status.set(Status.ERROR)
            raise
        finally:
            self._status.stop()
            self._observers.stopped()
            self._transport.disconnect()

    def _connect(self) -> bool:
        """Connect, in short attempts so that we can be told to stop; return whether there is a connection."""
        deadline = time.monotonic() + _CONNECT_LIMIT
        while not self._stopping:
            try:
                self._transport.connect(timeout=_CONNECT_ATTEMPT)
            except Disconnected as error:
                if time.monotonic() > deadline:
                    raise
                _log.info("no broker yet, trying again: %s", error)
            else:
                return True
        return False

    @contextlib.contextmanager
    def _services_started(self) -> Generator[None]:
        with contextlib.ExitStack() as stack:
            for subscribed in self._subscribed:
                subscribed.service.start()
                stack.callback(subscribed.service.stop)
                stack.callback(subscribed.isolated.close)
            yield

    def _subscribe(self) -> None:
        for subscribed in self._subscribed:
            service = subscribed.service
            # A batch must be able to fill up while an earlier one is being handled.
            window = 2 * service.batch_size if isinstance(service, BatchService) else service.prefetch
            self._transport.subscribe(
                self._queue or service.queue,
                lambda message, subscribed=subscribed: self._inbox.put((subscribed, message)),
                prefetch=window,
                exclusive=service.exclusive,
            )
        self._transport.subscribe_broadcast(COMMAND_TOPIC, self._on_command)

    def _on_command(self, message: Message) -> None:
        with contextlib.suppress(MalformedMessage):
            command = parse_json(message.body)
            if isinstance(command, dict) and self._is_meant(command):  # pyright: ignore[reportUnknownArgumentType]
                _log.info("told to shut down")
                self.stop()

    def _is_meant(self, command: dict[str, Any]) -> bool:
        """Whether a command is `shutdown` and every address that it names is ours."""
        addresses = {key: command[key] for key in ("host", "service") if key in command}
        if command.get("command") != "shutdown" or not addresses:
            return False
        return addresses.get("host", host_id()) == host_id() and (
            "service" not in addresses or addresses["service"] in self._classes
        )

    def _loop(self) -> None:
        while not self._stopping and not is_orphan():
            item = self._next()
            if item is not None and not self._stopping:
                self._status.set(Status.PROCESSING)
                self._take(*item)
            for subscribed in self._subscribed:
                subscribed.isolated.close_if_idle()
                if time.monotonic() >= subscribed.batch_due:
                    self._status.set(Status.PROCESSING)
                    self._close_batch(subscribed)

    def _next(self) -> tuple[_Subscribed, Message] | None:
        """Return the next message, or None when there is something else to look at."""
        if self._inbox.empty():
            self._status.set(Status.IDLE)
        due = min(subscribed.batch_due for subscribed in self._subscribed)
        try:
            return self._inbox.get(timeout=min(_TICK, max(0.0, due - time.monotonic())))
        except Empty:
            return None

    def _take(self, subscribed: _Subscribed, message: Message) -> None:
        if message.connection != self._transport.connection:
            return  # delivered before the connection was lost: it comes again
        refused = self._refused.get(message.message_id)
        if refused is not None:
            self._take_refused(subscribed, message, refused)
        elif isinstance(subscribed.service, BatchService):
            self._add_to_batch(subscribed, subscribed.service, message)
        else:
            self._settle(subscribed, [self._handle(subscribed, message)])

    def _handle(self, subscribed: _Subscribed, message: Message) -> Handled:
        begun = time.monotonic()
        with self._observers.handling(subscribed.service, [message]):
            if _killed_somebody(message):
                outcome = subscribed.isolated.handle([message])[0]
            else:
                outcome = handle(subscribed.service, message)
        return Handled(subscribed.service, message, outcome, time.monotonic() - begun)

    def _take_refused(self, subscribed: _Subscribed, message: Message, refused: _Refused) -> None:
        """Try a message once more whose settling was refused, on its own, and with less each time."""
        self._close_batch(subscribed)
        self._pause(min(2.0 ** (refused.times - 1), _LONGEST_PAUSE))
        if message.connection != self._transport.connection or self._stopping:
            return
        if refused.times < _TRIES_AFTER_REFUSAL:
            self._settle(subscribed, [self._handle(subscribed, message)])
        elif refused.times == _TRIES_AFTER_REFUSAL:
            self._settle(subscribed, [self._rejected(subscribed, message, refused.reason)])
        elif refused.times == _TRIES_AFTER_REFUSAL + 1:
            handled = self._rejected(subscribed, message, refused.reason)
            self._commit(subscribed, [handled], [bare_dead_letter(self._transport, message, refused.reason)])
        else:
            _log.error("handed back to the broker for good: a message that it lets nobody set aside")
            with contextlib.suppress(Disconnected, BrokerRefused):
                self._transport.refuse(message)

    def _add_to_batch(
        self, subscribed: _Subscribed, service: BatchService[Any, Any], message: Message
    ) -> None:
        if subscribed.batch.messages and subscribed.batch.messages[0].connection != message.connection:
            subscribed.take_batch()  # delivered before the connection was lost: all of it comes again
        batch = subscribed.batch
        if not batch.messages:
            subscribed.batch_due = time.monotonic() + service.batch_wait
        work = read(service, message)
        batch.messages.append(message)
        batch.work.append(work)
        full = len(batch.messages) >= service.batch_size
        # What cannot be read is set aside at once: that needs the acknowledgement of all that came before it.
        if full or isinstance(work, Outcome) or self._closes(service, batch):
            self._close_batch(subscribed)

    def _closes(self, service: BatchService[Any, Any], batch: Batch) -> bool:
        try:
            return service.closes_batch(batch.readable())
        except Exception:
            # The same message will fail in process_batch, where the fault is charged to it.
            service.log.exception("closes_batch failed")
            return True

    def _close_batch(self, subscribed: _Subscribed) -> None:
        service = subscribed.service
        batch = subscribed.take_batch()
        if not batch.messages or not isinstance(service, BatchService):
            return
        if batch.messages[0].connection != self._transport.connection:
            return
        begun = time.monotonic()
        with self._observers.handling(service, batch.messages):
            if any(_killed_somebody(message) for message in batch.messages):
                outcomes = subscribed.isolated.handle(batch.messages)
            else:
                outcomes = handle_batch(service, batch)
        share = (time.monotonic() - begun) / len(batch.messages)
        pairs = zip(batch.messages, outcomes, strict=True)
        self._settle(subscribed, [Handled(service, message, outcome, share) for message, outcome in pairs])

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            time.sleep(_PAUSE_TICK)

    @staticmethod
    def _rejected(subscribed: _Subscribed, message: Message, reason: str) -> Handled:
        return Handled(subscribed.service, message, Outcome("reject", reason=reason), 0)

    def _settle(self, subscribed: _Subscribed, handled: Sequence[Handled]) -> None:
        sends: list[Send] = []
        try:
            for one in handled:
                sends += self._sends(subscribed, one)
            self._commit(subscribed, handled, sends)
        except Exception as error:  # noqa: BLE001 - the message is at fault, the host goes on
            _log.exception("what %s sends cannot be put into a frame", subscribed.service.name)
            self._settle_what_can_be(subscribed, handled, error)

    def _sends(self, subscribed: _Subscribed, handled: Handled) -> Sequence[Send]:
        message, outcome = handled.message, handled.outcome
        with recipe_context(_recipe_id(message) if outcome.result != "done" else None):
            sends = settle(self._transport, subscribed.service, message, outcome)
        return self._observers.sending(handled, identified(message, sends))

    def _settle_what_can_be(
        self, subscribed: _Subscribed, handled: Sequence[Handled], error: Exception
    ) -> None:
        """Handle the messages of a batch one by one, and reject the one that cannot be settled."""
        if len(handled) > 1:
            for one in handled:
                self._settle(subscribed, [self._handle(subscribed, one.message)])
        elif handled[0].outcome.result != "reject":
            reason = f"what came of it cannot be sent: {type(error).__name__}: {error}"
            self._settle(subscribed, [self._rejected(subscribed, handled[0].message, reason)])
        else:
            self._transport.refuse(handled[0].message)

    def _commit(self, subscribed: _Subscribed, handled: Sequence[Handled], sends: Sequence[Send]) -> None:
        messages = [one.message for one in handled]
        try:
            self._transport.commit(messages, sends)
        except Disconnected as error:
            _log.warning("what was handled could not be committed and will be handled again: %s", error)
            self._observers.uncommitted(handled, str(error))
        except BrokerRefused as error:
            reason = f"the broker refused what {subscribed.service.name} wants to send: {error}"
            _log.error("%s", reason)
            # They come again, as the connection is closed; then each is settled alone.
            for message in messages:
                times = self._refused[message.message_id].times if message.message_id in self._refused else 0
                self._refused[message.message_id] = _Refused(times + 1, reason)
            self._observers.uncommitted(handled, reason)
        else:
            for message in messages:
                self._refused.pop(message.message_id, None)
            self._observers.committed(handled)

    def _drain(self) -> None:
        """Handle the open batches; what else was handed out goes back when we disconnect."""
        for subscribed in self._subscribed:
            self._close_batch(subscribed)


def _killed_somebody(message: Message) -> bool:
    """Whether a process may have died of this message."""
    return message.redelivered or count(message, CRASHES) > 0


def _recipe_id(message: Message) -> str | None:
    try:
        return Envelope.parse(message.body).recipe_id
    except MalformedMessage:
        return None


def stop_on_signals(host: Host) -> None:
    """Have SIGTERM and SIGINT end the host in good order."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: host.stop())
