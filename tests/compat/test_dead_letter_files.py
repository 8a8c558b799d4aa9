"""Dead letters in files of either world, sent in again by the other; requests that their `go` stored."""

from __future__ import annotations

import json

import orjson
import pytest

from compat.conftest import MakeSite
from compat.test_on_rabbitmq import make_site as rabbitmq_site  # noqa: F401 - a fixture
from running import Listener
from waiting import wait_until
from zocalo_site import Site

NODE = {"queue": "multiply", "retries": 0, "output": 2, "parameters": {"multiply-by": 3}}
RECIPE = {"1": NODE, "2": {"queue": "results"}, "start": [[1, []]]}
PURGE = {
    "ours": ["parvis", "dlq", "purge", "--all", "--yes"],
    "theirs": ["zocalo.dlq_purge", "--wait", "1"],
}
REINJECT = {"ours": ["parvis", "dlq", "reinject", "--yes", "-r"], "theirs": ["zocalo.dlq_reinject", "-r"]}


def there_and_back(site: Site, transport: str, purge: str, reinject: str) -> None:
    def run(*command: str) -> None:
        done = site.run(*command, "-t", transport)
        assert done.returncode == 0, done.stdout + done.stderr

    def has_died() -> bool:
        return site.run("parvis", "dlq", "list", "-t", transport).returncode == 1

    queue = f"{site.namespace}.multiply" if site.namespace else "multiply"
    with site.running("parvis", "service", "-s", "Multiplier", ready="Multiplier"):
        site.start(RECIPE, {"number": 15})
        wait_until(has_died, 30, "the dead letter")
        run(*PURGE[purge], *([queue] if purge == "theirs" else []))
        (path,) = (path for path in site.dead.rglob("msg-*") if path.is_file())
        dump = json.loads(path.read_text())
        assert dump["message"]["payload"] == {"number": 15}
        dump["message"]["payload"] = {"number": 16}  # mended by hand
        path.write_text(json.dumps(dump))
        results = Listener(site.transport, "results")
        run(*REINJECT[reinject], str(path))
        (message,) = results.wait_for(1)
    assert not path.exists()
    assert orjson.loads(message.body)["payload"] == {"number": 48}


@pytest.mark.parametrize(("purge", "reinject"), [("ours", "theirs"), ("theirs", "ours")])
def test_there_and_back(small_site: Site, purge: str, reinject: str) -> None:
    there_and_back(small_site, "StompTransport", purge, reinject)


@pytest.mark.real("rabbitmq")
@pytest.mark.parametrize(("purge", "reinject"), [("ours", "theirs"), ("theirs", "ours")])
def test_there_and_back_on_rabbitmq(rabbitmq_site: MakeSite, purge: str, reinject: str) -> None:  # noqa: F811
    there_and_back(rabbitmq_site("PikaTransport"), "PikaTransport", purge, reinject)


def test_requests_that_their_go_stored(small_site: Site) -> None:
    site = small_site
    done = site.run("zocalo.go", "-e", "cut-off", "-r", "simple", "-n")
    assert done.returncode == 0, done.stderr
    listener = Listener(site.transport, "processing_recipe")
    done = site.run("parvis", "pickup", "-w", "0")
    assert done.returncode == 0, done.stderr
    assert "with recipes simple" in done.stdout
    (message,) = listener.wait_for(1)
    assert orjson.loads(message.body)["recipes"] == ["simple"]
    assert list(site.drop.iterdir()) == []
