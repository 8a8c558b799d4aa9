"""The frameworks that are compared: how their services start, how messages get there and come back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import pika
from settings import DRAMATIQ_PREFIX, NAMESPACE, PASSWORD, QUEUES, RESULTS, USERNAME

from parvis.recipe.envelope import RECIPE_HEADER, dump_json
from parvis.transport.base import Message, Send
from parvis.transport.stomp import StompTransport

HERE = Path(__file__).parent
_PATIENCE = 120.0


class Ends(Protocol):
    """Puts messages into the first queue and takes the results; the same for all stacks of a broker."""

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
    def running(self, port: str, size: int, queues: Sequence[str] = QUEUES) -> Iterator[list[int]]:
        """The services, one a queue; gives the numbers of their processes."""
        processes: list[subprocess.Popen[bytes]] = []
        environment = os.environ | _environment(port, size)
        try:
            for queue in queues:
                words = [word.format(queue=f"{self.prefix}{queue}") for word in self.command]
                processes.append(
                    subprocess.Popen(
                        [sys.executable, *words],
                        cwd=HERE,
                        env=environment,
                        stderr=subprocess.DEVNULL,
                    )
                )
            yield [process.pid for process in processes]
        finally:
            _end(processes)


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
        done, arrived = 0, 0.0
        while done < count:
            try:
                group = [self._arrived.get(timeout=_PATIENCE)]
            except Empty:
                raise Empty(f"{done} of {count} results came") from None
            while not self._arrived.empty() and len(group) < count - done:
                group.append(self._arrived.get())
            arrived = time.perf_counter()
            self._transport.commit(group, [])
            done += len(group)
        return arrived

    def discard(self) -> None:
        self._transport.disconnect()


class PikaEnds:
    """The ends of a chain on RabbitMQ, on a plain connection."""

    def __init__(self, port: str) -> None:
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
            f"{self._prefix}{RESULTS}", auto_ack=True, inactivity_timeout=1
        ):
            if method is not None:
                done += 1
                if done == count:
                    break
            elif time.monotonic() > deadline:
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
