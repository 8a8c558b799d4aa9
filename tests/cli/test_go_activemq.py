"""`parvis go` with a real ActiveMQ."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from beamline import GRIDSCAN, WHOLE_JOB, Beamline
from parvis.cli import main
from parvis.config import StompSettings
from real.activemq.server import ActiveMQ

pytestmark = pytest.mark.real("activemq")


@pytest.fixture(autouse=True)
def _site(activemq: ActiveMQ, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("PARVIS_STOMP", "ZOCALO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARVIS_FALLBACK_LOCATION", str(tmp_path / "drop"))
    monkeypatch.setenv("PARVIS_STOMP_HOST", activemq.host)
    monkeypatch.setenv("PARVIS_STOMP_PORT", str(activemq.port))
    monkeypatch.setenv("PARVIS_STOMP_USERNAME", activemq.username)
    monkeypatch.setenv("PARVIS_STOMP_PASSWORD", activemq.password)
    monkeypatch.setenv("PARVIS_STOMP_PREFIX", "go-test")


def test_job_is_followed_to_its_end(activemq: ActiveMQ):
    stomp = StompSettings(activemq.host, activemq.port, activemq.username, activemq.password, "go-test")
    beamline = Beamline(stomp)
    beamline.answer(GRIDSCAN, WHOLE_JOB)
    result = CliRunner().invoke(main, ["go", "-r", "a", "12", "--wait=60", "--json"])
    beamline.close()
    assert result.exit_code == 0, result.stderr
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert told[-1] == {"event": "end", "success": True, "reason": None, "images": 3}


def test_wrong_password_stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PARVIS_STOMP_PASSWORD", "wr0ng!")
    result = CliRunner().invoke(main, ["go", "-r", "a", "12"])
    assert result.exit_code == 0
    assert len(list((tmp_path / "drop").iterdir())) == 1
    assert "refused the log-in" in result.stderr
    assert "wr0ng!" not in result.output
