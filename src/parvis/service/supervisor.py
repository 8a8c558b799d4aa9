"""Keep processes running: start them, start them again when they end, stop them all in good order."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_log = logging.getLogger("parvis.supervisor")

#: Environment variable that tells a process the number of the process that supervises it.
SUPERVISOR = "PARVIS_SUPERVISOR"

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_PROVEN_AFTER = 10.0  # seconds alive after which a process counts as having started well
_GRACE = 30.0  # seconds that a process has to end after SIGTERM
_TICK = 0.1


class _Supervised:
    """One process that should run."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.start_at = 0.0
        self.pause = _FIRST_PAUSE
        self.is_over = False

    def start(self, environment: Mapping[str, str], log_directory: Path | None) -> None:
        self.started = time.monotonic()
        if log_directory is None:
            self._spawn(environment, None)
        else:
            with (log_directory / f"{self.name}.log").open("ab") as log:
                self._spawn(environment, log)

    def _spawn(self, environment: Mapping[str, str], log: IO[bytes] | None) -> None:
        # In a session of its own: a Ctrl-C is for the supervisor, which stops the rest in order.
        self.process = subprocess.Popen(
            self.command, env=environment, start_new_session=True, stdout=log, stderr=log
        )

    def note_end(self) -> int | None:
        """Return the exit code if the process has ended since the last look, and plan the next start."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.process = None
        if time.monotonic() - self.started > _PROVEN_AFTER:
            self.pause = _FIRST_PAUSE
        self.start_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, _LONGEST_PAUSE)
        return code


class Supervisor:
    """Keeps processes running until told to stop; one that ends with exit code 0 was told to itself.

    Args:
        commands: Pairs of a name for people and the command, as a list of arguments; one process each.
        environment: Environment variables that the processes get beside ours.
        log_directory: Where what they print goes, a file for each name; by default where ours goes.
    """

    def __init__(
        self,
        commands: Sequence[tuple[str, Sequence[str]]],
        environment: Mapping[str, str] | None = None,
        log_directory: Path | None = None,
    ) -> None:
        self._log_directory = log_directory
        self._supervised = [_Supervised(name, command) for name, command in commands]
        self._environment = os.environ | {SUPERVISOR: str(os.getpid())} | dict(environment or {})
        self._stopping = False

    def stop(self) -> None:
        """Ask for the end. May be called from a signal handler, so it takes no lock."""
        self._stopping = True

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    def kill(self) -> None:
        """End all processes at once."""
        for supervised in self._supervised:
            if supervised.process is not None:
                supervised.process.kill()

    def run(self) -> None:
        """Run until `stop` is called or all processes have ended well, then stop those that are left."""
        try:
            while not self._stopping and not all(one.is_over for one in self._supervised):
                for supervised in self._supervised:
                    self._look_after(supervised)
                time.sleep(_TICK)
        finally:
            self._stop_all()

    @property
    def process_ids(self) -> dict[int, str]:
        """The running processes: number and name."""
        running = [(supervised.process, supervised.name) for supervised in self._supervised]
        return {process.pid: name for process, name in running if process is not None}

    def _look_after(self, supervised: _Supervised) -> None:
        code = supervised.note_end()
        if code == 0:
            _log.info("%s has ended", supervised.name)
            supervised.is_over = True
        elif code is not None:
            what = f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"
            _log.warning("%s %s; starting it again", supervised.name, what)
        if supervised.process is None and not supervised.is_over and time.monotonic() >= supervised.start_at:
            supervised.start(self._environment, self._log_directory)

    def _stop_all(self) -> None:
        processes = [(one.name, one.process) for one in self._supervised if one.process is not None]
        for _, process in processes:
            process.terminate()
        deadline = time.monotonic() + _GRACE
        for name, process in processes:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.warning("%s did not end within %g s of being asked to; killing it", name, _GRACE)
                process.kill()
                process.wait()


def stop_supervisor_on_signals(supervisor: Supervisor) -> None:
    """Have SIGTERM and SIGINT end the supervisor and all its processes, and the second of them at once."""

    def stop(number: int, _frame: object) -> None:
        if supervisor.is_stopping:
            supervisor.kill()
            end_by_signal(number)
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def end_by_signal(number: int) -> None:
    """End this process by a signal, as one that does not know it would."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def is_orphan() -> bool:
    """Whether this process was started by a supervisor that is no longer there."""
    supervisor = os.environ.get(SUPERVISOR)
    return supervisor is not None and os.getppid() != int(supervisor)
