"""Our STOMP client beside `stomp.py` and `workflows`, on each broker: `python benchmarks/transport.py`.

Brokers and the services of a chain run in processes of their own. Ours waits for the broker to confirm every
transaction; the others, used as services use them, send theirs and go on. ActiveMQ is started where it is
installed, or where root can install it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import stomp
import stomp.utils
from machine import describe_machine
from rich.console import Console
from rich.table import Table

from parvis.transport.base import Message, Send
from parvis.transport.stomp import StompTransport

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from real.activemq.server import running
from real.packages import Unavailable

HOPS = 3
BATCH = 64
CLOSED_LOOP = 150
USERNAME, PASSWORD = "parvis", "parvis-test"


class Client(Protocol):
    """A connection that takes messages and sends them on."""

    received: SimpleQueue[Any]

    def __init__(self, port: int) -> None: ...
    def subscribe(self, queue: str) -> None: ...
    def acknowledge(self, messages: list[Any]) -> None: ...
    def forward(self, message: Any, queue: str) -> None: ...
    def close(self) -> None: ...


class Sender(Client, Protocol):
    """One that can also wait until the broker confirms what it sent."""

    def send(self, queue: str, body: bytes, count: int) -> None: ...


class Ours:
    """`StompTransport` of Parvis."""

    def __init__(self, port: int) -> None:
        self.received: SimpleQueue[Message] = SimpleQueue()
        self._transport = StompTransport([("127.0.0.1", port)], USERNAME, PASSWORD, "bench")
        self._transport.connect()

    def subscribe(self, queue: str) -> None:
        self._transport.subscribe(queue, self.received.put, prefetch=10)

    def send(self, queue: str, body: bytes, count: int) -> None:
        self._transport.send(*(Send(queue, body) for _ in range(count)))

    def acknowledge(self, messages: list[Message]) -> None:
        self._transport.commit(messages, [])

    def forward(self, message: Message, queue: str) -> None:
        self._transport.commit([message], [Send(queue, message.body)])

    def close(self) -> None:
        self._transport.disconnect()


class StompPy(stomp.ConnectionListener):
    """stomp.py, confirming what it sends and not what it acknowledges."""

    def __init__(self, port: int) -> None:
        self.received: SimpleQueue[stomp.utils.Frame] = SimpleQueue()
        self._receipts: SimpleQueue[None] = SimpleQueue()
        self._connection = stomp.Connection12([("127.0.0.1", port)])
        self._connection.set_listener("", self)
        self._connection.connect(USERNAME, PASSWORD, wait=True)

    def on_message(self, frame: stomp.utils.Frame) -> None:
        self.received.put(frame)

    def on_receipt(self, frame: stomp.utils.Frame) -> None:  # noqa: ARG002 - called with it
        self._receipts.put(None)

    def subscribe(self, queue: str) -> None:
        headers = {"activemq.prefetchSize": "10"}
        self._connection.subscribe(f"/queue/bench.{queue}", id="1", ack="client-individual", headers=headers)

    def send(self, queue: str, body: bytes, count: int) -> None:
        headers = {"persistent": "true"}
        if count == 1:
            self._connection.send(f"/queue/bench.{queue}", body, headers=headers, receipt="1")
        else:
            transaction = self._connection.begin()
            for _ in range(count):
                self._connection.send(f"/queue/bench.{queue}", body, headers=headers, transaction=transaction)
            self._connection.commit(transaction, receipt="1")
        self._receipts.get(timeout=60)

    def acknowledge(self, messages: list[stomp.utils.Frame]) -> None:
        for message in messages:
            self._connection.ack(message.headers["ack"])

    def forward(self, message: stomp.utils.Frame, queue: str) -> None:
        transaction = self._connection.begin()
        self._connection.ack(message.headers["ack"], transaction=transaction)
        headers = {"persistent": "true"}
        self._connection.send(f"/queue/bench.{queue}", message.body, headers=headers, transaction=transaction)
        self._connection.commit(transaction)

    def close(self) -> None:
        self._connection.disconnect()


class Workflows:
    """`StompTransport` of workflows, as its services use it; JSON included."""

    def __init__(self, port: int) -> None:
        from workflows.transport.stomp_transport import StompTransport as Theirs

        settings = {"--stomp-host": "127.0.0.1", "--stomp-port": port, "--stomp-prfx": "bench"}
        settings |= {"--stomp-user": USERNAME, "--stomp-pass": PASSWORD}
        self.received: SimpleQueue[tuple[dict[str, Any], Any]] = SimpleQueue()
        self._transport: Any = type("Peer", (Theirs,), {"config": settings})()
        self._transport.connect()

    def subscribe(self, queue: str) -> None:
        self._transport.subscribe(queue, lambda *message: self.received.put(message), acknowledgement=True)

    def acknowledge(self, messages: list[tuple[dict[str, Any], Any]]) -> None:
        for header, _ in messages:
            self._transport.ack(header)

    def forward(self, message: tuple[dict[str, Any], Any], queue: str) -> None:
        header, body = message
        transaction = self._transport.transaction_begin(subscription_id=header["subscription"])
        self._transport.ack(header, transaction=transaction)
        self._transport.send(queue, body, transaction=transaction)
        self._transport.transaction_commit(transaction)

    def close(self) -> None:
        self._transport.disconnect()


CLIENTS: dict[str, type[Client]] = {"ours": Ours, "stomp.py": StompPy, "workflows": Workflows}
SENDERS: dict[str, type[Sender]] = {"ours": Ours, "stomp.py": StompPy}


def new_queue() -> str:
    return f"q{uuid.uuid4().hex}"


def body_of(size: int) -> bytes:
    return b'"%b"' % (b"x" * (size - 2))


def send_rate(kind: type[Sender], port: int, size: int, count: int, batch: int) -> float:
    """Messages a second, confirmed `batch` by `batch`."""
    with closing(kind(port)) as client:
        queue, body = new_queue(), body_of(size)
        start = time.perf_counter()
        for _ in range(count // batch):
            client.send(queue, body, batch)
        taken = time.perf_counter() - start
    # So that no broker runs full and holds senders back.
    receive_rate(Ours, port, queue, count // batch * batch, 8)
    return count // batch * batch / taken


def fill(port: int, queue: str, size: int, count: int) -> None:
    with closing(Ours(port)) as client:
        for start in range(0, count, BATCH):
            client.send(queue, body_of(size), min(BATCH, count - start))


def acknowledge_rate(kind: type[Client], port: int, size: int, count: int, batch: int) -> float:
    """Messages a second, taken from a full queue and acknowledged `batch` by `batch`."""
    queue = new_queue()
    fill(port, queue, size, count)
    return receive_rate(kind, port, queue, count, batch)


def receive_rate(kind: type[Client], port: int, queue: str, count: int, batch: int) -> float:
    with closing(kind(port)) as client:
        start = time.perf_counter()
        client.subscribe(queue)
        for done in range(0, count, batch):
            client.acknowledge([client.received.get(timeout=60) for _ in range(min(batch, count - done))])
        return count / (time.perf_counter() - start)


@contextmanager
def chain(name: str, port: int, last: str) -> Iterator[str]:
    """Services, each a process, that hand messages on to the next; gives the queue of the first."""
    spawn, processes, target = multiprocessing.get_context("spawn"), list[SpawnProcess](), last
    try:
        for _ in range(HOPS):
            queue = new_queue()
            processes.append(spawn.Process(target=serve, args=(name, port, queue, target), daemon=True))
            processes[-1].start()
            target = queue
        yield target
    finally:
        for process in processes:
            process.terminate()
            process.join()


def serve(name: str, port: int, queue: str, target: str) -> None:
    client = CLIENTS[name](port)
    client.subscribe(queue)
    while True:
        client.forward(client.received.get(), target)


def chain_figures(name: str, port: int, size: int, count: int) -> tuple[float, float, float]:
    """Median and 99th percentile in ms of one message at a time; and messages a second, all at once."""
    arrived: SimpleQueue[Message] = SimpleQueue()
    ends = StompTransport([("127.0.0.1", port)], USERNAME, PASSWORD, "bench")
    ends.connect()
    with ExitStack() as stack:
        stack.callback(ends.disconnect)
        _, last = ends.subscribe_temporary("bench", arrived.put)
        with chain(name, port, last) as first:
            job, taken = Send(first, body_of(size)), list[float]()
            for _ in range(CLOSED_LOOP):
                start = time.perf_counter()
                ends.post(job)
                arrived.get(timeout=60)
                taken.append(1000 * (time.perf_counter() - start))
            start = time.perf_counter()
            fill(port, first, size, count)
            for _ in range(count):
                arrived.get(timeout=120)
            rate = count / (time.perf_counter() - start)
    taken = taken[CLOSED_LOOP // 10 :]
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98], rate


@contextmanager
def embedded() -> Iterator[int]:
    """The port of an embedded broker without a journal."""
    command = [sys.executable, "-m", "parvis.transport.embedded", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().split(":")[1].split(",")[0])
        finally:
            process.terminate()


@contextmanager
def activemq() -> Iterator[int]:
    """The port of an ActiveMQ that leaves it to the system when it writes to the disk."""
    with running(disk_syncs=False) as broker:
        yield broker.port


def measure(port: int, size: int, count: int, repeats: int, report: Callable[..., None]) -> None:
    """Report all lines of one broker and size: medians."""

    def rates(measured: Callable[..., float], kinds: Mapping[str, type[Any]], batch: int) -> list[str]:
        runs: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(repeats + 1):  # in turn, so that all meet the broker equally warm
            for name, kind in kinds.items():
                runs[name].append(measured(kind, port, size, count, batch))
        return [f"{statistics.median(runs[name][1:]):,.0f}" if name in kinds else "-" for name in CLIENTS]

    report("send, each confirmed", "msg/s", *rates(send_rate, SENDERS, 1))
    report(f"send, {BATCH} in a transaction", "msg/s", *rates(send_rate, SENDERS, BATCH))
    report("take and acknowledge", "msg/s", *rates(acknowledge_rate, CLIENTS, 1))
    report("take and acknowledge, 8 at a time", "msg/s", *rates(acknowledge_rate, {"ours": Ours}, 8))
    figures = [[chain_figures(name, port, size, count) for _ in range(repeats)] for name in CLIENTS]
    columns = [[statistics.median(column) for column in zip(*runs, strict=True)] for runs in figures]
    report(f"{HOPS} hops in transactions", "ms p50", *(f"{median:.2f}" for median, _, _ in columns))
    report("", "ms p99", *(f"{late:.2f}" for _, late, _ in columns))
    report("", "msg/s", *(f"{rate:,.0f}" for _, _, rate in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000, help="of each run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="medians of so many (default: %(default)s)")
    options = parser.parse_args()
    table = Table(title=f"STOMP clients, medians of {options.repeats} runs of {options.messages} messages")
    for heading in ("broker", "size", "what", "unit", *CLIENTS):
        table.add_column(heading, justify="left" if heading in {"broker", "what"} else "right")
    for name, start in (("embedded", embedded), ("ActiveMQ", activemq)):
        try:
            with start() as port:
                for size in (1000, 20_000):
                    report = partial(table.add_row, name, f"{size // 1000} kB")
                    measure(port, size, options.messages, options.repeats, report)
        except Unavailable as error:
            print(f"without ActiveMQ: {error}", file=sys.stderr)
    Console().print(table)
    print(describe_machine("stomp.py", "workflows"))


if __name__ == "__main__":
    main()
