"""A recipe of three nodes through Parvis and through others: `python benchmarks/messaging`.

One ActiveMQ with the settings it comes with, one RabbitMQ; each service is a process of its own, and takes
every message in a transaction (RabbitMQ: acknowledged after what it sends is confirmed). The stacks
take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table
from settings import QUEUES
from stacks import STACKS, Ends, ServiceEnded, Stack, ends_for

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

from machine import describe_machine  # noqa: E402 - found through the path above

BACKLOG = 3000
CLOSED_LOOP = 300
WARM = 100
LONG = 20_000
OUTSTANDING = 50
_TRIES = 4
HEADINGS = ("", "", "chains/s", "ratio", "p50 ms", "p99 ms", "CPU ms/hop", "processes", "connections", "MB")
SIZES = {"1 kB": 1000, "20 kB": 20_000}


@dataclass(frozen=True)
class Figures:
    """What is measured of one stack at one size.

    Attributes:
        chains: Messages a second through three services, from a backlog.
        p50, p99: Milliseconds of one message through three services, nothing else under way.
        cpu: Milliseconds of CPU of the services for one hop of a message, from the backlog.
        processes, connections: Of one service.
        memory: MB that one idle service holds (proportional set size).
    """

    chains: float
    p50: float
    p99: float
    cpu: float
    processes: float
    connections: float
    memory: float


def measure(stack: Stack, port: str, size: int) -> Figures:
    """Measure a stack once."""
    body = stack.body(size)
    with named(stack), ends_of(stack, port) as ends:
        with at_work(stack, port, size, ends) as family:
            taken = latencies(ends, body)
            processes = len(family) / len(QUEUES)
            connections = sum(map(connections_of, family)) / len(QUEUES)
            memory = sum(process.memory_full_info().pss for process in family) / len(QUEUES) / 1e6
        ends.feed(QUEUES[0], [body] * (BACKLOG + WARM))
        with at_work(stack, port, size, ends, feed=False) as family:
            cpu, start = cpu_seconds(family), time.perf_counter()
            seconds, spent = ends.take(BACKLOG) - start, cpu_seconds(family) - cpu
    return Figures(
        chains=BACKLOG / seconds,
        p50=statistics.median(taken),
        p99=statistics.quantiles(taken, n=100)[98],
        cpu=1000 * spent / BACKLOG / len(QUEUES),
        processes=processes,
        connections=connections,
        memory=memory,
    )


def latencies(ends: Ends, body: bytes) -> list[float]:
    """Milliseconds that one message after the other took through the services."""
    taken: list[float] = []
    for _ in range(CLOSED_LOOP):
        start = time.perf_counter()
        ends.feed(QUEUES[0], [body])
        taken.append(1000 * (ends.take(1) - start))
    return taken[CLOSED_LOOP // 10 :]


def measure_whole(stack: Stack, port: str, size: int) -> Figures:
    """As `measure`, and once more if a service ended by itself, which is said."""
    for _ in range(_TRIES - 1):
        try:
            return measure(stack, port, size)
        except ServiceEnded as error:
            print(f"Measured once more: {error}", file=sys.stderr)
    return measure(stack, port, size)


@contextmanager
def named(stack: Stack) -> Iterator[None]:
    """Have what goes wrong inside say with which stack it did."""
    try:
        yield
    except Exception as error:
        error.add_note(f"with {stack.name} on {stack.broker}")
        raise


def decay(stack: Stack, port: str, size: int, count: int) -> list[float]:
    """Messages a second of each thousand through one service, with fifty under way."""
    last = QUEUES[-1]
    body, rates = at_last(stack.body(size)), list[float]()
    with ends_of(stack, port) as ends, at_work(stack, port, size, ends, [last]):
        ends.feed(last, [body] * OUTSTANDING)
        for _ in range(count // 1000):
            start = time.perf_counter()
            for _ in range(1000 // 10):
                ends.take(10)
                ends.feed(last, [body] * 10)
            rates.append(1000 / (time.perf_counter() - start))
        ends.take(OUTSTANDING)
        return rates


def at_last(body: bytes) -> bytes:
    """The message of a recipe, for its last node."""
    return body.replace(b'"recipe-pointer":1', b'"recipe-pointer":%d' % len(QUEUES))


@contextmanager
def ends_of(stack: Stack, port: str) -> Iterator[Ends]:
    """The ends for a stack; nothing is left in its queues afterwards."""
    ends = ends_for(stack, port)
    try:
        yield ends
    finally:
        ends.discard()


@contextmanager
def at_work(
    stack: Stack,
    port: str,
    size: int,
    ends: Ends,
    queues: Sequence[str] = QUEUES,
    *,
    feed: bool = True,
) -> Iterator[list[psutil.Process]]:
    """The processes of the services of a stack, warm.

    They are fed what warms them, or find it there with what else waits for them. A backlog is made before
    they start: if they were held instead, the broker would hold back whoever makes it, and in the end let go
    of those who do not read what it has handed out already.
    """
    with stack.running(port, size, queues) as services:
        ends.check = services.check
        if feed:
            body = stack.body(size)
            ends.feed(queues[0], [body if queues == QUEUES else at_last(body)] * WARM)
        ends.take(WARM)
        yield processes_of(services.pids)


def processes_of(pids: Sequence[int]) -> list[psutil.Process]:
    """The processes, and their children."""
    parents = [psutil.Process(pid) for pid in pids]
    return parents + [child for parent in parents for child in parent.children(recursive=True)]


def cpu_seconds(family: Sequence[psutil.Process]) -> float:
    """User and system time so far."""
    times = [process.cpu_times() for process in family]
    return sum(spent.user + spent.system for spent in times)


def connections_of(process: psutil.Process) -> int:
    """TCP connections that are open."""
    return sum(1 for connection in process.net_connections("tcp") if connection.status == "ESTABLISHED")


def median_figures(runs: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return Figures(
        **{
            field.name: statistics.median(getattr(run, field.name) for run in runs)
            for field in fields(Figures)
        }
    )


def row(name: str, figures: Figures, peer: Figures | None) -> list[str]:
    """The cells of a stack; ratios to workflows on the same broker."""
    ratio = f"{figures.chains / peer.chains:.1f}" if peer else ""
    return [
        name,
        f"{figures.chains:,.0f}",
        ratio,
        f"{figures.p50:.2f}",
        f"{figures.p99:.1f}",
        f"{figures.cpu:.3f}",
        f"{figures.processes:g}",
        f"{figures.connections:g}",
        f"{figures.memory:.0f}",
    ]


def table_of(size: str, results: Mapping[Stack, Figures]) -> Table:
    """All stacks at one size."""
    table = Table(title=f"Three nodes, {size}")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left")
    theirs = {stack.broker: figures for stack, figures in results.items() if stack.name == "workflows"}
    for stack, figures in results.items():
        table.add_row(stack.broker, *row(stack.name, figures, theirs.get(stack.broker)))
    return table


@contextmanager
def brokers(wanted: Sequence[str]) -> Iterator[dict[str, str]]:
    """The ports of the brokers that can be had."""
    from real.activemq import server as activemq
    from real.packages import Unavailable
    from real.rabbitmq import server as rabbitmq

    ports: dict[str, str] = {}
    with ExitStack() as stack:
        for name, server, prefix in (("ActiveMQ", activemq, ""), ("RabbitMQ", rabbitmq, "amqp:")):
            if name in wanted:
                try:
                    broker = stack.enter_context(server.running())
                    ports[name] = f"{prefix}{broker.port}"
                except Unavailable as error:
                    print(f"without {name}: {error}", file=sys.stderr)
        yield ports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="medians of so many (default: %(default)s)")
    parser.add_argument("--only", action="append", help="a stack by name, such as Parvis; may be repeated")
    parser.add_argument("--long", type=int, default=LONG, help="messages through one service (%(default)s)")
    parser.add_argument("--broker", choices=("ActiveMQ", "RabbitMQ"), help="only on this one")
    options = parser.parse_args()
    chosen = [
        stack
        for stack in STACKS
        if (not options.only or stack.name in options.only) and options.broker in (None, stack.broker)
    ]
    console = Console(width=110)
    with brokers(sorted({stack.broker for stack in chosen})) as ports:
        chosen = [stack for stack in chosen if stack.broker in ports]
        for name, size in SIZES.items():
            runs: dict[Stack, list[Figures]] = {stack: [] for stack in chosen}
            for broker in ports:  # so that all meet it equally warm
                warmer = next(stack for stack in chosen if stack.broker == broker)
                measure(warmer, ports[broker], size)
            for _ in range(options.repeats):
                for stack in chosen:
                    runs[stack].append(measure_whole(stack, ports[stack.broker], size))
            console.print(table_of(name, {stack: median_figures(found) for stack, found in runs.items()}))
        if options.long:
            print_decay(console, chosen, ports, options.long)
    print(describe_machine("parvis", "workflows", "dramatiq", "faststream", "pika"))


def print_decay(console: Console, chosen: Sequence[Stack], ports: Mapping[str, str], count: int) -> None:
    """One service for long: the first and the last thousand messages."""
    table = Table(title=f"One service, {count:,} messages of 1 kB, {OUTSTANDING} under way: messages/s")
    for heading in ("", "", "first 1,000", "middle", "last 1,000"):
        table.add_column(heading, justify="right" if heading else "left")
    for stack in chosen:
        if stack.form == "recipe" and stack.broker == "ActiveMQ":
            rates = decay(stack, ports[stack.broker], SIZES["1 kB"], count)
            shown = (rates[0], rates[len(rates) // 2], rates[-1])
            table.add_row(stack.broker, stack.name, *(f"{rate:,.0f}" for rate in shown))
    console.print(table)


if __name__ == "__main__":
    main()
