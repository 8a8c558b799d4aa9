"""A detector that writes files, and what any detector of the demonstration can do."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from parvis_services.demo.plan import Plan
    from parvis_services.demo.stage import Stage


class Detector(Protocol):
    """Collects the images of a plan once."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be started."""
        ...

    def start(self, ready: Stage) -> None:
        """Let it begin."""
        ...

    @property
    def is_collecting(self) -> bool:
        """Whether images are still to come."""
        ...

    @property
    def failure(self) -> str | None:
        """Why it failed, if it did."""
        ...

    @property
    def sent(self) -> int:
        """How many images it has sent, if it streams."""
        ...

    def stop(self) -> None:
        """Stop it, and return when it has stopped."""
        ...


class FileDetector:
    """Writes the images of a plan into files, in a process of its own."""

    is_ready = True
    sent = 0

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._log = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Stage) -> None:
        """As of `Detector`."""
        self._log = str(ready.directory / "logs" / "detector.log")
        self._process = ready.collect(self._plan)

    @property
    def is_collecting(self) -> bool:
        """As of `Detector`."""
        return self._process is not None and self._process.poll() is None

    @property
    def failure(self) -> str | None:
        """As of `Detector`."""
        failed = self._process is not None and self._process.poll()
        return f"see {self._log}" if failed else None

    def stop(self) -> None:
        """As of `Detector`."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
