"""The web page running in a process of its own, for tests that look at it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from parvis.web.users import hash_password
from running import NAMESPACE

USER, PASSWORD = "ada", "correct horse battery"

_TOKEN = re.compile(r'name="_csrf_token" value="([0-9a-f]+)"')


def write_configuration(directory: Path, broker_port: int, **storage: Any) -> dict[str, str]:
    """Write a configuration file with a user of the page; return variables that lead to it."""
    content = {
        "version": 1,
        "environments": {"test": {"plugins": ["stomp", "storage"]}, "default": "test"},
        "stomp": {
            "plugin": "stomp",
            "host": "127.0.0.1",
            "port": broker_port,
            "username": "admin",
            "password": "password",
            "prefix": NAMESPACE,
        },
        "storage": {
            "plugin": "storage",
            "parvis.state_directory": str(directory / "state"),
            "parvis.records.directory": str(directory / "records"),
            "parvis.web.users": {USER: hash_password(PASSWORD)},
            **storage,
        },
    }
    file = directory / "configuration.yml"
    file.write_text(yaml.safe_dump(content))
    return {"ZOCALO_CONFIG": str(file)}


@dataclass(frozen=True)
class WebPage:
    """A running web page.

    Attributes:
        address: Its address, ending in a slash.
        log: What it logs.
        process: It.
    """

    address: str
    log: Path
    process: subprocess.Popen[str]

    @contextlib.contextmanager
    def browser(self, **options: Any) -> Generator[httpx.Client]:
        """A client that keeps cookies, as browsers do."""
        with httpx.Client(base_url=self.address, timeout=30, trust_env=False, **options) as client:
            yield client

    @contextlib.contextmanager
    def signed_in(self) -> Generator[httpx.Client]:
        """A client that has logged in."""
        with self.browser() as client:
            answer = log_in(client)
            assert answer.status_code == 303, answer.text
            yield client


@contextlib.contextmanager
def web_page(directory: Path, environment: Mapping[str, str], *options: str) -> Generator[WebPage]:
    """The web page, with the configuration that variables lead to; it has to end well when it is told to."""
    log = directory / "web.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "parvis", "web", "--port", "0", "--json", *options],
            env=os.environ | dict(environment),
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield WebPage(json.loads(line)["address"], log, process)
        process.terminate()
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def log_in(client: httpx.Client, name: str = USER, password: str = PASSWORD, **more: str) -> httpx.Response:
    """Fill in the form and send it."""
    form = {"_csrf_token": token_of(client, "/log-in"), "name": name, "password": password, "next": "/"}
    return client.post("/log-in", data=form | more)


def token_of(client: httpx.Client, path: str) -> str:
    """The token against forged requests that the form of a page holds."""
    page = client.get(path).raise_for_status().text
    found = _TOKEN.search(page)
    assert found is not None, page
    return found[1]


def events(client: httpx.Client, view: str) -> Iterator[dict[str, Any]]:
    """What is sent about a view, as it comes."""
    with client.stream("GET", f"/live/{view}") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine, signed by itself; return its file and that of the key."""
    certificate, key = directory / "page.crt", directory / "page.key"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run([*made, *subject, *files, "-days", "2"], check=True, capture_output=True)
    return certificate, key
