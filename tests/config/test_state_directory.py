"""Where services keep what outlives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from parvis.config import Config


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZOCALO_CONFIG", "PARVIS_STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_it_is_that_of_the_user_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Config.load().state_directory == tmp_path / ".local" / "state" / "parvis"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert Config.load().state_directory == tmp_path / "xdg" / "parvis"
    file = tmp_path / "config.yml"
    storage = "{plugin: storage, parvis.state_directory: ~/state}"
    file.write_text(f"version: 1\nenvironments: {{default: [here]}}\nhere: {storage}\n")
    monkeypatch.setenv("ZOCALO_CONFIG", str(file))
    assert Config.load().state_directory == tmp_path / "state"
    monkeypatch.setenv("PARVIS_STATE_DIRECTORY", "/var/lib/parvis")
    assert Config.load().state_directory == Path("/var/lib/parvis")


def test_another_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARVIS_STATE_DIRECTORY", "/var/lib/parvis")
    assert Config.load().to_environment()["PARVIS_STATE_DIRECTORY"] == "/var/lib/parvis"
