"""Checks of the scheduler of a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from health_checks import check, config, levels
from http_server import HttpServer, Quiet
from parvis.config import SlurmSettings


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a program of a scheduler, which stands for the one of a site."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))

    def make(name: str, text: str) -> None:
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)

    return make


class TestScheduler:
    def test_none(self) -> None:
        assert levels(check("scheduler", config())) == {"": "skipped"}

    @pytest.mark.parametrize(
        ("script", "level", "message"),
        [
            ("echo 'cs04r 10 idle'; echo 'gpu 2 mixed'", "ok", "2 partitions, 12 nodes or slots"),
            ("echo 'cs04r 10 idle'; echo 'cs04r 2 down*'", "warning", "1 partition, 2 of 12 do not work"),
            ("echo 'cs04r 10 drained'", "error", "1 partition, and nothing of 10 works"),
            ("echo 'slurm_load_partitions: no contact' >&2; exit 1", "error", "sinfo failed: slurm_load"),
            ("echo nonsense", "error", "sinfo shows no partition"),
        ],
    )
    def test_slurm(self, programs: Callable[[str, str], None], script: str, level: str, message: str) -> None:
        programs("sinfo", script)
        (finding,) = check("scheduler", config(scheduler="slurm"))
        assert (finding.subject, finding.level) == ("slurm", level)
        assert finding.message.startswith(message)

    def test_grid_engine(self, programs: Callable[[str, str], None]) -> None:
        programs(
            "qstat",
            "echo 'CLUSTER QUEUE CQLOAD USED RES AVAIL TOTAL aoACDS cdsuE'; echo ---------;"
            "echo 'high.q 0.42 10 0 80 100 0 10'",
        )
        (finding,) = check("scheduler", config(scheduler=["gridengine"]))
        assert (finding.level, finding.message) == ("warning", "1 queue, 10 of 100 do not work")

    @pytest.mark.usefixtures("programs")
    def test_programs_that_are_not_there(self) -> None:
        found = check("scheduler", config(scheduler=["slurm", "gridengine", "pbs"]))
        assert levels(found) == {"slurm": "error", "gridengine": "error", "pbs": "error"}
        assert found[0].message == "there is no program sinfo on the path"

    def test_rest(self, slurm: _Slurm, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("jwt\n")
        settings = SlurmSettings(slurm.url, "v0.0.40", "gda2", str(token))
        (finding,) = check("scheduler", replace(config(), slurm=settings))
        assert (finding.level, finding.message) == ("ok", "1 of 1 controllers are up (ctl1)")
        slurm.pings.append({"hostname": "ctl2", "pinged": "DOWN"})
        (finding,) = check("scheduler", replace(config(), slurm=settings))
        assert (finding.level, finding.message) == ("warning", "1 of 2 controllers are up (ctl1, ctl2)")
        (finding,) = check("scheduler", replace(config(), slurm=replace(settings, user_token="stale")))
        assert finding.level == "error"
        assert "answers 401: the user or the token is no good" in finding.message


class _Slurm:
    """What Slurm's REST interface says to a ping."""

    def __init__(self) -> None:
        self.pings: list[dict[str, Any]] = [{"hostname": "ctl1", "pinged": "UP"}]
        self.url = ""


@pytest.fixture
def slurm() -> Iterator[_Slurm]:
    """A server that answers as slurmrestd does, to those who have the token `jwt`."""
    state = _Slurm()

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = (
                self.headers["X-SLURM-USER-TOKEN"] == "jwt" and self.headers["X-SLURM-USER-NAME"] == "gda2"
            )
            right = self.path == "/slurm/v0.0.40/ping"
            self.send_response((200 if right else 404) if known else 401)
            self.end_headers()
            self.wfile.write(json.dumps({"pings": state.pings}).encode())

    with HttpServer(Handler) as server:
        state.url = server.url
        yield state
