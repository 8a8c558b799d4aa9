"""A small facility for tests: database, broker, services in processes of their own, and a listener at GDA."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from parvis.cli.up import service_command
from parvis.service.supervisor import Supervisor
from parvis_services.demo.stage import SERVICES, Listener
from parvis_services.ispyb import collections
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.schema import create_schema
from waiting import wait_until


@dataclass(frozen=True)
class Scan:
    """A data collection in the database.

    Attributes:
        dcid: Its number.
        directory: Where its images go.
        results_directory: Where its results are, each job in a directory of its own.
        database: The metadata database.
    """

    dcid: int
    directory: Path
    results_directory: Path
    database: Database

    def rows(self) -> list[tuple[int, int]]:
        """Image number and number of spots of each row of per-image results."""
        table = self.database.table("ImageQualityIndicators")
        wanted = (
            sa.select(table.c.imageNumber, table.c.spotTotal)
            .where(table.c.dataCollectionId == self.dcid)
            .order_by(table.c.imageNumber)
        )
        with self.database.reading() as connection:
            return [(image, spots) for image, spots in connection.execute(wanted)]

    def results(self, name: str) -> list[Path]:
        """Files of that name among the results."""
        return sorted(self.results_directory.rglob(name))

    def wait_for_result(self, name: str, timeout: float = 60) -> Path:
        """Return the one results file of that name, once it is there."""
        wait_until(lambda: self.results(name), timeout, name)
        (path,) = self.results(name)
        return path


@dataclass
class Facility:
    """Everything that a data collection needs.

    Attributes:
        directory: Of this test.
        environment: Variables that lead processes to the broker and the database.
        database: The metadata database.
        supervisor: What keeps the services running.
        gda: What GDA hears.
    """

    directory: Path
    environment: Mapping[str, str]
    database: Database
    supervisor: Supervisor
    gda: Listener
    _group: int = field(default=0, repr=False)
    _scans: int = field(default=0, repr=False)

    @property
    def visit(self) -> Path:
        return self.directory / "data" / "2026" / "cm99999-1"

    def parvis(self, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a parvis command."""
        return subprocess.run(
            [sys.executable, "-m", "parvis", *map(str, arguments)],
            env=os.environ | dict(self.environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def go(self, recipe: str, dcid: int, *more: str) -> str:
        """Start a recipe for a data collection; return what was printed."""
        gda = ("-s", "gda_host=127.0.0.1", "-s", f"gda_port={self.gda.port}")
        done = self.parvis("go", "-r", recipe, *gda, *more, dcid)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def new_grid(self, template: str, columns: int, rows: int = 1, *, snaked: bool = False) -> Scan:
        """Make a grid scan in the database, and the directory for its images."""
        scan = self.new_collection("Mesh", template, columns * rows)
        collections.create_grid(
            self.database,
            scan.dcid,
            steps=(columns, rows),
            step_size=(0.02, 0.02),
            snaked=snaked,
            offset=(100.0, 50.0),
            microns_per_pixel=(0.83, 0.83),
        )
        return scan

    def new_collection(self, experiment: str, template: str, images: int, axis_range: float = 0.0) -> Scan:
        """Make a data collection in the database, and the directory for its images."""
        self._scans += 1
        below = Path("data") / f"scan{self._scans}"
        directory = self.visit / below
        directory.mkdir(parents=True)
        dcid = collections.create_collection(
            self.database,
            self._new_group(experiment),
            directory=str(directory),
            template=template,
            images=images,
            number=2,
            axis_range=axis_range,
        )
        return Scan(dcid, directory, self.visit / "processed" / below, self.database)

    def _new_group(self, experiment: str) -> int:
        if not self._group:
            proposal = collections.create_proposal(self.database, "cm", 99999)
            session = collections.create_session(self.database, proposal, visit=1, beamline="i03")
            self._group = collections.create_group(self.database, session, experiment=experiment)
        return collections.create_group(self.database, self._session(), experiment=experiment)

    def _session(self) -> int:
        table = self.database.table("DataCollectionGroup")
        wanted = sa.select(table.c.sessionId).where(table.c.dataCollectionGroupId == self._group)
        with self.database.reading() as connection:
            return connection.execute(wanted).scalar_one()


def sqlite_database(directory: Path) -> str:
    """Make an empty ISPyB database in a file; return its URL."""
    url = f"sqlite:///{directory / 'ispyb.sqlite'}"
    create_schema(Database(url))
    return url


@contextlib.contextmanager
def facility(
    directory: Path,
    stomp: Mapping[str, str],
    ispyb_url: str,
    services: Mapping[str, int] = SERVICES,
) -> Generator[Facility]:
    """A facility with running services.

    Args:
        directory: For its files.
        stomp: `PARVIS_STOMP_*` variables of the broker.
        ispyb_url: Of the metadata database, with tables.
        services: How many of which.
    """
    logs = directory / "logs"
    logs.mkdir()
    environment = {
        **stomp,
        "PARVIS_ISPYB_URL": ispyb_url,
        "PARVIS_LOGBOOK_LOCATION": str(directory / "logbook"),
        "PARVIS_FALLBACK_LOCATION": str(directory / "dropfiles"),
    }
    commands = [(name, service_command(name)) for name, count in services.items() for _ in range(count)]
    supervisor = Supervisor(commands, environment, logs)
    thread = threading.Thread(target=supervisor.run, daemon=True)
    thread.start()
    gda = Listener()
    database = Database(ispyb_url)
    try:
        yield Facility(directory, environment, database, supervisor, gda)
    finally:
        supervisor.stop()
        thread.join(timeout=60)
        gda.close()
        database.close()
        assert not thread.is_alive(), "the services did not stop"
