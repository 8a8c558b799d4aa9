"""Three services for the fault suite: one fans numbers out, one computes, one writes to a table."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import signal
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

import pymysql
from pydantic import BaseModel, Field

from parvis.config import Config
from parvis.service.base import BatchService, Reject, Retry, Service, Step
from parvis.service.contract import Anything, Model, Outputs

Habit = Literal["segfault", "hang", "stuck", "memory", "killed", "raise", "reject"]

_MEBIBYTE = 1024 * 1024
_WORKER_MEMORY = 1024 * _MEBIBYTE
_TIME_LIMIT = 3.0
_ROUNDS = 200

TABLE = """
CREATE TABLE result (
    identity VARCHAR(100) PRIMARY KEY, item INT NOT NULL, digest CHAR(64) NOT NULL,
    writes INT NOT NULL DEFAULT 1, KEY (item)
)
"""
# The key is the identity of the message, not the number: a number that was sent as two messages has two rows.
_WRITE = (
    "INSERT INTO result (identity, item, digest) VALUES (%s, %s, %s) "
    "ON DUPLICATE KEY UPDATE writes = writes + 1"
)


class Range(Model):
    """Numbers that are still to be sent."""

    first: int
    last: int


class Item(Model):
    """A number; what must happen to whoever works on it."""

    item: int
    habit: Habit | None = None
    padding: str = ""


class Worked(Model):
    """A number and what was computed from it."""

    item: int
    digest: str


class SourceParameters(Model):
    """How numbers are sent.

    Attributes:
        burst: How many between two checkpoints.
        delay: Seconds from checkpoint to checkpoint.
        padding: Bytes that each message carries for its size's sake.
        habits: Which numbers are poisonous, and how.
    """

    burst: int = 100
    delay: float = 0
    padding: int = 200
    habits: dict[str, Habit] = Field(default_factory=dict)


def digest_of(item: int) -> str:
    """What the worker computes: a hash of a hash, and so on."""
    value = str(item).encode()
    for _ in range(_ROUNDS):
        value = hashlib.sha256(value).digest()
    return value.hex()


class FaultSource(Service[Range, SourceParameters]):
    """Fans a range of numbers out; how far it is, is in its checkpoints only."""

    name: ClassVar[str] = "FaultSource"
    queue: ClassVar[str] = "faults.source"
    Payload: ClassVar[type[BaseModel]] = Range
    Parameters: ClassVar[type[BaseModel]] = SourceParameters
    outputs: ClassVar[Outputs] = {"item": Item, "worked": Worked, "finished": Range}
    default_output: ClassVar[str | None] = "item"

    def process(self, payload: Range, step: Step[SourceParameters]) -> None:
        wanted = step.parameters
        following = min(payload.first + wanted.burst, payload.last + 1)
        for number in range(payload.first, following):
            habit = wanted.habits.get(str(number))
            step.send("item", Item(item=number, habit=habit, padding="x" * wanted.padding))
            if "worked" in step.connected_outputs():  # a recipe without a worker
                step.send("worked", Worked(item=number, digest=digest_of(number)))
        if following <= payload.last:
            step.checkpoint(Range(first=following, last=payload.last), delay=wanted.delay)
        else:
            step.send("finished", payload)


class FaultWorker(Service[Item, Anything]):
    """Computes; some items are poison."""

    name: ClassVar[str] = "FaultWorker"
    queue: ClassVar[str] = "faults.work"
    Payload: ClassVar[type[BaseModel]] = Item
    outputs: ClassVar[Outputs] = {"worked": Worked}
    default_output: ClassVar[str | None] = "worked"
    prefetch: ClassVar[int] = 4
    max_attempts: ClassVar[int] = 2
    time_limit: ClassVar[float | None] = _TIME_LIMIT

    def start(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_WORKER_MEMORY, _WORKER_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def process(self, payload: Item, step: Step[Anything]) -> None:
        match payload.habit:
            case "segfault":
                ctypes.string_at(0)
            case "hang":
                threading.Event().wait()
            case "stuck":  # in C, where no signal is noticed, and no other thread goes on
                mutex = ctypes.create_string_buffer(64)
                for _ in range(2):
                    ctypes.PyDLL(None).pthread_mutex_lock(mutex)
            case "memory":
                _exhaust_memory()
            case "killed":  # as the kernel does when there is no memory left
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise ValueError(f"item {payload.item} is a surprise")
            case "reject":
                raise Reject(f"item {payload.item} is no good")
            case None:
                step.send("worked", Worked(item=payload.item, digest=digest_of(payload.item)))


class FaultSink(BatchService[Worked, Anything]):
    """Writes a row for each item, and counts how often it was asked to."""

    name: ClassVar[str] = "FaultSink"
    queue: ClassVar[str] = "faults.sink"
    Payload: ClassVar[type[BaseModel]] = Worked
    batch_size: ClassVar[int] = 50
    batch_wait: ClassVar[float] = 0.1

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._database: pymysql.Connection | None = None

    def stop(self) -> None:
        self._close()

    def process_batch(self, batch: Sequence[tuple[Worked, Step[Anything]]]) -> None:
        rows = sorted((step.identity, work.item, work.digest) for work, step in batch)
        try:
            if self._database is None:
                self._database = open_database(os.environ["FAULTS_DATABASE"])
            with self._database.cursor() as cursor:
                cursor.executemany(_WRITE, rows)
        except (pymysql.err.OperationalError, pymysql.err.InterfaceError) as error:
            self._close()
            raise Retry(f"the database: {error}", after=1) from error

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with suppress(pymysql.err.Error):
                database.close()


def open_database(url: str) -> pymysql.Connection:
    """Connect to `mysql+pymysql://user:password@host:port/name`."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path.strip("/"),
        autocommit=True,
        connect_timeout=5,
        read_timeout=30,
    )


def create_table(url: str) -> None:
    """Make the table that the sink writes to."""
    with closing(open_database(url)) as database, database.cursor() as cursor:
        cursor.execute(TABLE)


def _exhaust_memory() -> None:
    held: list[bytes] = []
    while True:
        held.append(
            bytes(16 * _MEBIBYTE)
        )  # address space alone: to write to it would take a slow machine too long
