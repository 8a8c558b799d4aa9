"""Run a Python module that ends with whoever started it, even one that was killed.

``python -m parvis_services.demo.leash MODULE ARGUMENT...`` with a pipe as standard input: the pipe ends with
the process that holds its other end, however that ends, and then so does this one.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO


def start(
    module: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a module on a leash: its name and arguments, with environment variables beside ours."""
    # In a session of its own: a Ctrl-C is for who started it, which says so once.
    return subprocess.Popen(
        [sys.executable, "-m", "parvis_services.demo.leash", *module],
        env=os.environ | dict(environment or {}),
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
    )


def _end_with_standard_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
