"""The supervisor: what it starts stays running, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parvis.service.supervisor import SUPERVISOR, Supervisor
from parvis.transport.embedded.thread import BrokerThread
from running import broker_environment
from waiting import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@contextmanager
def running(supervisor: Supervisor) -> Iterator[Supervisor]:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join(timeout=60)
        assert not thread.is_alive()


def is_running(number: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_what_ends_is_started_again() -> None:
    with running(Supervisor([("one", SLEEP), ("two", SLEEP)])) as supervisor:
        wait_until(lambda: len(supervisor.process_ids) == 2, 10, "two processes")
        first = min(supervisor.process_ids)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(supervisor.process_ids.keys() - {first}) == 2, 10, "a new process")


def test_all_processes_are_stopped_at_the_end() -> None:
    with running(Supervisor([("one", SLEEP), ("two", SLEEP)])) as supervisor:
        wait_until(lambda: len(supervisor.process_ids) == 2, 10, "two processes")
        numbers = list(supervisor.process_ids)
    assert not any(map(is_running, numbers))


def test_what_they_print_goes_to_a_file_each(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print('hello', flush=True); time.sleep(600)"]
    with running(Supervisor([("one", command)], log_directory=tmp_path)):
        log = tmp_path / "one.log"
        wait_until(lambda: log.exists() and "hello" in log.read_text(), 10, "the log")


def test_services_end_when_their_supervisor_was_killed(tmp_path: Path) -> None:
    with BrokerThread(port=0) as broker:
        command = [sys.executable, "-m", "parvis", "service", "-s", "NotifyGDA", "--workers", "2"]
        log = tmp_path / "log"
        with log.open("wb") as file:
            supervisor = subprocess.Popen(
                command, env=os.environ | broker_environment(broker.port), stderr=file, stdout=file
            )
        wait_until(lambda: log.read_text().count("ready: NotifyGDA") == 2, 30, "two services")
        children = children_of(supervisor.pid)
        assert len(children) == 2
        supervisor.kill()
        supervisor.wait()
        wait_until(lambda: not any(map(is_running, children)), 20, "the end of the services")


def children_of(number: int) -> list[int]:
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == number:
            found.append(int(status.parent.name))
    return found


def test_a_process_that_nobody_supervises_is_no_orphan() -> None:
    command = [sys.executable, "-c", "from parvis.service.supervisor import is_orphan; print(is_orphan())"]
    environment = {name: value for name, value in os.environ.items() if name != SUPERVISOR}
    assert (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
    orphan = environment | {SUPERVISOR: "1"}
    assert subprocess.run(command, env=orphan, capture_output=True, text=True, check=True).stdout == "True\n"
