"""The frameworks that are compared: how their services start, how messages get there and come back."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Protocol

import pika
from settings import DRAMATIQ_PREFIX, NAMESPACE, PASSWORD, QUEUES, RESULTS, USERNAME

from parvis.observe.hops import QUEUE as HOPS
from parvis.recipe.envelope import RECIPE_HEADER, dump_json
from parvis.transport.base import Message, Send
from parvis.transport.stomp import StompTransport

HERE = Path(__file__).parent
_PATIENCE = 120.0
_SILENCE = 0.5  # seconds without a message after which a queue is empty
_LOOK_EVERY = 1.0  # seconds without a result after which we look whether the services still live


class ServiceEnded(Exception):
    """A service that is measured has ended by itself, and the rest of its messages will never come."""


class Ends(Protocol):
    """Puts messages into the first queue and takes the results; the same for all stacks of a broker.

    Attributes:
        check: Raises `ServiceEnded` if a service has ended.
    """

    check: Callable[[], None]

    def feed(self, queue: str, bodies: Sequence[bytes]) -> None: ...
    def take(self, count: int) -> float: ...
    def discard(self) -> None: ...


@dataclass(frozen=True)
class Stack:
    """One framework on one broker.

    Attributes:
        name: For the table.
        broker: `ActiveMQ` or `RabbitMQ`.
        command: What runs the service of a queue, after the interpreter; `{queue}` is filled in.
        form: `recipe`, or `payload` for frameworks without recipes, or `dramatiq`.
    """

    name: str
    broker: str
    command: tuple[str, ...]
    form: str = "recipe"

    @property
    def prefix(self) -> str:
        """What its queue names begin with."""
        return DRAMATIQ_PREFIX if self.form == "dramatiq" else ""

    def body(self, size: int) -> bytes:
        """A message for the first service, with `size` bytes of data."""
        payload = {"data": "x" * size}
        if self.form == "recipe":
            return _recipe_message(payload)
        if self.form == "dramatiq":
            import dramatiq

            return dramatiq.Message(f"{self.prefix}{QUEUES[0]}", "first", (payload,), {}, {}).encode()
        return dump_json(payload)

    @contextmanager
    def running(self, port: str, size: int, queues: Sequence[str] = QUEUES) -> Iterator[Services]:
        """The services, one a queue."""
        processes: list[subprocess.Popen[bytes]] = []
        environment = os.environ | _environment(port, size)
        with tempfile.TemporaryFile() as said:
            try:
                for queue in queues:
                    words = [word.format(queue=f"{self.prefix}{queue}") for word in self.command]
                    processes.append(
                        subprocess.Popen([sys.executable, *words], cwd=HERE, env=environment, stderr=said)
                    )
                yield Services(self, processes, said)
            finally:
                _end(processes)


@dataclass(frozen=True)
class Services:
    """The services of a stack at work, and what they say on their standard error."""

    stack: Stack
    processes: Sequence[subprocess.Popen[bytes]]
    said: IO[bytes]

    @property
    def pids(self) -> list[int]:
        """Numbers of their processes."""
        return [process.pid for process in self.processes]

    def check(self) -> None:
        """Raise ServiceEnded if one of them has ended."""
        for number, process in enumerate(self.processes, 1):
            if process.poll() is not None:
                self.said.seek(0)
                lines = self.said.read().decode(errors="replace").strip().splitlines() or ["nothing"]
                raise ServiceEnded(
                    f"service {number} of {self.stack.name} on {self.stack.broker} ended by itself with code "
                    f"{process.returncode}, its last words: {lines[-1]}"
                )


STACKS = (
    Stack("Parvis", "ActiveMQ", ("services.py", "ours", "{queue}")),
    Stack("Parvis, reporting hops", "ActiveMQ", ("services.py", "reporting", "{queue}")),
    Stack("workflows", "ActiveMQ", ("services.py", "workflows", "{queue}")),
    Stack("Parvis", "RabbitMQ", ("services.py", "ours", "{queue}")),
    Stack("workflows", "RabbitMQ", ("services.py", "workflows", "{queue}")),
    Stack(
        "Dramatiq",
        "RabbitMQ",
        ("-m", "dramatiq", "dramatiq_chain", "--processes=1", "--threads=1", "--queues={queue}"),
        "dramatiq",
    ),
    Stack("FastStream", "RabbitMQ", ("faststream_chain.py", "{queue}"), "payload"),
    Stack("raw frames", "ActiveMQ", ("services.py", "raw", "{queue}")),
)


def _recipe_message(payload: Any) -> bytes:
    recipe: dict[str, Any] = {
        str(number): {"queue": queue, "output": number + 1, "service": f"Forward {queue}"}
        for number, queue in enumerate(QUEUES, 1)
    }
    last = len(QUEUES) + 1
    recipe |= {str(last): {"queue": RESULTS}, "start": [[1, []]]}
    return dump_json(
        {
            "recipe": recipe,
            "recipe-pointer": 1,
            "recipe-path": [],
            "environment": {"ID": "7c3c2b0e-0000-4000-8000-000000000000"},
            "payload": payload,
        }
    )


def _environment(port: str, size: int) -> Mapping[str, str]:
    number = port.removeprefix("amqp:")
    kind = "RABBITMQ" if port.startswith("amqp:") else "STOMP"
    ours = {
        f"PARVIS_{kind}_HOST": "127.0.0.1",
        f"PARVIS_{kind}_PORT": number,
        f"PARVIS_{kind}_USERNAME": USERNAME,
        f"PARVIS_{kind}_PASSWORD": PASSWORD,
    }
    ours |= (
        {"PARVIS_TRANSPORT": "PikaTransport"} if kind == "RABBITMQ" else {"PARVIS_STOMP_PREFIX": NAMESPACE}
    )
    whole = len(_recipe_message({"data": "x" * size}))  # frames made before are as long
    return ours | {"BENCHMARK_PORT": port, "BENCHMARK_SIZE": str(whole)}


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    import psutil

    for process in processes:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()  # the front end of workflows leaves its service behind
        process.kill()
        process.wait()


class StompEnds:
    """The ends of a chain on ActiveMQ."""

    def __init__(self, port: str) -> None:
        self.check: Callable[[], None] = lambda: None
        self._arrived: SimpleQueue[Message] = SimpleQueue()
        self._transport = StompTransport([("127.0.0.1", int(port))], USERNAME, PASSWORD, NAMESPACE)
        self._transport.connect()
        self._transport.subscribe(RESULTS, self._arrived.put, prefetch=1000)

    def feed(self, queue: str, bodies: Sequence[bytes]) -> None:
        for start in range(0, len(bodies), 100):
            headers = {RECIPE_HEADER: "True"}
            self._transport.send(*(Send(queue, body, headers) for body in bodies[start : start + 100]))

    def take(self, count: int) -> float:
        """Take so many results, acknowledging what has come each time; return when the last came."""
        done, arrived, deadline = 0, 0.0, time.monotonic() + _PATIENCE
        while done < count:
            try:
                group = self._group(_LOOK_EVERY, count - done)
            except Empty:
                self.check()
                if time.monotonic() > deadline:
                    raise Empty(f"{done} of {count} results came") from None
                continue
            deadline = time.monotonic() + _PATIENCE
            arrived = time.perf_counter()
            self._transport.commit(group, [])
            done += len(group)
        return arrived

    def discard(self) -> None:
        """Take away what is left, as of a service that ended: the next stack is not to find it."""
        for queue in (*QUEUES, HOPS):
            self._transport.subscribe(queue, self._arrived.put, prefetch=1000)
        with suppress(Empty):
            while True:
                self._transport.commit(self._group(_SILENCE, 1000), [])
        self._transport.disconnect()

    def _group(self, timeout: float, most: int) -> list[Message]:
        """What has come, at least one."""
        group = [self._arrived.get(timeout=timeout)]
        while not self._arrived.empty() and len(group) < most:
            group.append(self._arrived.get())
        return group


class PikaEnds:
    """The ends of a chain on RabbitMQ, on a plain connection."""

    def __init__(self, port: str) -> None:
        self.check: Callable[[], None] = lambda: None
        credentials = pika.PlainCredentials(USERNAME, PASSWORD)
        where = pika.ConnectionParameters("127.0.0.1", int(port.removeprefix("amqp:")), "/", credentials)
        self._connection = pika.BlockingConnection(where)
        self._channel = self._connection.channel()
        self._prefix = ""

    def declare(self, stack: Stack, port: str) -> None:
        """Make the queues as the stack wants them."""
        self._prefix = stack.prefix
        if stack.form == "dramatiq":
            os.environ["BENCHMARK_PORT"] = port
            import dramatiq_chain

            for queue in (*QUEUES, RESULTS):
                dramatiq_chain.broker.declare_queue(f"{stack.prefix}{queue}", ensure=True)
            return
        arguments = {"x-queue-type": "quorum"} if stack.form == "recipe" else {}
        for queue in (*QUEUES, RESULTS):
            self._channel.queue_declare(queue, durable=True, arguments=arguments)
        for exchange in ("command", "transient.status"):
            self._channel.exchange_declare(exchange, "fanout", durable=True)

    def feed(self, queue: str, bodies: Sequence[bytes]) -> None:
        properties = pika.BasicProperties(delivery_mode=2, headers={RECIPE_HEADER: True})
        for body in bodies:
            self._channel.basic_publish("", f"{self._prefix}{queue}", body, properties)

    def take(self, count: int) -> float:
        """Take so many results; return when the last came."""
        done, deadline = 0, time.monotonic() + _PATIENCE
        for method, _, _ in self._channel.consume(
            f"{self._prefix}{RESULTS}", auto_ack=True, inactivity_timeout=_LOOK_EVERY
        ):
            if method is not None:
                done, deadline = done + 1, time.monotonic() + _PATIENCE
                if done == count:
                    break
                continue
            self.check()
            if time.monotonic() > deadline:
                raise Empty(f"{done} of {count} results came")
        return time.perf_counter()

    def discard(self) -> None:
        """Remove the queues, as another stack wants others; Dramatiq remembers that its own are there."""
        self._channel.cancel()
        for queue in () if self._prefix else (*QUEUES, RESULTS):
            self._channel.queue_delete(queue)
        self._connection.close()


def ends_for(stack: Stack, port: str) -> Ends:
    """The ends for a stack, its queues made."""
    if stack.broker == "ActiveMQ":
        return StompEnds(port)
    ends = PikaEnds(port)
    ends.declare(stack, port)
    return ends
