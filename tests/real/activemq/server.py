"""A real ActiveMQ for tests and benchmarks: loopback only, its own directory and ports.

`python tests/real/activemq/server.py` starts one, prints its ports and stops it on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from real import packages
from real.daemon import Starter, end, free_ports, make_certificates, openssl, wait_for_start

HERE = Path(__file__).parent
LIBRARIES = Path("/usr/share/activemq/lib")
MAP_LIBRARIES = (Path("/usr/share/java/jettison.jar"), Path("/usr/share/java/xstream.jar"))
USERNAME = "parvis"
PASSWORD = "parvis-test"
_STORE_PASSWORD = "changeit"


def install() -> None:
    """Install ActiveMQ if it is not there.

    Raises:
        Unavailable: It cannot be installed.
    """
    # The last two make answers of the statistics plug-in readable over STOMP.
    packages.install(_is_there, "activemq", "openssl", "procps", "libjettison-java", "libxstream-java")


def _is_there() -> bool:
    programs = shutil.which("java") and shutil.which("openssl")
    return bool(programs) and LIBRARIES.is_dir() and all(library.exists() for library in MAP_LIBRARIES)


class ActiveMQ:
    """One broker. `start` after `stop` or `kill` finds the messages of before.

    Args:
        directory: Where everything of it is.
        disk_syncs: Whether what it confirms is on the disk.
        scheduler: Whether it can hold messages back.

    Attributes:
        port: of STOMP.
        tls_port: of STOMP over TLS.
        ca_file: certificate that signed the broker's own, which is for `localhost` and 127.0.0.1.
    """

    host = "127.0.0.1"
    username = USERNAME
    password = PASSWORD

    def __init__(self, directory: Path, disk_syncs: bool = True, scheduler: bool = True) -> None:
        self.directory = directory
        self.port, self.tls_port = free_ports(2)
        self.ca_file = directory / "conf" / "ca.pem"
        self.log_file = directory / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._starter = Starter()
        self._configure(disk_syncs, scheduler)

    def start(self) -> None:
        """Start, and return when somebody can log in.

        Raises:
            RuntimeError: It does not come up.
        """
        conf = self.directory / "conf"
        libraries = (conf, LIBRARIES / "*", LIBRARIES / "optional" / "*", *MAP_LIBRARIES)
        command = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC"]
        # -UsePerfData: else there is a file of it in /tmp, whose name may be that of another container's
        command += [
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.directory / 'tmp'}",
        ]
        command += [f"-Dactivemq.{name}={self.directory}" for name in ("base", "home")]
        command += [f"-Dactivemq.conf={conf}", f"-Dlog4j.configuration=file:{conf / 'log4j.properties'}"]
        command += ["-cp", ":".join(map(str, libraries)), "org.apache.activemq.console.Main"]
        command += ["start", f"xbean:file:{conf / 'activemq.xml'}"]
        process = self._process = self._starter.start(command, self.log_file)
        wait_for_start("ActiveMQ", process, self._answers, self.log_file)

    def stop(self) -> None:
        """Stop in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process, how)

    def _answers(self) -> bool:
        login = f"CONNECT\naccept-version:1.2\nhost:localhost\nlogin:{USERNAME}\npasscode:{PASSWORD}\n\n\0"
        try:
            with socket.create_connection((self.host, self.port), 5) as connection:
                connection.sendall(login.encode())
                return connection.recv(4096).startswith(b"CONNECTED")
        except OSError:
            return False

    def _configure(self, disk_syncs: bool, scheduler: bool) -> None:
        conf = self.directory / "conf"
        for part in (conf, self.directory / "data", self.directory / "tmp"):
            part.mkdir(parents=True, exist_ok=True)
        make_certificates(conf)
        openssl(
            conf,
            "pkcs12 -export -in server.pem -inkey server.key -name broker -out server.p12 "
            f"-passout pass:{_STORE_PASSWORD}",
        )
        template = string.Template((HERE / "activemq.xml").read_text())
        (conf / "activemq.xml").write_text(
            template.substitute(
                directory=self.directory,
                port=self.port,
                tls_port=self.tls_port,
                username=USERNAME,
                password=PASSWORD,
                store_password=_STORE_PASSWORD,
                disk_syncs=str(disk_syncs).lower(),
                scheduler=str(scheduler).lower(),
            )
        )
        (conf / "log4j.properties").write_text(
            "log4j.rootLogger=INFO,C\n"
            "log4j.appender.C=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.C.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.C.layout.ConversionPattern=%d %-5p %c{1} %m%n\n"
        )


@contextlib.contextmanager
def running(disk_syncs: bool = True, scheduler: bool = True) -> Iterator[ActiveMQ]:
    """An ActiveMQ in a temporary directory, for as long as the context lasts. Arguments as `ActiveMQ`.

    Raises:
        Unavailable: It cannot be installed.
    """
    install()
    with tempfile.TemporaryDirectory(prefix="parvis-activemq-") as directory:
        broker = ActiveMQ(Path(directory), disk_syncs, scheduler)
        try:
            broker.start()
            yield broker
        finally:
            broker.kill()


def main() -> None:
    with running() as broker:
        print(f"STOMP {broker.port}, TLS {broker.tls_port}, {USERNAME}/{PASSWORD}; log {broker.log_file}")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
