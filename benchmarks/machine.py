"""The machine that figures come from, in one line."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe_machine(*packages: str) -> str:
    """Return processor, cores, system, Python and the versions of packages."""
    versions = [f"{name} {_version(name)}" for name in packages]
    parts = [
        f"{_processor()}, {os.cpu_count()} cores",
        platform.system(),
        f"Python {platform.python_version()}",
    ]
    return ", ".join([*parts, *versions])


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
