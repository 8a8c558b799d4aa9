"""Simulators of detectors that others wrote, each in a virtual environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from real.packages import Unavailable

TICKIT = ("tickit-devices==0.4.1", "cbor2<6")
EIGERSIM = ("eiger-simulator==0.5.1",)


def install() -> None:
    """Install all simulators.

    Raises:
        Unavailable: One cannot be installed.
    """
    for requirements in (TICKIT, EIGERSIM):
        python_with(*requirements)


def python_with(*requirements: str) -> Path:
    """The Python of an environment that has these packages; it is made once, and used by all who come later.

    Raises:
        Unavailable: They cannot be installed.
    """
    name = requirements[0].replace("==", "-")
    place = _cache() / f"{name}-python{sys.version_info.major}.{sys.version_info.minor}"
    if not (place / "bin" / "python").exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place.parent))
        try:
            _make(unfinished, requirements)
            # Whole from the moment it has its name. Who else has made it meanwhile has made the same.
            if not place.exists():
                unfinished.rename(place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return place / "bin" / "python"


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "parvis-tests"


def _make(place: Path, requirements: tuple[str, ...]) -> None:
    python = place / "bin" / "python"
    options = ["--quiet", "--disable-pip-version-check", "--no-compile"]
    install = [str(python), "-m", "pip", "install", *options, *requirements]
    for command in ([sys.executable, "-m", "venv", str(place)], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{' '.join(requirements)} cannot be installed: {done.stderr.strip()[-500:]}")
