"""A wall clock that only some processes see, and that can be stepped while they run."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from real.mariadb import unavailable

_SOURCE = Path(__file__).with_suffix(".c")


class SteppedClock:
    """A wall clock. The monotonic clock is left alone, as it is when somebody sets the time.

    Args:
        directory: For its files.

    Attributes:
        environment: Variables of a process that is to see it.
    """

    def __init__(self, directory: Path) -> None:
        library, self._file = directory / "stepped_clock.so", directory / "clock"
        self.step(0)
        _compile(library)
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._file)}

    def step(self, seconds: int) -> None:
        """Set it so many seconds before or after the true time, for all who see it, now."""
        mode = "r+b" if self._file.exists() else "wb"
        with self._file.open(mode) as file:
            file.write(struct.pack("q", seconds))


def _compile(library: Path) -> None:
    if shutil.which("cc") is None:
        _install_compiler()
    command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)


def _install_compiler() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        unavailable("there is no C compiler, and only root with apt-get could install one (gcc libc6-dev)")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    get = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    for command in ([*get, "update"], [*get, "install", "-y", "--no-install-recommends", "gcc", "libc6-dev"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            unavailable(f"no C compiler could be installed: {done.stderr[-500:]}")
