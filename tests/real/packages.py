"""Installing what real servers need, with apt: once, whoever asks first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

_POLICY = Path("/usr/sbin/policy-rc.d")
_PATIENCE = 300.0  # seconds for others who use apt: a machine that has just started looks for updates


class Unavailable(Exception):
    """Something cannot be had on this machine; says why."""


def install(is_there: Callable[[], bool], *packages: str) -> None:
    """Install packages of Debian, without starting any server, unless what they bring `is_there`.

    Raises:
        Unavailable: They cannot be installed.
    """
    with _alone():  # what somebody is just installing is there before it is whole
        if not is_there():
            _install(packages)


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or let it fail in CI, where none may be skipped for want of a server."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def skipping_if_unavailable() -> Iterator[None]:
    """Skip the test, or let it fail in CI, if what is inside raises `Unavailable`."""
    try:
        yield
    except Unavailable as error:
        unavailable(str(error))


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait for others of ours that install something."""
    with (Path(tempfile.gettempdir()) / f"parvis-tests-{os.getuid()}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(packages: tuple[str, ...]) -> None:
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise Unavailable(f"not installed, and there is no apt-get to install it with: {names}")
    if os.geteuid() != 0:
        raise Unavailable(f"not installed, and only root can: apt-get install {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    get = ["apt-get", "-qq", "-o", "Acquire::Retries=3", "-o", f"DPkg::Lock::Timeout={_PATIENCE:.0f}"]
    with _nothing_starts_by_itself():
        for command in ([*get, "update"], [*get, "install", "-y", "--no-install-recommends", *packages]):
            _run(command, environment)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run apt-get, again and again while others hold a lock for which it does not wait."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if "Could not get lock" not in done.stderr or time.monotonic() > deadline:
            raise Unavailable(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
        time.sleep(1)


@contextlib.contextmanager
def _nothing_starts_by_itself() -> Iterator[None]:
    """Keep Debian from starting the servers that it installs."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
