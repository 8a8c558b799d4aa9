"""Everything the demonstration needs on one machine: database, broker, services, a detector, a listener."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from parvis.cli.own_collector import own_collector
from parvis.cli.up import service_command
from parvis.config import Config, ConfigError, StompSettings
from parvis.observe.records_place import mark_as_demonstration
from parvis.service.figures import FIGURES
from parvis.service.supervisor import Supervisor
from parvis.transport.base import Message, Transport
from parvis.transport.embedded import BrokerThread
from parvis_services.demo import leash
from parvis_services.demo.plan import BOX_UM, Plan
from parvis_services.ispyb import collections
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.schema import CORE_TABLES, create_schema

NAMESPACE = "demo"
RECORDS = "records"
CONFIGURATION = "configuration.yml"
RECIPE = "per-image-analysis-gridscan"
STORE = "store"
STREAM_RECIPE = "per-image-analysis-stream"
SERVICES = {
    "Dispatcher": 1,
    "FileWatcher": 1,
    "PerImageAnalysis": 2,
    "XRayCentring": 1,
    "ISPyBPIA": 1,
    "NotifyGDA": 1,
    "JSONLines": 1,
}


@dataclass(frozen=True)
class Cast:
    """Who takes part.

    Attributes:
        recipe: Name of the recipe that is run.
        services: How many instances of each service.
        environment: Variables for them, beside those that lead to broker and database.
    """

    recipe: str = RECIPE
    services: Mapping[str, int] = field(default_factory=lambda: SERVICES)
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


def streaming_cast(environment: Mapping[str, str]) -> Cast:
    """Who takes part where the detector streams; `environment` leads to its stream and to the store."""
    return Cast("per-image-analysis-stream", {**SERVICES, "CephWriter": 1, "ObjectWatcher": 1}, environment)


class Listener:
    """Stands for GDA: hears the datagrams that tell of images."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.datagrams: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1]

    def images(self, dcid: int) -> list[int]:
        """Numbers of the images of a data collection that were told of, in order of arrival."""
        fields = [datagram.split(":") for datagram in self.datagrams]
        return [int(image) for _, collection, image, *_ in fields if collection == str(dcid)]

    def close(self) -> None:
        self._socket.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(4096):
                self.datagrams.append(data.decode("latin-1"))


@dataclass
class Stage:
    """What is there while the demonstration runs.

    Attributes:
        directory: Where everything is.
        dcid: Number of the data collection.
        images: Where its images go.
        environment: Variables that lead programs to broker and database.
        transport: A connection to the broker.
        listener: What hears the datagrams.
        states: What each instance of a service says that it does.
    """

    directory: Path
    dcid: int
    images: Path
    environment: Mapping[str, str]
    transport: Transport
    listener: Listener
    cast: Cast = field(default_factory=Cast)
    states: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    figures: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])

    @property
    def are_ready(self) -> bool:
        """Whether as many instances as were started have said that they are idle."""
        ready = [name for name, state in self.states.values() if state in {"idle", "processing"}]
        return len(ready) >= sum(self.cast.services.values())

    def total(self, figure: str) -> int:
        """The sum of a figure that services give of themselves."""
        values = [told.get(figure) for told in list(self.figures.values())]
        return int(sum(value for value in values if isinstance(value, int | float)))

    def start_job(self, limit: float) -> subprocess.Popen[bytes]:
        """Call `parvis go --wait --json` for the data collection."""
        settings = ("gda_host=127.0.0.1", f"gda_port={self.listener.port}")
        variables = [word for setting in settings for word in ("-s", setting)]
        command = [
            "parvis",
            "go",
            "-r",
            self.cast.recipe,
            *variables,
            f"--wait={limit:g}",
            "--json",
            str(self.dcid),
        ]
        return leash.start(command, self.environment, stdout=subprocess.PIPE)

    def collect(self, plan: Plan) -> subprocess.Popen[bytes]:
        """Have the detector collect the images."""
        with (self.directory / "logs" / "detector.log").open("ab") as log:
            return leash.start(plan.detector_command(self.images), stdout=log, stderr=log)

    def stored_images(self) -> int:
        """How many per-image results are in the database."""
        import sqlalchemy as sa

        database = Database(self.environment["PARVIS_ISPYB_URL"])
        table = database.table("ImageQualityIndicators")
        with database.reading() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        database.close()
        return count

    def hear_status(self, message: Message) -> None:
        """Take in a status broadcast."""
        with contextlib.suppress(orjson.JSONDecodeError):
            card: dict[str, Any] = orjson.loads(message.body)
            host, figures = str(card.get("host")), card.get(FIGURES)
            self.states[host] = (str(card.get("service")), str(card.get("statustext")))
            if isinstance(figures, dict):
                self.figures[host] = figures


@contextlib.contextmanager
def stage(directory: Path, plan: Plan, cast: Cast | None = None) -> Generator[Stage]:
    """Set the stage for a plan, in a directory; clear it at the end, all but the files."""
    cast = cast or Cast()
    visit = directory / "data" / "cm99999-1"
    images = visit / "xraycentring"
    (directory / "logs").mkdir(parents=True)
    images.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(BrokerThread(port=0))
        url = f"sqlite:///{directory / 'ispyb.sqlite'}"
        dcid = _fill_database(url, plan, images)
        environment = _environment(directory, broker.port, url) | dict(cast.environment)
        environment |= stack.enter_context(_records(broker.port, directory / RECORDS))
        stack.enter_context(_running_services(cast.services, environment, directory / "logs"))
        transport = _transport(broker.port)
        transport.connect()
        stack.callback(transport.disconnect)
        listener = Listener()
        stack.callback(listener.close)
        ready = Stage(directory, dcid, images, environment, transport, listener, cast)
        transport.subscribe_broadcast("transient.status", ready.hear_status)
        yield ready


def _transport(port: int) -> Transport:
    from parvis.transport.stomp import StompTransport

    return StompTransport([("127.0.0.1", port)], "", "", NAMESPACE)


def _environment(directory: Path, port: int, url: str) -> dict[str, str]:
    return {
        "PARVIS_STOMP_HOST": "127.0.0.1",
        "PARVIS_STOMP_PORT": str(port),
        "PARVIS_STOMP_PREFIX": NAMESPACE,
        "PARVIS_ISPYB_URL": url,
        "PARVIS_LOGBOOK_LOCATION": str(directory / "logbook"),
        "PARVIS_FALLBACK_LOCATION": str(directory / "dropfiles"),
        "ZOCALO_CONFIG": "",
    }


@contextlib.contextmanager
def _records(port: int, directory: Path) -> Generator[Mapping[str, str]]:
    """Keep what the services log and report; give the variables that have them do so."""
    broker = StompSettings("127.0.0.1", port, username="", password="", prefix=NAMESPACE)
    with own_collector(Config(stomp=broker), directory) as variables:
        # Whoever has no configuration finds them without being told where.
        with contextlib.suppress(OSError, ConfigError):
            mark_as_demonstration(Config.load(), directory)
        yield variables


def _fill_database(url: str, plan: Plan, images: Path) -> int:
    """Make the database with a proposal, a visit and a grid scan that has just begun; return its number."""
    database = Database(url)
    create_schema(database, tables=CORE_TABLES)
    proposal = collections.create_proposal(database, "cm", 99999, title="Demonstration")
    session = collections.create_session(database, proposal, visit=1, beamline="i03")
    group = collections.create_group(database, session, experiment="Mesh")
    dcid = collections.create_collection(
        database,
        group,
        directory=str(images),
        template=plan.template,
        images=plan.grid.size,
        first=plan.first,
        number=plan.number,
        more={"imagePrefix": plan.prefix},
    )
    collections.create_grid(
        database,
        dcid,
        steps=(plan.grid.steps_x, plan.grid.steps_y),
        step_size=(BOX_UM / 1000, BOX_UM / 1000),
        orientation=plan.grid.orientation,
        snaked=plan.grid.snaked,
        offset=(100.0, 100.0),
        microns_per_pixel=(1.0, 1.0),
    )
    database.close()
    return dcid


@contextlib.contextmanager
def _running_services(
    services: Mapping[str, int], environment: Mapping[str, str], logs: Path
) -> Iterator[None]:
    commands = [(name, service_command(name)) for name, count in services.items() for _ in range(count)]
    supervisor = Supervisor(commands, environment, logs)
    thread = threading.Thread(target=supervisor.run, name="supervisor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        supervisor.stop()
        thread.join()
