"""The broker in a thread of its own: for tests, notebooks and programs that are not asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar

from parvis.transport.embedded.clock import Clock
from parvis.transport.embedded.journal import JournalError
from parvis.transport.embedded.server import Broker
from parvis.transport.embedded.settings import Settings
from parvis.transport.embedded.statistics import DestinationStatistics

T = TypeVar("T")


class BrokerThread:
    """A broker in a thread, as a context manager::

        with BrokerThread(port=0) as broker:
            connect_to(broker.host, broker.port)

    Args:
        port: where to listen, 0 for any free port.
        settings: everything else.
        clock: what the time is.
    """

    def __init__(self, port: int = 0, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self.broker = Broker(replace(settings or Settings(), port=port), clock)
        self._started = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="embedded broker", daemon=True)

    @property
    def host(self) -> str:
        """The address it listens at."""
        return self.broker.settings.host

    @property
    def port(self) -> int:
        """The port it listens at."""
        return self.broker.port

    def start(self) -> None:
        """Start and wait until it listens.

        Raises:
            BrokerError: the address may not be used, or is in use.
            JournalError: the journal cannot be opened or read.
        """
        self._thread.start()
        self._started.wait()
        if self._error:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Stop and wait for the end."""
        with contextlib.suppress(RuntimeError):  # it has stopped by itself and its loop is closed
            self._loop.call_soon_threadsafe(self._ask_to_stop)
        self._thread.join()

    def statistics(self) -> list[DestinationStatistics]:
        """All queues and topics, by name."""
        return self._call(self.broker.statistics)

    def disconnect_all(self) -> None:
        """End all connections at once, as a failing network would."""
        self._call(self.broker.disconnect_all)

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _ask_to_stop(self) -> None:
        self._stopping = asyncio.ensure_future(self.broker.stop())

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self.broker.start()
        except Exception as error:  # noqa: BLE001 - raised again in the thread that called start
            self._error = error
            return
        finally:
            self._started.set()
        with contextlib.suppress(JournalError):  # it is in the log and in `broker.failure`
            await self.broker.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
