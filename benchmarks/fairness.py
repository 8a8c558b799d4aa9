"""How long a small scan waits behind a large one, with and without flow control.

    python benchmarks/fairness.py [--images N] [--small N] [--consumers N] [--milliseconds N] [--broker NAME]

A watcher tells of the images of a large scan, which workers handle at a steady pace; after some seconds
somebody starts a small one. All services are processes of their own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

from machine import describe_machine
from rich.console import Console
from rich.table import Table

from parvis.config import Config
from parvis.service.base import AnyService
from parvis.service.host import Host, stop_on_signals
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport
from parvis_services.watch.file_watcher import FileWatcher

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from real.activemq.server import running
from scans import Record, Worker, make_images, most_in_flight, quick_directory, scan_message

AHEAD = 5.0  # seconds that the large scan is under way when the small one starts
STEADY = 15.0  # seconds over which the pace of the large scan alone is measured


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and the log-in."""

    port: int
    username: str = ""
    password: str = ""

    def transport(self) -> StompTransport:
        """A connection to it, not yet made."""
        return StompTransport([("127.0.0.1", self.port)], self.username, self.password, "bench")


def serve(service: type[AnyService], broker: Broker, regulated: bool) -> None:
    """Run a service until told to stop."""
    host = Host(broker.transport(), [service(Config())], observers=None if regulated else [])
    stop_on_signals(host)
    host.run()


@contextmanager
def services(broker: Broker, consumers: int, regulated: bool) -> Iterator[None]:
    """A watcher and some workers."""
    context = multiprocessing.get_context("spawn")
    wanted: Sequence[type[AnyService]] = [FileWatcher] + [Worker] * consumers
    processes: list[SpawnProcess] = [
        context.Process(target=serve, args=(service, broker, regulated)) for service in wanted
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


@contextmanager
def any_broker(name: str) -> Iterator[Broker]:
    """A broker of that kind with empty queues."""
    if name == "embedded":
        with BrokerThread(port=0) as thread:
            yield Broker(thread.port)
    else:
        with running() as server:
            yield Broker(server.port, server.username, server.password)


class Bench:
    """One broker, images on a disk in memory, and what was asked for."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self._options = options
        self._directory = directory
        self._pattern = make_images(directory, options.images)
        self._runs = 0

    def small_scan(self, *, behind: bool, regulated: bool) -> tuple[float, int, float]:
        """Return how long the small scan took in s, the most images in flight, and the images/s of all."""
        options = self._options
        with self._running(regulated) as (transport, record):
            seconds = options.milliseconds / 1000
            if behind:
                transport.send(scan_message("large", self._pattern, options.images, record, seconds=seconds))
                _wait_for(record, "large", 1)
                time.sleep(AHEAD)
            begun = time.time()
            transport.send(scan_message("small", self._pattern, options.small, record, seconds=seconds))
            _wait_for(record, "small", options.small)
            images = record.images()
            took = max(image.handled for image in record.images("small")) - begun
            pace = len(images) / (images[-1].handled - images[0].handled)
            return took, most_in_flight(images), pace

    def large_scan(self, *, regulated: bool) -> float:
        """Return the images/s of the large scan alone."""
        options = self._options
        with self._running(regulated) as (transport, record):
            seconds = options.milliseconds / 1000
            transport.send(scan_message("large", self._pattern, options.images, record, seconds=seconds))
            _wait_for(record, "large", 1)
            before = record.count("large")
            time.sleep(STEADY)
            return (record.count("large") - before) / STEADY

    @contextmanager
    def _running(self, regulated: bool) -> Iterator[tuple[StompTransport, Record]]:
        self._runs += 1
        with ExitStack() as stack:
            broker = stack.enter_context(any_broker(self._options.broker))
            stack.enter_context(services(broker, self._options.consumers, regulated))
            transport = broker.transport()
            transport.connect()
            stack.callback(transport.disconnect)
            warm = Record(self._directory / f"warm-{self._runs}")
            transport.send(scan_message("warm", self._pattern, 20, warm, seconds=0))
            _wait_for(warm, "warm", 20)
            yield transport, Record(self._directory / f"record-{self._runs}")


def _wait_for(record: Record, scan: str, count: int) -> None:
    # Lines are counted before they are read: that is cheap while the workers are at work.
    while record.path.read_bytes().count(f"{scan} ".encode()) < count:
        time.sleep(0.05)


def main() -> None:
    """Run all rows and print the table."""
    parser = argparse.ArgumentParser(description="How long a small scan waits behind a large one.")
    parser.add_argument("--images", type=int, default=100_000, help="of the large scan")
    parser.add_argument("--small", type=int, default=100, help="images of the small scan")
    parser.add_argument("--consumers", type=int, default=2)
    parser.add_argument("--milliseconds", type=float, default=5, help="that a worker takes for an image")
    parser.add_argument("--broker", choices=["embedded", "activemq"], default="embedded")
    options = parser.parse_args()
    table = Table(
        "flow control", "small scan", "took", "most in flight", "images/s", "large scan alone, images/s"
    )
    with quick_directory() as directory:
        bench = Bench(options, directory)
        for regulated in (True, False):
            alone = bench.large_scan(regulated=regulated)
            for behind in (False, True):
                took, most, pace = bench.small_scan(behind=behind, regulated=regulated)
                where = f"behind {options.images:,} images" if behind else "alone"
                shown = f"{alone:.0f}" if behind else ""
                table.add_row(
                    "on" if regulated else "off", where, f"{took:.2f} s", f"{most:,}", f"{pace:.0f}", shown
                )
    console = Console()
    console.print(describe_machine())
    console.print(
        f"{options.small} images; {options.consumers} workers, {options.milliseconds:g} ms an image; "
        f"{options.broker} broker"
    )
    console.print(table)


if __name__ == "__main__":
    main()
