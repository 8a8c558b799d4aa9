"""The broker: listens, brings connections and journal together, and keeps time.

What leaves the broker leaves once in a turn of the event loop, and with a journal only after the changes
that it rests on are on disk: then a receipt is true and a transaction is whole, even after `kill -9`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from parvis.transport.embedded.connection import Connection
from parvis.transport.embedded.destinations import Destinations
from parvis.transport.embedded.journal import Journal, JournalError
from parvis.transport.embedded.settings import MEBIBYTE, Settings
from parvis.transport.embedded.statistics import DestinationStatistics, statistics

_log = logging.getLogger(__name__)

_SWEEP: Final = 1.0
"""Seconds between two looks for expired messages."""
_MAX_CONNECTIONS: Final = 1000
_LONGEST_TIMER: Final = 3600.0


class BrokerError(Exception):
    """The broker cannot start: says why and what to do."""


class Broker:
    """A STOMP broker for one machine.

    Args:
        settings: see `Settings`; the defaults listen at 127.0.0.1:61613 and keep all in memory.

    Attributes:
        port: where it listens, once it has started.
        failure: why it stopped by itself, if it did.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.port = self.settings.port
        self.failure: BaseException | None = None
        self._connections: set[Connection] = set()
        self._with_output: dict[Connection, None] = {}
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
        self._journal = Journal(settings.journal) if settings.journal else None
        self._writer = ThreadPoolExecutor(1, "journal")
        self.destinations = Destinations(settings, self._journal)
        try:
            if self._journal:
                self.destinations.restore(self._journal.load())
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
        await self._drain()
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
        self._connections.add(connection)
        if len(self._connections) > _MAX_CONNECTIONS:
            connection.session.refuse(f"there are {_MAX_CONNECTIONS} connections already")
            connection.finish()

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._held.discard(connection)
        self._with_output.pop(connection, None)
        self.wake()

    def hold(self, connection: Connection) -> None:
        """A producer was paused because memory is short."""
        if not self._held:
            _log.warning(
                "More than %d MiB of messages are waiting: producers are made to wait for consumers",
                self.destinations.memory.limit // MEBIBYTE,
            )
        self._held.add(connection)

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
        if self._committing:
            return
        waiting, self._with_output = self._with_output, {}
        output = [(connection, connection.take_output()) for connection in waiting]
        if self._journal and self._journal.pending and not self.failure:
            batch = self._journal.take()
            self._committing = self._loop.run_in_executor(self._writer, self._journal.write, batch)
            self._committing.add_done_callback(partial(self._committed, output))
        else:
            for connection, data in output:
                connection.send(data)

    def _committed(self, output: list[tuple[Connection, bytes]], done: asyncio.Future[None]) -> None:
        self._committing = None
        error = done.exception()
        if error is not None:
            self._fail(error)
            return
        for connection, data in output:
            connection.send(data)
        self._flush()

    def _fail(self, error: BaseException) -> None:
        """Nothing can be promised any more: stop without another word to the clients."""
        _log.critical("The broker stops: %s", error)
        self.failure = error
        self.disconnect_all()
        self._stopping = self._loop.create_task(self.stop())

    def _resume_producers(self) -> None:
        memory = self.destinations.memory
        if self._held and memory.used < 0.8 * memory.limit:
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
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)
        self.destinations.sweep()
        self.wake()
