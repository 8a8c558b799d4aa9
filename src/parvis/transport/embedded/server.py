"""The broker: listens, brings connections and journal together, and keeps time.

What leaves the broker leaves once in a turn of the event loop, and with a journal only after the changes
that it rests on are on disk: then a receipt is true and a transaction is whole, even after `kill -9`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from parvis.transport.embedded.clock import Clock
from parvis.transport.embedded.connection import Connection
from parvis.transport.embedded.destinations import Destinations
from parvis.transport.embedded.journal import Batch, Journal, JournalError, JournalFull
from parvis.transport.embedded.settings import MEBIBYTE, Settings
from parvis.transport.embedded.statistics import DestinationStatistics, statistics

_log = logging.getLogger(__name__)

_SWEEP: Final = 1.0
"""Seconds between two looks for expired messages."""
_MORE_TO_SWEEP: Final = 0.02
_RETRY: Final = 1.0
"""Seconds until the journal is written again that had no room on the disk."""
_MAX_CONNECTIONS: Final = 1000
_LONGEST_TIMER: Final = 3600.0


class BrokerError(Exception):
    """The broker cannot start: says why and what to do."""


@dataclass(eq=False, slots=True)
class Commit:
    """What is written to the journal together, and what leaves when that is done.

    Attributes:
        senders: connections that have sent some of it.
        error: why it could not be written the last time.
    """

    batch: Batch
    output: list[tuple[Connection, bytes]]
    senders: set[Connection]
    error: JournalError | None = None


class Broker:
    """A STOMP broker for one machine.

    Args:
        settings: see `Settings`; the defaults listen at 127.0.0.1:61613 and keep all in memory.
        clock: what the time is.

    Attributes:
        port: where it listens, once it has started.
        failure: why it stopped by itself, if it did.
    """

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self.settings = settings or Settings()
        self._clock = clock
        self.port = self.settings.port
        self.failure: BaseException | None = None
        self._connections: dict[Connection, None] = {}
        self._with_output: dict[Connection, None] = {}
        self._senders: set[Connection] = set()
        self._stuck: Commit | None = None
        self._held: set[Connection] = set()
        self._flush_scheduled = False
        self._committing: asyncio.Future[None] | None = None
        self._due: tuple[int, asyncio.TimerHandle] | None = None
        self._server: asyncio.Server | None = None

    # Start and stop

    async def start(self) -> None:
        """Open the journal and listen.

        Raises:
            BrokerError: the address may not be used, or is in use.
            JournalError: the journal cannot be opened or read.
        """
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        settings = self.settings
        await self._check_address()
        self._journal = Journal(settings.journal, settings.sync) if settings.journal else None
        self._writer = ThreadPoolExecutor(1, "journal")
        self.destinations = Destinations(settings, self._journal, self._clock)
        try:
            self.destinations.restore()
            self._server = await self._loop.create_server(
                lambda: Connection(self), settings.host, settings.port
            )
        except OSError as error:
            self._close_journal()
            where = f"{settings.host}:{settings.port}"
            raise BrokerError(
                f"Cannot listen at {where}: {error.strerror}. Is a broker running there?"
            ) from error
        except JournalError:
            self._close_journal()
            raise
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)
        self._keep_time()
        self._announce()

    async def _check_address(self) -> None:
        settings = self.settings
        try:
            found = await self._loop.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise BrokerError(f"Cannot listen at {settings.host!r}: {error}") from error
        local = all(ipaddress.ip_address(str(entry[4][0]).split("%")[0]).is_loopback for entry in found)
        if not (local or settings.allow_remote):
            raise BrokerError(
                f"{settings.host} can be reached from other machines, and this broker is for one. Let it"
                " listen at 127.0.0.1, allow others expressly (--allow-remote), or use ActiveMQ or RabbitMQ."
            )

    def _announce(self) -> None:
        kept = sum(queue.size for queue in self.destinations.queues.values()) + self.destinations.delayed
        journal = f"journal {self.settings.journal} with {kept} messages" if self._journal else "no journal"
        _log.debug(
            "Embedded broker at %s:%d, %s. It is for one machine; beyond that use ActiveMQ or RabbitMQ.",
            *(self.settings.host, self.port, journal),
        )

    async def stop(self) -> None:
        """Say goodbye to all clients, write the journal and close it. Stopping twice does no harm."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._sweeper.cancel()
        if self._due:
            self._due[1].cancel()
        self._stop_sessions()
        for connection in list(self._connections):
            connection.finish()
        await self._drain()
        for connection in list(self._connections):
            connection.abort()
        while self._connections:
            await asyncio.sleep(0)
        self.destinations.settled()
        await self._drain()
        if self._stuck and not self.failure:
            self.failure = self._stuck.error
            _log.critical("The broker stops, and what it has not confirmed is lost: %s", self.failure)
        self._close_journal()
        self._stopped.set()

    async def _drain(self) -> None:
        """Write what is pending to the journal, and let all output go."""
        self._flush()
        while self._committing:
            await asyncio.wait([self._committing])
            await asyncio.sleep(0)

    def _close_journal(self) -> None:
        self._writer.shutdown()
        if self._journal:
            self._journal.close()

    async def wait(self) -> None:
        """Wait until the broker has stopped.

        Raises:
            JournalError: it stopped because the journal could not be written.
        """
        await self._stopped.wait()
        if self.failure:
            raise self.failure

    def disconnect_all(self) -> None:
        """End all connections at once, as a failing network would."""
        self._stop_sessions()
        for connection in list(self._connections):
            connection.abort()

    def _stop_sessions(self) -> None:
        """All together, so that nothing is handed from the first to go to the next."""
        for connection in self._connections:
            connection.session.stop()

    def statistics(self) -> list[DestinationStatistics]:
        """All queues and topics, by name. Call it in the broker's own thread."""
        return statistics(self.destinations)

    # What connections tell

    def joined(self, connection: Connection) -> None:
        """There is a new connection."""
        self._connections[connection] = None
        self.destinations.connections = len(self._connections)
        if len(self._connections) <= _MAX_CONNECTIONS:
            return
        # Whoever does not even say CONNECT must not keep the others out.
        silent = next((one for one in self._connections if not one.session.connected), connection)
        if silent is not connection:
            del self._connections[silent]
            silent.abort()
        else:
            connection.session.refuse(f"there are {_MAX_CONNECTIONS} connections already")
            connection.finish()

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)
        self.destinations.connections = len(self._connections)
        self._held.discard(connection)
        self._senders.discard(connection)
        self._with_output.pop(connection, None)
        self.wake()

    def hold(self, connection: Connection) -> None:
        """A producer was paused because memory is short, or the disk cannot keep up."""
        memory = self.destinations.memory
        if memory.used > memory.limit and not self._held:
            _log.warning(
                "More than %d MiB of messages are in memory: producers are made to wait for consumers",
                memory.limit // MEBIBYTE,
            )
        self._held.add(connection)

    def sent(self, connection: Connection) -> None:
        """The connection has sent messages, which are not yet confirmed."""
        self._senders.add(connection)

    def wake(self, connection: Connection | None = None) -> None:
        """Something has happened: see to output, journal and timers at the end of this turn."""
        if connection is not None:
            self._with_output[connection] = None
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    # Once in a turn

    def _flush(self) -> None:
        self._flush_scheduled = False
        self._keep_time()
        self._resume_producers()
        failure = self.destinations.failure
        if failure and not self.failure:
            self._fail(failure)
        if self._committing:
            return
        if self._stuck:
            self._end_refused()
            return
        waiting, self._with_output = self._with_output, {}
        output = [(connection, connection.take_output()) for connection in waiting]
        senders, self._senders = self._senders, set()
        if self._journal and self._journal.pending and not self.failure:
            self._write(Commit(self._journal.take(), output, senders))
        else:
            for connection, data in output:
                connection.send(data)

    def _write(self, commit: Commit) -> None:
        assert self._journal  # noqa: S101 - there is something to write to it
        self._committing = self._loop.run_in_executor(self._writer, self._journal.write, commit.batch)
        self._committing.add_done_callback(partial(self._written, commit))

    def _written(self, commit: Commit, done: asyncio.Future[None]) -> None:
        self._committing = None
        error = done.exception()
        if isinstance(error, JournalFull):
            self._wait_for_room(commit, error)
        elif error is not None:
            self._fail(error)
        else:
            if self._stuck:
                _log.warning("There is room for the journal again: the broker goes on")
                self._stuck = None
            assert self._journal  # noqa: S101 - it has been written
            self._journal.written(commit.batch)
            for message in commit.batch.added:
                self.destinations.memory.relieve(message)
            for connection, data in commit.output:
                connection.send(data)
            self._flush()

    def _wait_for_room(self, commit: Commit, error: JournalFull) -> None:
        """Keep what could not be written and try again; nothing leaves until then but bad news."""
        if self._stuck is None:
            _log.error("The broker confirms nothing until there is room: %s", error)
            for connection in commit.senders:
                connection.give_up(
                    "the disk with the broker's journal is full: what you sent is not confirmed,"
                    " and will be kept only if there is room soon"
                )
            commit.output = [entry for entry in commit.output if entry[0] not in commit.senders]
            commit.senders.clear()
        commit.error = error
        self._stuck = commit
        if self._server:
            self._retry = self._loop.call_later(_RETRY, self._try_again)

    def _try_again(self) -> None:
        if self._stuck and self._server and not self._committing:
            self._write(self._stuck)

    def _end_refused(self) -> None:
        """Tell those whose connections end, though what they did before is not confirmed."""
        for connection in [one for one in self._with_output if one.session.closing]:
            del self._with_output[connection]
            connection.give_up()

    def _fail(self, error: BaseException) -> None:
        """Nothing can be promised any more: stop without another word to the clients."""
        _log.critical("The broker stops: %s", error)
        self.failure = error
        self.disconnect_all()
        self._stopping = self._loop.create_task(self.stop())

    def _resume_producers(self) -> None:
        if self._held and self.destinations.relaxed:
            held, self._held = self._held, set()
            for connection in held:
                connection.resume()

    # Time

    def _keep_time(self) -> None:
        """See that delayed messages are delivered when they are due."""
        due = self.destinations.next_due()
        if self._due and self._due[0] != due:
            self._due[1].cancel()
            self._due = None
        if due is not None and self._due is None and self._server:
            delay = min(max(0.0, (due - self.destinations.now()) / 1000), _LONGEST_TIMER)
            self._due = due, self._loop.call_later(delay, self._deliver_due)

    def _deliver_due(self) -> None:
        self._due = None
        self.destinations.deliver_due()
        self.wake()

    def _sweep(self) -> None:
        more = self.destinations.sweep()
        self._sweeper = self._loop.call_later(_MORE_TO_SWEEP if more else _SWEEP, self._sweep)
        for connection in list(self._connections):
            connection.drop_if_stalled()
        if self._journal and not self._committing:
            with contextlib.suppress(OSError):  # what is wrong shows when it is written
                self._journal.look_for_room()
        self.wake()
