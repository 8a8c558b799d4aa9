"""Run services: take messages, have them handled, commit what came of it, say how things are.

The acknowledgement of a message and all that is sent because of it leave in one transaction. What cannot be
handled is sent to the dead letters or to its own queue once more in such a transaction, too; so nothing is
lost, whatever happens to this process.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Generator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from parvis.observe.logs import process_label
from parvis.recipe.envelope import MalformedMessage, parse_json
from parvis.service.base import AnyService, BatchService
from parvis.service.committing import GROUP_TIME, Committer, Refused, rejected
from parvis.service.handling import Batch, Outcome, handle, handle_batch, read
from parvis.service.isolated import IsolatedService
from parvis.service.observer import Handled, Observer
from parvis.service.observers import Observers, default_observers
from parvis.service.settling import CRASHES, count
from parvis.service.status import Status, StatusBroadcast, host_id
from parvis.service.supervisor import is_orphan
from parvis.transport.base import BrokerRefused, Disconnected, Message, Transport

COMMAND_TOPIC = "command"
_log = logging.getLogger("parvis.host")
_CONNECT_LIMIT = 30.0
_CONNECT_ATTEMPT = 3.0
_TICK = 1.0  # seconds between looks at the clock when nothing arrives
_CONFIRM_AFTER = 0.01  # seconds without messages after which we look whether the broker has confirmed
_TRIES_AFTER_REFUSAL = 3
_LONGEST_PAUSE = 30.0
_PAUSE_TICK = 0.05
_LONG = 1.0  # seconds of a handling before which the broker's confirmation is waited for
_FADING = 0.9


class _Subscribed:
    """A service, its open batch, and how quick it is."""

    def __init__(self, service: AnyService, prefetch: int) -> None:
        self.service = service
        self.prefetch = prefetch
        # While one half of what the broker hands out is being committed, the other is handled.
        self.group = 1 if service.commit_each else max(1, prefetch // 2)
        self.isolated = IsolatedService(service)
        self.batch = Batch()
        self.batch_due = float("inf")
        self.slowest = 0.0  # seconds of the longest handling of late; fades away

    def take_batch(self) -> Batch:
        batch, self.batch = self.batch, Batch()
        self.batch_due = float("inf")
        return batch

    def note_time(self, seconds: float) -> None:
        self.slowest = max(seconds, _FADING * self.slowest)


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
        self._subscribed = [_Subscribed(service, _window(service)) for service in services]
        self._by_service = {subscribed.service: subscribed for subscribed in self._subscribed}
        self._committer = Committer(transport, self._observers, self._handle_again)
        self._queue = queue
        self._inbox: SimpleQueue[tuple[_Subscribed, Message] | None] = SimpleQueue()
        self._stopping = False  # not an Event, whose lock a signal handler might find taken
        self._look_at = 0.0  # when to look at the clock for whatever is not a message
        description: dict[str, Any] = {
            "service": ", ".join(service.name for service in services),
            "serviceclass": ", ".join(type(service).__name__ for service in services),
        }
        self._classes = {type(service).__name__ for service in services}
        self._names = description["service"]
        description |= {"tag": tag} if tag else {}
        self._status = StatusBroadcast(transport.post, description, self._observers.card)

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
            queue = self._queue or subscribed.service.queue
            self._transport.subscribe(
                queue,
                lambda message, subscribed=subscribed: self._inbox.put((subscribed, message)),
                prefetch=subscribed.prefetch,
                exclusive=subscribed.service.exclusive,
            )
            self._observers.subscribed(subscribed.service, queue)
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
        while not self._stopping:
            item = self._next()
            if item is not None and not self._stopping:
                self._status.set(Status.PROCESSING)
                self._take(*item)
            if time.monotonic() >= self._look_at:
                self._look_around()

    def _next(self) -> tuple[_Subscribed, Message] | None:
        """Return the next message, or None when there is something else to look at."""
        committer, inbox = self._committer, self._inbox
        if inbox.empty() and committer.has_open:
            committer.confirm()  # meanwhile more may have come, which then leaves together with the rest
            if inbox.empty():
                committer.close()
        if inbox.empty():
            self._status.set(Status.IDLE)
        wait = _CONFIRM_AFTER if committer.has_pending else max(0.0, self._look_at - time.monotonic())
        try:
            return inbox.get(timeout=wait)
        except Empty:
            committer.confirm()
            return None

    def _look_around(self) -> None:
        """Do what is due by the clock."""
        if is_orphan():
            _log.warning("the supervisor is gone: stopping")
            self.stop()
        for subscribed in self._subscribed:
            subscribed.isolated.close_if_idle()
            if time.monotonic() >= subscribed.batch_due:
                self._status.set(Status.PROCESSING)
                self._close_batch(subscribed)
        due = min(subscribed.batch_due for subscribed in self._subscribed)
        self._look_at = min(due, time.monotonic() + _TICK)

    def _take(self, subscribed: _Subscribed, message: Message) -> None:
        if message.connection != self._transport.connection:
            self._committer.note_survival(message)
            return  # delivered before the connection was lost: it comes again
        refused = self._committer.refused.get(message.message_id)
        if refused is not None:
            self._take_refused(subscribed, message, refused)
        elif isinstance(subscribed.service, BatchService):
            self._add_to_batch(subscribed, subscribed.service, message)
        else:
            self._take_one(subscribed, message)

    def _take_one(self, subscribed: _Subscribed, message: Message) -> None:
        # What is done is not to wait for what takes long, nor the news that the broker refused it.
        if subscribed.slowest > _LONG:
            self._committer.finish()
        elif subscribed.slowest > GROUP_TIME:
            self._committer.close()
        begun = time.monotonic()
        handled = self._handle(subscribed, message)
        self._committer.add([handled], begun)
        self._committer.close_if_full(subscribed.group, begun + handled.seconds)
        if subscribed.service.commit_each:
            self._committer.confirm()

    def _handle(self, subscribed: _Subscribed, message: Message) -> Handled:
        begun = time.monotonic()
        if self._observers:
            with self._observers.handling(subscribed.service, [message]):
                outcome = self._outcome(subscribed, message)
        else:
            outcome = self._outcome(subscribed, message)
        seconds = time.monotonic() - begun
        subscribed.note_time(seconds)
        return Handled(subscribed.service, message, outcome, seconds)

    def _handle_again(self, service: AnyService, message: Message) -> Handled:
        return self._handle(self._by_service[service], message)

    def _outcome(self, subscribed: _Subscribed, message: Message) -> Outcome:
        if self._is_suspect(message):
            return subscribed.isolated.handle([message])[0]
        return handle(subscribed.service, message)

    def _is_suspect(self, message: Message) -> bool:
        """Whether a process may have died of this message."""
        if count(message, CRASHES) > 0:
            return True
        return message.redelivered and message.message_id not in self._committer.survived

    def _take_refused(self, subscribed: _Subscribed, message: Message, refused: Refused) -> None:
        """Try a message once more whose settling was refused, on its own, and with less each time."""
        self._close_batch(subscribed)
        self._committer.finish()
        if refused.times > 0:
            self._pause(min(2.0 ** (refused.times - 1), _LONGEST_PAUSE))
        if message.connection != self._transport.connection or self._stopping:
            return
        if refused.times < _TRIES_AFTER_REFUSAL:
            self._committer.add([self._handle(subscribed, message)], time.monotonic())
        elif refused.times == _TRIES_AFTER_REFUSAL:
            handled = rejected(subscribed.service, message, refused.reason)
            self._committer.add([handled], time.monotonic())
        elif refused.times == _TRIES_AFTER_REFUSAL + 1:
            self._committer.set_aside(rejected(subscribed.service, message, refused.reason), refused.reason)
        else:
            _log.error("handed back to the broker for good: a message that it lets nobody set aside")
            with contextlib.suppress(Disconnected, BrokerRefused):
                self._transport.refuse(message)
        self._committer.finish()

    def _add_to_batch(
        self, subscribed: _Subscribed, service: BatchService[Any, Any], message: Message
    ) -> None:
        if subscribed.batch.messages and subscribed.batch.messages[0].connection != message.connection:
            for lost in subscribed.take_batch().messages:  # all of it comes again
                self._committer.note_survival(lost)
        batch = subscribed.batch
        if not batch.messages:
            subscribed.batch_due = time.monotonic() + service.batch_wait
            self._look_at = min(self._look_at, subscribed.batch_due)
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
        self._committer.close()  # what is done is not to wait for a batch
        if batch.messages[0].connection != self._transport.connection:
            for lost in batch.messages:
                self._committer.note_survival(lost)
            return
        begun = time.monotonic()
        with self._observers.handling(service, batch.messages):
            if any(map(self._is_suspect, batch.messages)):
                outcomes = subscribed.isolated.handle(batch.messages)
            else:
                outcomes = handle_batch(service, batch)
        share = (time.monotonic() - begun) / len(batch.messages)
        pairs = zip(batch.messages, outcomes, strict=True)
        self._committer.add([Handled(service, message, outcome, share) for message, outcome in pairs], begun)
        self._committer.close()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            time.sleep(_PAUSE_TICK)

    def _drain(self) -> None:
        """Handle the open batches; what else was handed out goes back when we disconnect."""
        for subscribed in self._subscribed:
            self._close_batch(subscribed)
        self._committer.finish()


def _window(service: AnyService) -> int:
    """How many messages the broker may hand out to a service in advance."""
    # A batch must be able to fill up while an earlier one is being handled.
    return 2 * service.batch_size if isinstance(service, BatchService) else service.prefetch


def stop_on_signals(host: Host) -> None:
    """Have SIGTERM and SIGINT end the host in good order."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: host.stop())
