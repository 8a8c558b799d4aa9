"""A place to break things in: broker, proxy, database and services in processes of their own, under load."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pymysql

from fault_brokers import FaultyBroker
from fault_services import Habit, create_table, open_database
from parvis.cli.up import service_command
from parvis.config import Config
from parvis.recipe.envelope import Envelope, dump_json
from parvis.service.identity import IDENTITY
from parvis.service.supervisor import Supervisor
from parvis.transport.base import Disconnected, Send, Transport
from real.mariadb import MariaDb
from stepped_clock import SteppedClock
from tcp_proxy import TcpProxy
from waiting import wait_until

SERVICES: dict[str, int] = {"Dispatcher": 1, "FaultSource": 2, "FaultWorker": 3, "FaultSink": 2}
RECIPE_SIZE = 500
_LOW_WATER = 800
_START = 120.0  # seconds for eight processes to start at once
_log = logging.getLogger("faults")


class Feeder:
    """Keeps a recipe flow going: asks the dispatcher for another recipe whenever there is little left to do.

    Attributes:
        issued: Numbers from 1 to this have been asked for.
        poison: What is wrong with which of them.
        copies: How often those numbers were asked for that were asked for more than once.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.issued = 0
        self.poison: dict[int, Habit] = {}
        self.copies: dict[int, int] = {}

    def ask(self, count: int, habits: Mapping[int, Habit] | None = None, copies: int = 1) -> int:
        """Ask for a recipe that sends `count` further numbers; return the first of them.

        Args:
            count: How many.
            habits: What is to be wrong with which, counted from 0.
            copies: How often to send this. The dispatcher knows a request that it has seen, so copies go
                past it: each is the message that it would send to the source.
        """
        with self._lock:
            first = self.issued + 1
            self.issued += count
        poison: dict[int, Habit] = {first + offset: habit for offset, habit in (habits or {}).items()}
        self.poison |= poison
        if copies > 1:
            self.copies |= dict.fromkeys(range(first, first + count), copies)
        last = first + count - 1
        making = self._place.request if copies == 1 else self._place.started
        for _ in range(copies):
            self._send(making(first, last, poison))
        return first

    def start(self) -> None:
        """Begin to keep it going."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing more."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not (self._ending.wait(0.05) or self._place.is_over):
            if self.issued - self._place.progress < _LOW_WATER:
                self.ask(RECIPE_SIZE)

    def _send(self, request: Send) -> None:
        """Send, again and again while the broker is away: it may come twice, and is the same request."""
        while not self._place.is_over:
            try:
                self._place.transport.send(request, timeout=5)
            except Disconnected as error:
                _log.info("asking again: %s", error)
            else:
                return


@dataclass
class Place:
    """Everything that can be broken.

    Attributes:
        directory: Of this place: logs of the services are in `logs`.
        broker: The broker.
        proxy: What the services reach the broker through.
        mariadb: The database server.
        database_url: The database with the table that the recipe ends in.
        supervisor: What keeps the services running.
        transport: A connection to the broker past the proxy.
        clock: What one instance of each service, and the embedded broker, takes for the time.
        chance: Source of all randomness.
        recipe_parameters: As `fault_services.SourceParameters`.
        skips_worker: Whether the recipe leads from the source to the sink at once.
        progress: Rows in the table when it could last be read.
        memory: By process, what it held at which progress: pairs of rows and bytes.
        names: Of the processes.
    """

    directory: Path
    broker: FaultyBroker
    proxy: TcpProxy
    mariadb: MariaDb
    database_url: str
    supervisor: Supervisor
    transport: Transport
    clock: SteppedClock
    chance: random.Random
    recipe_parameters: dict[str, Any]
    skips_worker: bool
    progress: int = 0
    memory: dict[int, list[tuple[int, int]]] = field(default_factory=dict[int, list[tuple[int, int]]])
    names: dict[int, str] = field(default_factory=dict[int, str])
    _ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def recipe(self, first: int, last: int, poison: Mapping[int, Habit]) -> dict[str, Any]:
        """A recipe that sends the numbers through all three services."""
        habits = {str(number): habit for number, habit in poison.items()}
        parameters = {**self.recipe_parameters, "habits": habits}
        way = {"worked": 3} if self.skips_worker else {"item": 2}
        worker = {} if self.skips_worker else {"2": {"queue": "faults.work", "output": {"worked": 3}}}
        return {
            "1": {"queue": "faults.source", "output": {**way, "finished": 4}, "parameters": parameters},
            **worker,
            "3": {"queue": "faults.sink"},
            "4": {"topic": "faults.finished"},
            "start": [[1, {"first": first, "last": last}]],
        }

    def request(self, first: int, last: int, poison: Mapping[int, Habit]) -> Send:
        """What asks the dispatcher to start such a recipe."""
        content = {
            "custom_recipe": self.recipe(first, last, poison),
            "parameters": {"guid": f"faults-{first}"},
        }
        return Send("processing_recipe", dump_json(content), {IDENTITY: f"faults-request-{first}"})

    def started(self, first: int, last: int, poison: Mapping[int, Habit]) -> Send:
        """What the dispatcher sends because of such a request."""
        environment = {"ID": f"faults-{first}"}
        (send,) = Envelope(self.recipe(first, last, poison), 0, None, environment=environment).start()
        return replace(send, headers={**send.headers, IDENTITY: f"faults-started-{first}"})

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with closing(open_database(self.database_url)) as database, database.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def wait_for(self, condition: Callable[[], object], timeout: float, what: str) -> None:
        """As `wait_until`, with an error that says how far everything is."""
        try:
            wait_until(condition, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {self.progress} rows") from None

    def wait_for_progress(self, more: int, timeout: float) -> None:
        """Return when there are `more` rows than now; as `wait_for_rows`."""
        self.wait_for_rows(self.progress + more, timeout)

    def wait_for_rows(self, wanted: int, timeout: float) -> None:
        """Return when there are so many rows; give up when there is none new for `timeout` seconds."""
        while (now := self.progress) < wanted:
            self.wait_for(lambda now=now: self.progress > now, timeout, f"another row of {wanted}")

    @property
    def is_over(self) -> bool:
        """Whether the services have stopped."""
        return self._ending.is_set()

    @property
    def logbook(self) -> Path:
        """Where the dispatcher notes recipes."""
        return self.directory / "logbook"

    def log(self, name: str) -> str:
        """What an instance has said."""
        return (self.directory / "logs" / f"{name}.log").read_text(errors="replace")

    @property
    def logs(self) -> list[Path]:
        """The logs of the services, by name."""
        return sorted((self.directory / "logs").glob("*.log"))

    def watch(self) -> None:
        """Follow progress and memory until `_ending`."""
        database: pymysql.Connection | None = None
        while not self._ending.wait(0.03):
            try:
                database = database or open_database(self.database_url)
                with database.cursor() as cursor:
                    cursor.execute("SELECT COUNT(*) FROM result")
                    ((self.progress,),) = cursor.fetchall()
            except (pymysql.err.Error, OSError):
                database = None
            processes = dict(self.supervisor.process_ids)
            broker = getattr(self.broker, "process", None)
            if broker is not None:
                processes[broker.pid] = "embedded broker"
            for number, name in processes.items():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    pages = int(Path(f"/proc/{number}/statm").read_text().split()[1])
                    self.names[number] = name
                    self.memory.setdefault(number, []).append((self.progress, pages * 4096))

    def stop_services(self) -> None:
        """Stop all services in good order, and look no more."""
        self.supervisor.stop()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "the services did not stop"
            self._ending.set()

    def start_services(self) -> None:
        """Start, and begin to look at progress and memory."""
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self.supervisor.run, self.watch)
        ]
        for thread in self._threads:
            thread.start()


@contextlib.contextmanager
def faulty_place(
    directory: Path,
    broker: FaultyBroker,
    mariadb: MariaDb,
    clock: SteppedClock,
    *,
    services: Mapping[str, int] = SERVICES,
    skips_worker: bool = False,
    **recipe_parameters: Any,
) -> Generator[Place]:
    """A place with running services; one instance of each, where there are several, goes by `clock`.

    Args:
        directory: For its files.
        broker: Running.
        mariadb: Running.
        clock: That can be stepped.
        services: How many of which.
        skips_worker: Whether the recipe leads from the source to the sink at once.
        recipe_parameters: As `fault_services.SourceParameters`.
    """
    logs = directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    url = mariadb.create_database("faults")
    create_table(url)
    proxy = TcpProxy(broker.port)
    variables = {
        **broker.environment(proxy.port),
        "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{announced(directory)}",
        "FAULTS_DATABASE": url,
        "PARVIS_LOGBOOK_LOCATION": str(directory / "logbook"),
        "PYTHONFAULTHANDLER": "1",  # for `fault_diagnosis`
    }
    commands = _commands(services, clock)
    supervisor = Supervisor(commands, variables, logs)
    transport = Config.load(overrides=broker.environment(broker.port)).transport()
    transport.connect()
    place = Place(
        directory,
        broker,
        proxy,
        mariadb,
        url,
        supervisor,
        transport,
        clock,
        random.Random(1),
        recipe_parameters,
        skips_worker,
    )
    place.start_services()
    try:
        starting = [logs / f"{name}.log" for name, _ in commands]
        try:
            wait_until(lambda: _are_ready(starting), _START, "the services to start")
        except AssertionError as error:
            said = {log.stem: log.read_text(errors="replace")[-100:] for log in place.logs}
            raise AssertionError(f"{error}; they said last: {said}") from None
        yield place
    finally:
        place.stop_services()
        transport.disconnect()
        proxy.close()


def announced(directory: Path) -> Path:
    """Make the services of this suite known as an installed package would; return what goes on the path."""
    place = directory / "announced"
    package = place / "fault_services-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: fault-services\nVersion: 1\n")
    names = ("FaultSource", "FaultWorker", "FaultSink")
    points = "".join(f"{name} = fault_services:{name}\n" for name in names)
    (package / "entry_points.txt").write_text(f"[parvis.services]\n{points}")
    return place


def let_pass(seconds: float) -> None:
    """Let a fault last."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, seconds + 5, "the time to pass")


def _are_ready(logs: Sequence[Path]) -> bool:
    return all(log.exists() and "ready:" in log.read_text() for log in logs)


def _commands(services: Mapping[str, int], clock: SteppedClock) -> list[tuple[str, list[str]]]:
    commands: list[tuple[str, list[str]]] = []
    other_clock = ["env", *(f"{name}={value}" for name, value in clock.environment.items())]
    for name, count in services.items():
        for number in range(count):
            prefix = other_clock if number == 1 else []
            commands.append((f"{name}-{number}", [*prefix, *service_command(name)]))
    return commands
