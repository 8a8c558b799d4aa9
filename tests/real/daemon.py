"""What the servers that tests start have in common: ports, certificates, an end with the test run."""

from __future__ import annotations

import ctypes
import random
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from waiting import wait_until

_LIBC = ctypes.CDLL(None)
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST_PORT = 10_000
_FEWEST_PORTS = 2_000
_START_TIMEOUT = 180.0  # seconds
_kept: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free, and that stay so until somebody who is told of them listens there.

    They are none that the system gives to connections, or to who asks it for any: else a server that is away
    for a moment may find its port taken. And nobody else who asks here gets them while this process lives.
    """
    return [_free_port() for _ in range(count)]


def _free_port() -> int:
    first_ephemeral = int(_EPHEMERAL.read_text().split()[0])
    chance = random.SystemRandom()
    for _ in range(1000):
        port = chance.randrange(_LOWEST_PORT, max(first_ephemeral, _LOWEST_PORT + _FEWEST_PORTS))
        mark = socket.socket(socket.AF_UNIX)
        try:
            # A name without a file: it goes with this process, however that ends.
            mark.bind(f"\0parvis-tests-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
        else:
            _kept.append(mark)
            return port
    raise RuntimeError("no port is free")


class Starter:
    """Starts processes that die with this one."""

    def __init__(self) -> None:
        # Linux ties a process to the thread that starts it, and this thread lasts as long as we do.
        self._thread = ThreadPoolExecutor(max_workers=1)

    def start(
        self, command: Sequence[str], log_file: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process that writes to the end of `log_file`; `environment` as for `Popen`."""
        return self._thread.submit(_launch, command, log_file, environment).result()


def wait_for_start(
    name: str, process: subprocess.Popen[bytes], answers: Callable[[], bool], log_file: Path
) -> None:
    """Return when a server answers.

    Raises:
        RuntimeError: It has ended, or been killed for having said nothing for 180 s; with the end of its log.
    """
    try:
        wait_until(lambda: answers() or process.poll() is not None, _START_TIMEOUT, f"{name} to start")
    except AssertionError:
        end(process, signal.SIGKILL)
    if process.poll() is not None:
        raise RuntimeError(f"{name} did not start: {log_file.read_text()[-2000:]}")


def end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Send a signal, and return when the process has ended; it is killed after 30 s."""
    process.send_signal(how)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def make_certificates(directory: Path) -> None:
    """Write a certificate authority (`ca.pem`), and from it `server.pem` and `server.key`, for localhost."""
    (directory / "server.cnf").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nkeyUsage=digitalSignature,keyEncipherment\n"
        "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    openssl(
        directory,
        "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=parvis-test-ca -keyout ca.key -out ca.pem "
        "-addext keyUsage=critical,keyCertSign",
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.pem "
        "-extfile server.cnf",
    )


def openssl(directory: Path, *commands: str) -> None:
    """Run `openssl` in a directory."""
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)


def _launch(
    command: Sequence[str], log_file: Path, environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    with log_file.open("ab") as log:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us, who stop the server in good order
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - it only calls prctl
        )


def _die_with_parent() -> None:
    # So that a killed test run leaves no server behind: prctl(PR_SET_PDEATHSIG, SIGKILL).
    _LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)
