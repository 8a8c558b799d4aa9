"""How long `parvis go` takes, with brokers of every kind of health, beside `zocalo.go`.

    python benchmarks/go.py [--repeats N]

Wall time of whole processes: median and worst.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parvis.transport.embedded import BrokerThread

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe_machine

PROGRAMS = Path(sys.executable).parent
SITE = """version: 1
broker: {{plugin: stomp, host: 127.0.0.1, port: {port}, username: a, password: b, prefix: zocalo}}
transport: {{plugin: transport, default: StompTransport}}
drop: {{plugin: storage, zocalo.go.fallback_location: {drop}}}
environments: {{default: [broker, transport, drop]}}
"""


def main() -> None:
    """Run all rows and print the table."""
    parser = argparse.ArgumentParser(description="How long parvis go takes.")
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    print(describe_machine("click", "zocalo"))
    measure("python -c 'import parvis.cli'", [sys.executable, "-c", "import parvis.cli"], repeats)
    measure("parvis go --help", [PROGRAMS / "parvis", "go", "--help"], repeats)
    with tempfile.TemporaryDirectory() as name, BrokerThread(port=0) as broker:
        directory = Path(name)
        (directory / "drop").mkdir()
        compare("broker well", directory, broker.port, repeats)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        compare("broker away", directory, port, repeats)
        with socket.create_server(("127.0.0.1", 0)) as frozen:
            # The other one takes half a minute for this.
            measure_go("parvis", "broker frozen", directory, frozen.getsockname()[1], repeats)


def compare(state: str, directory: Path, port: int, repeats: int) -> None:
    """Measure both programs with the broker at `port`."""
    measure_go("parvis", state, directory, port, repeats)
    if (PROGRAMS / "zocalo.go").exists():
        measure_go("zocalo.go", state, directory, port, repeats)


def measure_go(program: str, state: str, directory: Path, port: int, repeats: int) -> None:
    """Measure one program with the broker at `port`."""
    site = directory / "site.yml"
    site.write_text(SITE.format(port=port, drop=directory / "drop"))
    command = [PROGRAMS / "parvis", "go"] if program == "parvis" else [PROGRAMS / program]
    measure(f"{program}, {state}", [*command, "-r", "mimas", "993677"], repeats, ZOCALO_CONFIG=str(site))


def measure(title: str, command: list[str | Path], repeats: int, **environment: str) -> None:
    """Run a command several times and print a row."""
    seconds: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    print(f"{title:<32} median {statistics.median(seconds):6.3f} s   worst {max(seconds):6.3f} s")


if __name__ == "__main__":
    main()
