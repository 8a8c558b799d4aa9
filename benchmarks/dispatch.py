"""How many data collections a second the dispatcher starts, beside that of `zocalo`, on the embedded broker.

    python benchmarks/dispatch.py

Needs the public sample rows of ISPyB (PARVIS_TEST_DATA) for the rows with a database. The dispatcher of
`zocalo` has no ISPyB filter of its own, so the two are compared on a recipe without one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue

from parvis.recipe.envelope import dump_json
from parvis.transport.base import Message, Send
from parvis.transport.embedded import BrokerThread
from parvis.transport.stomp import StompTransport

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe_machine

DATA = Path(os.environ.get("PARVIS_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
NAMESPACE = "bench"
RECIPE = '{"1": {"queue": "started", "parameters": {"dcid": "{ispyb_dcid}"}}, "start": [[1, []]]}'
GRID, ROTATION = 6017405, 993677


def main() -> None:
    """Run all rows and print the table."""
    print(describe_machine())
    with tempfile.TemporaryDirectory() as name, BrokerThread(port=0) as broker:
        directory = Path(name)
        (directory / "recipes").mkdir()
        (directory / "recipes" / "bench.json").write_text(RECIPE)
        transport = StompTransport([("127.0.0.1", broker.port)], "", "", NAMESPACE)
        transport.connect()
        print(f"{'dispatcher':<44} {'recipes/s':>10} {'ms each':>9} {'CPU ms':>8}")
        for label, command, dcid, number, environment in rows(directory, broker.port):
            with dispatcher(command, environment) as process:
                rate, cpu = measure(transport, process, dcid, number)
            print(f"{label:<44} {rate:>10.1f} {1000 / rate:>9.2f} {cpu:>8.2f}")
        transport.disconnect()


Row = tuple[str, list[str], int, int, dict[str, str]]


def rows(directory: Path, port: int) -> Iterator[Row]:
    """What is measured: label, command, data collection, how many, environment."""
    ours = [sys.executable, "-m", "parvis", "service", "-s", "Dispatcher"]
    base = {
        "ZOCALO_CONFIG": "",
        "PARVIS_STOMP_HOST": "127.0.0.1",
        "PARVIS_STOMP_PORT": str(port),
        "PARVIS_STOMP_PREFIX": NAMESPACE,
        "PARVIS_RECIPE_DIRECTORY": str(directory / "recipes"),
    }
    theirs = shutil.which("zocalo.service", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if theirs is not None:
        environment = {"ZOCALO_CONFIG": str(zocalo_configuration(directory, port))}
        command = [theirs, "-s", "Dispatcher", "-t", "StompTransport"]
        yield f"zocalo {version('zocalo')}, no database", command, GRID, 300, environment
    yield f"parvis {version('parvis')}, no database", ours, GRID, 1000, base
    sample = DATA / "ispyb_sample.sqlite"
    if sample.exists():
        copy = directory / "ispyb.sqlite"
        shutil.copyfile(sample, copy)
        with_database = base | {"PARVIS_ISPYB_URL": f"sqlite:///{copy}"}
        yield "parvis, ISPyB on SQLite, grid scan", ours, GRID, 200, with_database
        yield "parvis, ISPyB on SQLite, rotation", ours, ROTATION, 200, with_database


def zocalo_configuration(directory: Path, port: int) -> Path:
    """Write a configuration file for zocalo."""
    file = directory / "zocalo.yml"
    file.write_text(
        f"""version: 1
environments: {{default: [broker, places]}}
broker: {{plugin: stomp, host: 127.0.0.1, port: {port}, username: a, password: b, prefix: {NAMESPACE}}}
places: {{plugin: storage, zocalo.recipe_directory: {directory / "recipes"}}}
"""
    )
    return file


@contextlib.contextmanager
def dispatcher(command: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A dispatcher in a process of its own."""
    process = subprocess.Popen(
        command, env=os.environ | dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=False)  # zocalo's has a child
        process.kill()
        process.wait()


def measure(
    transport: StompTransport, process: subprocess.Popen[bytes], dcid: int, number: int
) -> tuple[float, float]:
    """Return recipes a second, and milliseconds of CPU a recipe, after a warm-up."""
    started: SimpleQueue[Message] = SimpleQueue()
    subscription = transport.subscribe("started", started.put, prefetch=100_000)
    request = Send("processing_recipe", dump_json({"recipes": ["bench"], "parameters": {"ispyb_dcid": dcid}}))

    def run(count: int) -> None:
        transport.send(*[request] * count)
        transport.commit([started.get(timeout=120) for _ in range(count)], [])

    run(20)
    cpu, begin = cpu_seconds(process), time.perf_counter()
    run(number)
    elapsed, spent = time.perf_counter() - begin, cpu_seconds(process) - cpu
    transport.unsubscribe(subscription)
    return number / elapsed, 1000 * spent / number


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """CPU that a process and its children have used."""
    import psutil

    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


if __name__ == "__main__":
    main()
