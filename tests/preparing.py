"""What is done once before all tests: it takes long, and three processes would do it thrice, or wait."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import stepped_clock
from real import ceph, mariadb
from real.activemq import jolokia
from real.activemq import server as activemq
from real.packages import Unavailable
from real.rabbitmq import server as rabbitmq
from simplon import environments as simulators

_INSTALL = (
    activemq.install,
    ceph.install,
    jolokia.install,
    mariadb.install,
    rabbitmq.install,
    stepped_clock.install,
)
_COMPILE = """
from parvis_services.xray.kernels import warm_up
for counts in ("int32", "uint16", "uint32"):
    warm_up(counts)
"""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Install servers and compile kernels before all tests, where they run in several processes or in CI."""
    several = getattr(session.config.option, "numprocesses", None)
    if hasattr(session.config, "workerinput") or not (several or os.environ.get("CI")):
        return
    with ThreadPoolExecutor(1) as beside:
        beside.submit(_try, simulators.install)  # which has nothing to do with apt
        for install in _INSTALL:
            _try(install)
        subprocess.run([sys.executable, "-c", _COMPILE], check=False)  # the tests that need kernels say so


def _try(install: Callable[[], None]) -> None:
    with contextlib.suppress(Unavailable):  # the tests that need it say so
        install()
