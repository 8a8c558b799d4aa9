"""Jolokia in an ActiveMQ of tests: Debian has its core, and not the console of ActiveMQ that serves it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from real import packages
from real.activemq import server
from real.activemq.server import ActiveMQ
from real.daemon import free_ports

_JAVA = Path("/usr/share/java")
_LIBRARIES = (_JAVA / "jolokia-core.jar", _JAVA / "json-simple.jar")
_SOURCE = Path(__file__).with_name("JolokiaAgent.java")


def install() -> None:
    """Install what the agent needs if it is not there.

    Raises:
        Unavailable: It cannot be installed.
    """
    packages.install(_is_there, "libjolokia-core-java", "libjson-simple-java", "default-jdk-headless")


def agent(directory: Path) -> Path:
    """Compile the agent into `directory`; return its jar, for `-javaagent:JAR=PORT`.

    Raises:
        Unavailable: What it needs is not there and cannot be installed.
    """
    install()
    libraries = ":".join(map(str, _LIBRARIES))
    subprocess.run(["javac", "-cp", libraries, "-d", str(directory), str(_SOURCE)], check=True)
    manifest = directory / "manifest"
    manifest.write_text(f"Premain-Class: JolokiaAgent\nClass-Path: {' '.join(map(str, _LIBRARIES))}\n")
    jar = directory / "agent.jar"
    classes = [file.name for file in directory.glob("*.class")]
    subprocess.run(["jar", "cfm", str(jar), str(manifest), *classes], cwd=directory, check=True)
    return jar


def _is_there() -> bool:
    return bool(shutil.which("javac") and shutil.which("jar")) and all(map(Path.exists, _LIBRARIES))


@contextlib.contextmanager
def managed(directory: Path, name: str = "parvis-tests") -> Iterator[tuple[ActiveMQ, int]]:
    """An ActiveMQ of this name, and the port of its Jolokia, for as long as the context lasts.

    Raises:
        Unavailable: It cannot be installed.
    """
    (port,) = free_ports(1)
    (directory / "agent").mkdir()
    server.install()
    jar = agent(directory / "agent")
    broker = ActiveMQ(directory / "broker")
    file = broker.directory / "conf" / "activemq.xml"
    settings = file.read_text().replace('brokerName="parvis-tests"', f'brokerName="{name}"')
    file.write_text(settings.replace('useJmx="false"', 'useJmx="true"'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", f"-javaagent:{jar}={port}")
        broker.start()
    try:
        yield broker, port
    finally:
        broker.kill()
