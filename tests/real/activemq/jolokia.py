"""Jolokia in an ActiveMQ of tests: Debian has its core, and not the console of ActiveMQ that serves it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from real import packages

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
