#!/usr/bin/env python3
"""Set everything up in `.venv` and run something there: the demonstration or the tests.

    python3 bootstrap.py demo          set up, then watch a grid scan being analysed
    python3 bootstrap.py test          set up, then check types and style and run all tests
    python3 bootstrap.py install       only set up

What follows is handed on: `python3 bootstrap.py test tests/recipe -x`. Only the standard library is needed.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "installed-for"
LEAST = (3, 11)
PROCESSES = "3"  # for tests, which wait more than they compute

# Before anything that an older Python, down to 3.6, would stumble over.
if sys.version_info < LEAST:
    have, need = ".".join(map(str, sys.version_info[:2])), ".".join(map(str, LEAST))
    sys.exit(f"Parvis needs Python {need} or later, and this is {have}.")


def main(arguments: list[str]) -> int:
    """Do what the first argument says; return the exit code."""
    actions = {"demo": demo, "test": test, "install": install}
    if not arguments or arguments[0] not in actions:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return actions[arguments[0]](arguments[1:])
    except subprocess.CalledProcessError as error:
        print(f"This failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def install(_arguments: list[str]) -> int:
    """Make the virtual environment, unless it is there for this very `pyproject.toml`."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return 0
    print(f"Setting up {ENVIRONMENT} (a minute or two the first time) ...", file=sys.stderr)
    if not program("python").exists():
        venv.create(ENVIRONMENT, with_pip=True)
    run(program("python"), "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[all,dev]")
    STAMP.write_text(wanted)
    return 0


def demo(arguments: list[str]) -> int:
    """Run the demonstration."""
    install([])
    return subprocess.run([program("parvis"), "demo", *arguments], check=False).returncode


def test(arguments: list[str]) -> int:
    """Check style and types, then run the tests, all of them if no arguments say otherwise."""
    install([])
    if not arguments:
        run(program("ruff"), "format", "--check", ".")
        run(program("ruff"), "check", ".")
        run(program("pyright"))
    chosen = arguments or ["-n", PROCESSES]
    return subprocess.run([program("pytest"), *chosen], cwd=ROOT, check=False).returncode


def program(name: str) -> Path:
    """Return the path of a program of the virtual environment."""
    return ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin") / name


def run(*command: object) -> None:
    """Run a command in the checkout and stop if it fails."""
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
