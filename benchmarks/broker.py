"""How much goes through the embedded broker: `python benchmarks/broker.py`.

The broker runs in a process of its own; the client, on plain sockets, in this one. So with two cores the
broker has one of them. CPU is the broker's, from /proc, for each message that goes all the way.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from parvis.transport.stomp_frames import Frame, Parser, encode

Figures = tuple[str, ...]
SIZES = (1000, 20_000)
JOURNALS = ("no", "no sync", "yes")


class Client:
    """A connection that reads frames as they come."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = Parser()
        self.socket.sendall(encode(Frame("CONNECT", {"accept-version": "1.2", "host": "localhost"})))
        self.read()

    def read(self) -> list[Frame]:
        """The frames of one read."""
        return [item for item in self.parser.feed(self.socket.recv(262_144)) if isinstance(item, Frame)]

    def subscribe(self, queue: str, prefetch: int = 100) -> None:
        headers = {"destination": queue, "id": queue, "ack": "client-individual"}
        self.socket.sendall(encode(Frame("SUBSCRIBE", headers | {"activemq.prefetchSize": str(prefetch)})))


@contextmanager
def broker(journal: str) -> Iterator[tuple[int, psutil.Process]]:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "parvis.transport.embedded", "--port", "0"]
        command += ["--journal", str(Path(directory) / "journal.db")] if journal != "no" else []
        command += ["--no-sync"] if journal == "no sync" else []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline().split(":")[1].split(",")[0])
            try:
                yield port, psutil.Process(process.pid)
            finally:
                process.terminate()


def send_frame(queue: str, size: int, **more: str) -> bytes:
    headers = {"destination": queue, "persistent": "true", "workflows-recipe": "True", **more}
    return encode(Frame("SEND", headers, bytes(size)))


def ack_frame(message: Frame) -> bytes:
    return encode(Frame("ACK", {"id": message.headers["ack"]}))


def feed(client: Client, frame: bytes, number: int) -> threading.Thread:
    """Send that many of these frames, in a thread."""
    chunk = max(1, 50_000 // len(frame))

    def run() -> None:
        for start in range(0, number, chunk):
            client.socket.sendall(frame * min(chunk, number - start))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def through(port: int, size: int, number: int) -> None:
    """Send, deliver, acknowledge, all at the same time."""
    sender, receiver = Client(port), Client(port)
    receiver.subscribe("/queue/through")
    thread = feed(sender, send_frame("/queue/through", size), number)
    got = 0
    while got < number:
        messages = receiver.read()
        got += len(messages)
        receiver.socket.sendall(b"".join(map(ack_frame, messages)))
    thread.join()


def forward(port: int, size: int, number: int) -> None:
    """A service: takes each message and sends one, in a transaction; somebody takes that."""
    sender, worker, receiver = Client(port), Client(port), Client(port)
    worker.subscribe("/queue/in", 10)
    receiver.subscribe("/queue/out")
    feeding = feed(sender, send_frame("/queue/in", size), number)
    transaction = {"transaction": "t"}
    send = send_frame("/queue/out", size, **transaction)
    begin, commit = encode(Frame("BEGIN", transaction)), encode(Frame("COMMIT", transaction))

    def work() -> None:
        done = 0
        while done < number:
            for message in worker.read():
                ack = encode(Frame("ACK", {"id": message.headers["ack"], **transaction}))
                worker.socket.sendall(begin + ack + send + commit)
                done += 1

    working = threading.Thread(target=work)
    working.start()
    got = 0
    while got < number:
        messages = receiver.read()
        got += len(messages)
        receiver.socket.sendall(b"".join(map(ack_frame, messages)))
    feeding.join()
    working.join()


def round_trips(port: int, size: int, number: int) -> tuple[float, float]:
    """One message at a time, from SEND to MESSAGE: median and 99th percentile, in ms."""
    client = Client(port)
    client.subscribe("/queue/round")
    frame = send_frame("/queue/round", size)
    taken: list[float] = []
    for _ in range(number):
        start = time.perf_counter()
        client.socket.sendall(frame)
        messages: list[Frame] = []
        while not messages:
            messages = client.read()
        taken.append(1000 * (time.perf_counter() - start))
        client.socket.sendall(ack_frame(messages[0]))
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def commits(port: int, size: int, connections: int, seconds: float = 2) -> float:
    """Transactions a second of connections that each wait for the receipt of one before the next."""
    done = [0] * connections
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        client = Client(port)
        transaction = {"transaction": "t"}
        data = encode(Frame("BEGIN", transaction)) + send_frame("/queue/commits", size, **transaction)
        data += encode(Frame("COMMIT", transaction | {"receipt": "r"}))
        while time.perf_counter() < end:
            client.socket.sendall(data)
            while not client.read():
                pass
            done[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def backlog(port: int, process: psutil.Process, size: int, number: int) -> tuple[str, str, str, str]:
    """Messages that nobody takes, then somebody takes them: the rates, and the memory at most and in the end.

    Where the broker makes the sender wait, as it keeps all in memory, that number is the first.
    """
    peak, came = 0, 0
    start = time.perf_counter()
    feeding = feed(Client(port), send_frame("/queue/backlog", size), number)
    watch, sent = Client(port), -1
    watch.subscribe("/queue/answers")
    ask = {"destination": "/queue/ActiveMQ.Statistics.Destination.backlog", "reply-to": "/queue/answers"}
    while came < number and came != sent:  # until all are there, or no more come
        sent = came
        feeding.join(1)
        peak = max(peak, process.memory_info().rss)
        watch.socket.sendall(encode(Frame("SEND", ask)))
        while not (messages := watch.read()):
            pass
        watch.socket.sendall(b"".join(map(ack_frame, messages)))
        came = orjson.loads(messages[0].body)["size"]
    filled = time.perf_counter() - start
    start = time.perf_counter()
    receiver, got = Client(port), 0
    receiver.subscribe("/queue/backlog")
    while got < number:
        messages = receiver.read()
        got += len(messages)
        receiver.socket.sendall(b"".join(map(ack_frame, messages)))
        peak = max(peak, process.memory_info().rss) if got % 1000 < len(messages) else peak
    feeding.join()
    emptied = time.perf_counter() - start
    end = process.memory_info().rss
    return (
        f"{came:,}",
        f"{came / filled:,.0f}",
        f"{number / emptied:,.0f}",
        f"{peak / 1e6:.0f} / {end / 1e6:.0f}",
    )


def measure(size: int, journal: str, number: int, repeats: int) -> Figures:
    """One line of the table: medians."""
    rates: dict[str, list[float]] = {"through": [], "forward": []}
    costs: list[float] = []
    with broker(journal) as (port, process):
        for _ in range(repeats):
            for name, run in (("through", through), ("forward", forward)):
                before, start = sum(process.cpu_times()[:2]), time.perf_counter()
                run(port, size, number)
                rates[name].append(number / (time.perf_counter() - start))
                if name == "through":
                    costs.append((sum(process.cpu_times()[:2]) - before) / number * 1e6)
        median, late = round_trips(port, size, min(number, 1000))
        memory = process.memory_info().rss / 1e6
    return (
        f"{size / 1000:g} kB",
        journal,
        f"{statistics.median(rates['through']):,.0f}",
        f"{statistics.median(costs):.0f}",
        f"{statistics.median(rates['forward']):,.0f}",
        f"{median:.2f} / {late:.2f}",
        f"{memory:.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="of each run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="medians of so many (default: %(default)s)")
    parser.add_argument("--backlog", type=int, default=100_000, help="messages (default: %(default)s)")
    options = parser.parse_args()
    show_rates(options.messages, options.repeats)
    show_commits()
    show_backlog(options.backlog)


def show_rates(messages: int, repeats: int) -> None:
    table = Table(title=f"Embedded broker, medians of {repeats} runs")
    for heading in ("size", "journal", "msg/s", "µs/msg", "hops/s", "ms p50 / p99", "MB"):
        table.add_column(heading, justify="right")
    for journal in JOURNALS:
        for size in SIZES:
            number = messages if size == 1000 else messages // 5
            table.add_row(*measure(size, journal, number, repeats))
    Console().print(table)
    print(
        "msg/s: sent, delivered and acknowledged. µs/msg: the broker's CPU for that. hops/s: taken,\n"
        "acknowledged and sent on in a transaction. ms: from SEND to MESSAGE, one at a time. MB: memory."
    )


def show_commits() -> None:
    counts = (1, 4, 16, 64)
    table = Table(title="Transactions a second, each waited for, by so many connections")
    for heading in ("size", "journal", *map(str, counts)):
        table.add_column(heading, justify="right")
    for journal in JOURNALS[1:]:
        for size in SIZES:
            with broker(journal) as (port, _):
                rates = [f"{commits(port, size, connections):,.0f}" for connections in counts]
            table.add_row(f"{size / 1000:g} kB", journal, *rates)
    Console().print(table)


def show_backlog(number: int) -> None:
    table = Table(title=f"A backlog of {number:,}")
    for heading in ("size", "journal", "held", "in/s", "out/s", "MB peak / end"):
        table.add_column(heading, justify="right")
    for journal in ("no", "yes"):
        for size in SIZES:
            with broker(journal) as (port, process):
                table.add_row(f"{size / 1000:g} kB", journal, *backlog(port, process, size, number))
    Console().print(table)
    print("held: in the queue when the sender was done, or was made to wait. MB: resident memory.")


if __name__ == "__main__":
    main()
