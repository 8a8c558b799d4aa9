"""Run the broker as a program: until a signal ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from parvis.transport.embedded.server import Broker
from parvis.transport.embedded.settings import Settings


def serve(settings: Settings, announce: Callable[[int], None]) -> None:
    """Run a broker until SIGINT or SIGTERM; `announce` is called with its port once it listens.

    Raises:
        BrokerError: The address may not be used, or is in use.
        JournalError: The journal cannot be opened, read or written.
    """
    asyncio.run(_serve(settings, announce))


async def _serve(settings: Settings, announce: Callable[[int], None]) -> None:
    broker = Broker(settings)
    await broker.start()
    announce(broker.port)
    ending: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: ending.add(asyncio.ensure_future(broker.stop())))
    await broker.wait()
