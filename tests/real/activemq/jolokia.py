"""Jolokia in an ActiveMQ of tests: Debian has its core, and not the console of ActiveMQ that serves it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from real.activemq.server import Unavailable

_JAVA = Path("/usr/share/java")
_LIBRARIES = (_JAVA / "jolokia-core.jar", _JAVA / "json-simple.jar")
_SOURCE = Path(__file__).with_name("JolokiaAgent.java")


def agent(directory: Path) -> Path:
    """Compile the agent into `directory`; return its jar, for `-javaagent:JAR=PORT`.

    Raises:
        Unavailable: What it needs is not there and cannot be installed.
    """
    if not (shutil.which("javac") and shutil.which("jar") and all(map(Path.exists, _LIBRARIES))):
        _install()
    libraries = ":".join(map(str, _LIBRARIES))
    subprocess.run(["javac", "-cp", libraries, "-d", str(directory), str(_SOURCE)], check=True)
    manifest = directory / "manifest"
    manifest.write_text(f"Premain-Class: JolokiaAgent\nClass-Path: {' '.join(map(str, _LIBRARIES))}\n")
    jar = directory / "agent.jar"
    classes = [file.name for file in directory.glob("*.class")]
    subprocess.run(["jar", "cfm", str(jar), str(manifest), *classes], cwd=directory, check=True)
    return jar


def _install() -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Unavailable("Jolokia needs root to: apt-get install libjolokia-core-java default-jdk-headless")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = ["libjolokia-core-java", "libjson-simple-java", "default-jdk-headless"]
    get = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"]
    done = subprocess.run([*get, *packages], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"Jolokia cannot be installed: {done.stderr.strip()[-500:]}")
