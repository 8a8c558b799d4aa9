"""A wall clock that only some processes see, and that can be stepped while they run."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from real import packages
from real.packages import Unavailable, unavailable

_SOURCE = Path(__file__).with_suffix(".c")


def install() -> None:
    """Install a C compiler if there is none.

    Raises:
        Unavailable: It cannot be installed.
    """
    packages.install(lambda: shutil.which("cc") is not None, "gcc", "libc6-dev")


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
    try:
        install()
    except Unavailable as error:
        unavailable(f"there is no C compiler: {error}")
    command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
