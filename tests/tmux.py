"""A program in a real terminal: tmux shows it, and types."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from real.packages import Unavailable, install, unavailable
from waiting import wait_until


class Tmux:
    """A terminal with a shell in it, which shows `$` when it waits for a command.

    Args:
        socket: Where tmux listens.
        environment: Variables of the shell.
        size: Columns and lines.
    """

    def __init__(self, socket: Path, environment: Mapping[str, str], size: tuple[int, int]) -> None:
        self._runs = 0
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        # A terminal has a size of its own, whatever the environment says.
        shell = [
            "env",
            "-u",
            "COLUMNS",
            "-u",
            "LINES",
            *(f"{name}={value}" for name, value in environment.items()),
            "PS1=$ ",
            "sh",
        ]
        width, height = size
        self._run("new-session", "-d", "-x", f"{width}", "-y", f"{height}", shlex.join(shell))
        self.wait_for("$")

    def type(self, *keys: str) -> None:
        """Press keys, as tmux names them; or type texts."""
        self._run("send-keys", *keys)

    def command(self, *words: str) -> None:
        """Give the shell a command."""
        self._run("send-keys", "-l", shlex.join(words))
        self._run("send-keys", "Enter")

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Give the shell a command on a clear screen; `wait_for_end` tells its end."""
        self._runs += 1
        words = shlex.join(
            ["env", *(f"{name}={value}" for name, value in (environment or {}).items()), *command]
        )
        end = f"code=$?; stty -g | cksum; echo run {self._runs} ended with $code"
        self._run("send-keys", "-l", f"clear; {words}; {end}")
        self._run("send-keys", "Enter")

    def wait_for_end(self, code: int = 0) -> str:
        """Return what is seen once the command of `run` has ended with this exit code.

        The line before the last is a checksum of the settings of the terminal.
        """
        return self.wait_for(f"run {self._runs} ended with {code}\n")

    def click(self, column: int, line: int) -> None:
        """Click with the left button; columns and lines count from 0."""
        for end in "Mm":
            self._run("send-keys", "-l", f"\x1b[<0;{column + 1};{line + 1}{end}")

    def signal(self, number: int) -> None:
        """Send a signal to what the shell runs."""
        (child,) = psutil.Process(int(self.state("pane_pid"))).children()
        child.send_signal(number)

    def state(self, name: str) -> str:
        """Return what tmux says of the terminal, such as `alternate_on`."""
        return self._run("display-message", "-p", f"#{{{name}}}").strip()

    def screen(self) -> str:
        """Return what is seen."""
        return self._run("capture-pane", "-p")

    def escapes(self) -> str:
        """Return what is seen, with its colours."""
        return self._run("capture-pane", "-p", "-e")

    def wait_for(self, *texts: str, timeout: float = 20) -> str:
        """Return what is seen as soon as it shows all of these."""
        seen = ""

        def shown() -> bool:
            nonlocal seen
            seen = self.screen()
            return all(text in seen for text in texts)

        try:
            wait_until(shown, timeout, " and ".join(texts))
        except AssertionError as error:
            raise AssertionError(f"{error}; there is:\n{seen}") from None
        return seen

    def resize(self, width: int, height: int) -> None:
        """Make the terminal larger or smaller."""
        self._run("resize-window", "-x", f"{width}", "-y", f"{height}")

    def close(self) -> None:
        """End it, and what runs in it."""
        self._run("kill-server")

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True)
        return done.stdout


@contextlib.contextmanager
def terminal(
    directory: Path, environment: Mapping[str, str], size: tuple[int, int] = (80, 24)
) -> Iterator[Tmux]:
    """A terminal for as long as the context lasts. The test is skipped where tmux cannot be had."""
    try:
        install(lambda: shutil.which("tmux") is not None, "tmux")
    except Unavailable as error:
        unavailable(str(error))
    known: Sequence[str] = ("PATH", "HOME", "VIRTUAL_ENV")
    kept = {name: os.environ[name] for name in known if name in os.environ}
    socket = directory / f"tmux-{uuid.uuid4().hex[:6]}"
    opened = Tmux(socket, {**kept, "LANG": "C.UTF-8", "TERM": "tmux-256color", **environment}, size)
    try:
        yield opened
    finally:
        opened.close()
