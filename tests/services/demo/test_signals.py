"""A demonstration that is ended leaves nothing running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import wait_until


def processes_of(place: Path) -> list[str]:
    """Command lines of the processes that have to do with a directory, by arguments or environment."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if os.fsencode(place) in command + (process / "environ").read_bytes():
                found.append(command.replace(b"\0", b" ").decode())
    return found


@pytest.mark.parametrize(
    ("number", "code", "options", "image"),
    [
        (signal.SIGTERM, 143, ("--stream",), "store/parvis-demo/*/1/1/000001"),
        (signal.SIGHUP, 129, (), "data/**/*.cbf"),
        (signal.SIGINT, 130, (), "data/**/*.cbf"),
        (signal.SIGKILL, -9, (), "data/**/*.cbf"),
    ],
)
def test_nothing_is_left_behind(
    tmp_path: Path, number: signal.Signals, code: int, options: tuple[str, ...], image: str
) -> None:
    place = tmp_path / "demo"
    demo = [sys.executable, "-m", "parvis", "demo", "--seed", "3", "--directory", str(place)]
    command = [*demo, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: any(place.glob(image)), 60, "the detector to begin")
            assert any("parvis go" in line for line in processes_of(place))
            process.send_signal(number)
            assert process.wait(60) == code
        finally:
            process.kill()
    wait_until(lambda: not processes_of(place), 60, "all processes to end")
