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
from collections.abc import Callable, Generator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from parvis.observe.logs import process_label
from parvis.recipe.envelope import MalformedMessage, parse_json
from parvis.service import commands
from parvis.service.base import AnyBatchService, AnyService
from parvis.service.committing import GROUP_TIME, Committer, Refused, rejected
from parvis.service.handling import Outcome
from parvis.service.look_ahead import LookAhead, looks_ahead
from parvis.service.observer import Handled, Observer
from parvis.service.observers import Observers, default_observers
from parvis.service.remembered import Remembered, file_of
from parvis.service.status import Status, StatusBroadcast, host_id
from parvis.service.supervisor import end_by_signal, is_orphan
from parvis.service.worker import Worker
from parvis.transport.base import BrokerRefused, Callback, Disconnected, Message, NoConnection, Transport

_log = logging.getLogger("parvis.host")
_CONNECT_LIMIT = 10.0
_CONNECT_ATTEMPT = 3.0
_TICK = 1.0  # seconds between looks at the clock when nothing arrives
_CONFIRM_AFTER = 0.01  # seconds without messages after which we look whether the broker has confirmed
_TRIES_AFTER_REFUSAL = 3
_LONGEST_PAUSE = 30.0
_PAUSE_TICK = 0.05
_LONG = 1.0  # seconds of a handling before which the broker's confirmation is waited for


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
        self._committer = Committer(transport, self._observers, self._handle_again)
        survived = self._committer.survived
        self._workers = [Worker(service, self._observers, survived) for service in services]
        self._by_service = {worker.service: worker for worker in self._workers}
        self._queue = queue
        self._inbox: SimpleQueue[tuple[Worker, Message] | None] = SimpleQueue()
        self._stopping = False  # not an Event, whose lock a signal handler might find taken
        self._look_at = 0.0  # when to look at the clock for whatever is not a message
        description: dict[str, Any] = {
            "service": ", ".join(service.name for service in services),
            "serviceclass": ", ".join(type(service).__name__ for service in services),
        }
        self._classes = sorted({type(service).__name__ for service in services})
        self._names = description["service"]
        description |= {"tag": tag} if tag else {}
        self._status = StatusBroadcast(transport.post, description, self._observers.card)
        self._turned: float | None = None  # when the loop last turned
        self._observers.pulse(self)

    def stop(self) -> None:
        """Ask for the end: the message in hand is finished, the rest goes back. Any thread may ask."""
        self._stopping = True
        self._inbox.put(None)
        self._transport.wake()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    def last_turn(self) -> float | None:
        """As `Pulse.last_turn`."""
        return self._turned

    def run(self) -> None:
        """Run until `stop` is called or a shutdown command comes.

        Raises:
            Disconnected, BrokerRefused: There is no broker, or it does not let us do what we must.
        """
        self._work(self._loop)

    def run_one(self, wait: float) -> Outcome | None:
        """Take one message, handle it, commit what came of it, and end.

        Args:
            wait: Seconds to wait for a message.

        Returns:
            What came of it; None if there was none, or if it could not be committed and will come again.

        Raises:
            Disconnected, BrokerRefused: As `run`.
        """
        for worker in self._workers:
            worker.prefetch = 1
        self._work(lambda: self._take_one_only(wait))
        return next((handled.outcome for handled in self._committer.confirmed), None)

    def _work(self, take_messages: Callable[[], None]) -> None:
        with process_label(workflows_service=self._names, workflows_host=host_id()):
            if self._connect():
                self._serve(take_messages)

    def _serve(self, take_messages: Callable[[], None]) -> None:
        self._status.start()
        self._status.set(Status.STARTING)
        try:
            with self._services_started():
                self._observers.inbox(self._inbox.qsize)
                self._observers.started(self._transport, [one.service for one in self._workers])
                self._subscribe()
                _log.info("ready: %s on %s", ", ".join(self._classes), host_id())
                take_messages()
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
        while not self._stopping and not is_orphan():
            try:
                self._transport.connect(timeout=_CONNECT_ATTEMPT)
            except Disconnected as error:
                if time.monotonic() > deadline:
                    raise NoConnection(f"gave up after {_CONNECT_LIMIT:g} s: {error}") from None
                _log.info("no broker yet, trying again: %s", error)
            else:
                return True
        return False

    @contextlib.contextmanager
    def _services_started(self) -> Generator[None]:
        with contextlib.ExitStack() as stack:
            for worker in self._workers:
                worker.service.start()
                stack.callback(worker.service.stop)
                stack.callback(worker.close)
                self._remember(worker)
            yield

    def _remember(self, worker: Worker) -> None:
        service = worker.service
        if service.remember > 0:
            queue = self._queue or service.queue
            memory = Remembered(service.remember, file_of(service.config, self._transport.namespace, queue))
            worker.memory = self._committer.memories[service] = memory

    def _subscribe(self) -> None:
        for worker in self._workers:
            queue = self._queue or worker.service.queue
            self._transport.subscribe(
                queue,
                self._callback(worker),
                prefetch=worker.prefetch,
                exclusive=worker.service.exclusive,
            )
            self._observers.subscribed(worker.service, queue)
        self._transport.subscribe_broadcast(commands.TOPIC, self._on_command)

    def _callback(self, worker: Worker) -> Callback:
        inbox, transport = self._inbox, self._transport
        if not looks_ahead(worker.service):
            return lambda message: inbox.put((worker, message))
        look_ahead = worker.look_ahead = LookAhead(
            worker.service,
            lambda message: message.connection == transport.connection and not worker.is_suspect(message),
        )

        def take(message: Message) -> None:
            look_ahead.arrived(message)
            inbox.put((worker, message))

        return take

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

    def _take_one_only(self, wait: float) -> None:
        deadline = time.monotonic() + wait
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            self._look_at = time.monotonic() + min(left, _TICK)
            item = self._next()
            if item is not None:
                worker, message = item
                self._status.set(Status.PROCESSING)
                self._committer.add([worker.handle(message)], time.monotonic())
                self._committer.finish()
                return
            if is_orphan():
                return

    def _next(self) -> tuple[Worker, Message] | None:
        """Return the next message, or None when there is something else to look at."""
        self._turned = time.monotonic()
        committer, inbox = self._committer, self._inbox
        if inbox.empty() and committer.has_open:
            committer.await_answer()  # meanwhile more may have come, which then leaves together with the rest
            if inbox.empty():
                committer.close()
        if inbox.empty():
            self._status.set(Status.IDLE)
        wait = _CONFIRM_AFTER if committer.has_pending else max(0.0, self._look_at - time.monotonic())
        if inbox.empty() and self._transport.drive(wait, self._inbox.qsize):
            wait = 0
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
        for worker in self._workers:
            worker.close_child_if_idle()
            if time.monotonic() >= worker.batch_due:
                self._status.set(Status.PROCESSING)
                self._close_batch(worker)
        due = min(worker.batch_due for worker in self._workers)
        self._look_at = min(due, time.monotonic() + _TICK)

    def _take(self, worker: Worker, message: Message) -> None:
        if worker.look_ahead is not None:
            worker.look_ahead.taken(message)
        if message.connection != self._transport.connection:
            self._give_up([message])
            return
        refused = self._committer.refused.get(message.message_id)
        if refused is not None:
            self._take_refused(worker, message, refused)
        elif worker.batch_service is not None:
            self._add_to_batch(worker, worker.batch_service, message)
        else:
            self._take_one(worker, message)

    def _take_one(self, worker: Worker, message: Message) -> None:
        # What is done is not to wait for what takes long, nor the news that the broker refused it.
        if worker.slowest > _LONG:
            self._committer.finish()
        elif worker.slowest > GROUP_TIME:
            self._committer.close()
        begun = time.monotonic()
        if worker.look_ahead is None:
            handled = worker.handle(message)
        else:
            self._transport.hand_back()  # the next message must be read while this one is handled
            with worker.look_ahead:
                handled = worker.handle(message)
        self._committer.add([handled], begun)
        self._committer.close_if_full(worker.group, begun + handled.seconds)
        if worker.service.commit_each:
            self._committer.confirm()

    def _handle_again(self, service: AnyService, message: Message) -> Handled:
        return self._by_service[service].handle(message)

    def _take_refused(self, worker: Worker, message: Message, refused: Refused) -> None:
        """Try a message once more whose settling was refused, on its own, and with less each time."""
        self._close_batch(worker)
        self._committer.finish()
        if refused.times > 0:
            self._pause(min(2.0 ** (refused.times - 1), _LONGEST_PAUSE))
        if message.connection != self._transport.connection or self._stopping:
            return
        if refused.times < _TRIES_AFTER_REFUSAL:
            self._committer.add([worker.handle(message)], time.monotonic())
        elif refused.times == _TRIES_AFTER_REFUSAL:
            handled = rejected(worker.service, message, refused.reason)
            self._committer.add([handled], time.monotonic())
        elif refused.times == _TRIES_AFTER_REFUSAL + 1:
            self._committer.set_aside(rejected(worker.service, message, refused.reason), refused.reason)
        else:
            _log.error("handed back to the broker for good: a message that it lets nobody set aside")
            with contextlib.suppress(Disconnected, BrokerRefused):
                self._transport.refuse(message)
        self._committer.finish()

    def _add_to_batch(self, worker: Worker, service: AnyBatchService, message: Message) -> None:
        if worker.batch.messages and worker.batch.messages[0].connection != message.connection:
            self._give_up(worker.take_batch().messages)
        if worker.gather(service, message):
            self._close_batch(worker)
        else:
            self._look_at = min(self._look_at, worker.batch_due)

    def _close_batch(self, worker: Worker) -> None:
        service = worker.batch_service
        batch = worker.take_batch()
        if not batch.messages or service is None:
            return
        self._committer.close()  # what is done is not to wait for a batch
        if batch.messages[0].connection != self._transport.connection:
            self._give_up(batch.messages)
            return
        begun = time.monotonic()
        self._committer.add(worker.handle_batch(service, batch), begun)
        self._committer.close()

    def _give_up(self, messages: Sequence[Message]) -> None:
        """Let go of messages of a connection that was lost: they come again."""
        for message in messages:
            self._committer.note_survival(message)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            time.sleep(_PAUSE_TICK)

    def _drain(self) -> None:
        """Handle the open batches; what else was handed out goes back when we disconnect."""
        for worker in self._workers:
            self._close_batch(worker)
        self._committer.finish()


def stop_on_signals(host: Host) -> None:
    """Have SIGTERM and SIGINT end the host in good order, and the second of them the process, at once."""

    def stop(number: int, _frame: object) -> None:
        if host.is_stopping:
            end_by_signal(number)
        host.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
