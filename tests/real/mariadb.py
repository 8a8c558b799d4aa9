"""A MariaDB server for tests: installed where that is possible, started in a directory of its own."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from real import packages
from real.daemon import Starter, end, free_ports
from real.packages import skipping_if_unavailable, unavailable
from waiting import wait_until

PROGRAMS = ("mariadbd", "mariadb-install-db", "my_print_defaults")
# The programs alone: no service that starts by itself. What writes the system tables is in the second.
PACKAGES = ("mariadb-server-core", "mariadb-client-core")


def install() -> None:
    """Install MariaDB if it is not there.

    Raises:
        Unavailable: It cannot be installed.
    """
    packages.install(lambda: all(map(_program, PROGRAMS)), *PACKAGES)


@dataclass
class MariaDb:
    """A running server on a loopback port, and the one user it has."""

    directory: Path
    port: int
    user: str = "parvis"
    password: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    _process: subprocess.Popen[bytes] | None = None
    _starter: Starter = field(default_factory=Starter, repr=False)

    def url(self, name: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"mysql+pymysql://{self.user}:{self.password}@127.0.0.1:{self.port}/{name}"

    def create_database(self, name: str) -> str:
        """Make an empty database, in place of one that has the name, and give its URL."""
        import pymysql

        with closing(
            pymysql.connect(host="127.0.0.1", port=self.port, user=self.user, password=self.password)
        ) as connection:
            connection.cursor().execute(f"DROP DATABASE IF EXISTS `{name}`")
            connection.cursor().execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return self.url(name)

    def prepare(self) -> None:
        """Write the system tables and the statements that make the user."""
        self._temporary.mkdir()
        account = f"'{self.user}'@'127.0.0.1'"
        (self.directory / "user.sql").write_text(
            f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {account};\n"
        )
        command = [
            *(
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={self.directory / 'data'}",
                f"--tmpdir={self._temporary}",
                "--skip-test-db",
            ),
            *(f"--user={getpass.getuser()}", "--auth-root-authentication-method=normal"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            unavailable(f"mariadb-install-db failed: {done.stderr[-500:] or done.stdout[-500:]}")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [
            *("--no-defaults", f"--user={getpass.getuser()}", f"--datadir={self.directory / 'data'}"),
            *(f"--socket={self.directory / 's.sock'}", f"--pid-file={self.directory / 'pid'}"),
            f"--tmpdir={self._temporary}",
            *("--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve", "--skip-log-bin"),
            *(f"--init-file={self.directory / 'user.sql'}", f"--log-error={self._log}"),
            # A test needs no data after a power cut, but it does need the time.
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--innodb-log-file-size=16M"),
            *("--innodb-buffer-pool-size=64M", "--performance-schema=OFF", "--max-connections=50"),
        ]
        command = [_program("mariadbd") or "mariadbd", *options]
        self._process = self._starter.start(command, self._log)
        wait_until(self._answers, 180, "MariaDB to answer")

    def stop(self) -> None:
        """Stop the server and wait until it has ended."""
        process, self._process = self._process, None
        if process is not None:
            end(process, signal.SIGTERM)

    @property
    def _temporary(self) -> Path:
        # Whoever starts a server removes the temporary tables that lie there, also those of others.
        return self.directory / "tmp"

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _answers(self) -> bool:
        import pymysql

        if self._process is not None and self._process.poll() is not None:
            log = self._log.read_text(errors="replace")[-1000:]
            unavailable(f"mariadbd ended with code {self._process.returncode}: {log}")
        try:
            pymysql.connect(host="127.0.0.1", port=self.port, user=self.user, password=self.password).close()
        except pymysql.err.OperationalError:
            return False
        return True


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    """A MariaDB server of this test session's own."""
    with skipping_if_unavailable():
        install()
    (port,) = free_ports(1)
    server = MariaDb(tmp_path_factory.mktemp("mariadb"), port)
    try:
        server.prepare()
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mariadb_url(mariadb: MariaDb) -> str:
    """The URL of an empty database on that server."""
    return mariadb.create_database("parvis")


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
