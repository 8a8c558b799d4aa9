"""A real terminal for tests: tmux, at a fixed size, with somebody at the keys."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from real.packages import Unavailable, install, unavailable


class Terminal:
    """A shell in a terminal.

    Args:
        socket: Of the tmux server that holds it.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def type(self, text: str) -> None:
        """Press the keys of a text, which may hold control characters."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by the names that tmux has for them."""
        self._tmux("send-keys", *keys)

    def click(self, column: int, line: int) -> None:
        """Click with the left button; columns and lines count from 0."""
        for ends in "Mm":
            self.type(f"\x1b[<0;{column + 1};{line + 1}{ends}")

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Have the shell run a command, then say the settings of the terminal and its exit code."""
        words = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
        line = " ".join([*words, shlex.join(command)])
        self.type(f"clear; {line}; code=$?; stty -g | cksum; echo code=$code\n")

    def resize(self, columns: int, lines: int) -> None:
        """Give it another size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def text(self, *, styles: bool = False) -> str:
        """Return what it shows; with `styles`, with the escape sequences for colours and weights."""
        return self._tmux("capture-pane", "-p", *(["-e"] if styles else []))

    def state(self, name: str) -> str:
        """Return what tmux says of it, such as `alternate_on`."""
        return self._tmux("display-message", "-p", f"#{{{name}}}").strip()

    def signal(self, number: int) -> None:
        """Send a signal to what the shell runs."""
        (child,) = psutil.Process(int(self.state("pane_pid"))).children()
        child.send_signal(number)

    def wait_for(self, *texts: str, timeout: float = 20) -> str:
        """Return what it shows as soon as that holds all of these."""
        end = time.monotonic() + timeout
        while not all(text in (shown := self.text()) for text in texts):
            assert time.monotonic() < end, f"waited {timeout:g} s for {', '.join(texts)}; there is:\n{shown}"
            time.sleep(0.05)
        return shown

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


@contextlib.contextmanager
def terminal(columns: int = 80, lines: int = 24) -> Iterator[Terminal]:
    """A terminal of this size, with a plain shell in it."""
    try:
        install(lambda: shutil.which("tmux") is not None, "tmux")
    except Unavailable as error:
        unavailable(str(error))
    with tempfile.TemporaryDirectory(prefix="tmux-") as directory:
        socket = Path(directory) / "socket"
        hidden = {"TMUX", "NO_COLOR", "COLUMNS", "LINES"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {"PS1": "$ ", "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        command = ["tmux", "-S", str(socket), "-f", os.devnull, "new-session", "-d"]
        size = ["-x", str(columns), "-y", str(lines)]
        subprocess.run([*command, *size, "sh"], env=environment, check=True, timeout=20)
        try:
            yield Terminal(socket)
        finally:
            kill = ["tmux", "-S", str(socket), "kill-server"]
            subprocess.run(kill, capture_output=True, check=False, timeout=20)
