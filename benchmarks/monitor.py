"""What watching costs: CPU and output of `parvis monitor` with 300 simulated services.

    python benchmarks/monitor.py [--services N] [--seconds S]

Each service sends a card every six seconds and at each change of state, of which it has one every three
seconds; five log records a second come with them. The monitor runs in a terminal of its own, 200x60 and
80x24. The status monitor that comes with `workflows` joins in with as many services as it can show, as it
fails with more; ours is measured with as many, too.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import psutil

from parvis.transport.embedded import BrokerThread

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe_machine
from simulated_services import simulated

SETTLE = 8.0
CARD_WIDTH, CARD_HEIGHT, HEAD = 35, 6, 7  # of the monitor of workflows
PEER = """
import sys
from workflows.contrib.status_monitor import Monitor
from workflows.transport.stomp_transport import StompTransport
StompTransport.defaults["--stomp-host"] = "127.0.0.1"
StompTransport.defaults["--stomp-port"] = int(sys.argv[1])
StompTransport.defaults["--stomp-prfx"] = "bench"
Monitor(transport="StompTransport").run()
"""


def main() -> None:
    """Measure both at both sizes and print the table."""
    parser = argparse.ArgumentParser(description="What watching costs.")
    parser.add_argument("--services", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    print(describe_machine("textual", "workflows"))
    print("monitor     terminal  services  cards/s     CPU   memory      output")
    ours = [sys.executable, "-m", "parvis", "monitor"]
    for width, height in ((200, 60), (80, 24)):
        measure("parvis", ours, width, height, given.services, given.seconds)
        room = (width // CARD_WIDTH) * ((height - HEAD) // CARD_HEIGHT)
        measure("parvis", ours, width, height, room, given.seconds)
        measure("workflows", [sys.executable, "-c", PEER], width, height, room, given.seconds)


def measure(
    name: str, command: Sequence[str], width: int, height: int, services: int, seconds: float
) -> None:
    """Run a monitor while services tell what they do, and print what it took."""
    with BrokerThread() as broker, simulated(broker.port, services) as sent:
        if name == "workflows":
            command = [*command, str(broker.port)]
        with in_terminal(command, broker.port, width, height) as (process, written):
            time.sleep(SETTLE)
            begun, cards, size, watched = time.monotonic(), sent[0], written[0], psutil.Process(process.pid)
            before = sum(watched.cpu_times()[:2])
            time.sleep(seconds)
            if process.poll() is not None:
                print(f"{name:<10} {f'{width}x{height}':>9} {services:9d}  ended by itself")
                return
            took = time.monotonic() - begun
            share = (sum(watched.cpu_times()[:2]) - before) / took
            memory = watched.memory_full_info().uss / 1e6
            rate, output = (sent[0] - cards) / took, (written[0] - size) / took / 1000
            what = f"{name:<10} {f'{width}x{height}':>9} {services:9d} {rate:8.0f}"
            print(f"{what} {share:7.1%} {memory:5.0f} MB {output:6.1f} kB/s", flush=True)


@contextlib.contextmanager
def in_terminal(
    command: Sequence[str], port: int, width: int, height: int
) -> Generator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Run a command in a terminal of its own; yields it, and in a list how many bytes it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    environment = {
        key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    environment |= {
        "TERM": "xterm-256color",
        "PARVIS_STOMP_HOST": "127.0.0.1",
        "PARVIS_STOMP_PORT": str(port),
        "PARVIS_STOMP_PREFIX": "bench",
    }
    process = subprocess.Popen(
        command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    written = [0]

    def drain() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(ours, 65_536):
                written[0] += len(data)

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        yield process, written
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        os.close(ours)


if __name__ == "__main__":
    main()
