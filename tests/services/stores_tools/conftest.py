"""A store in a directory that is configured, and a file to put into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from parvis_services.stores.directory import DirectoryStore
from recorded_files import images, write_file
from stored_series import configuration, directory_store


@pytest.fixture
def store(tmp_path: Path, unconfigured: None, monkeypatch: pytest.MonkeyPatch) -> DirectoryStore:
    monkeypatch.setenv("ZOCALO_CONFIG", str(configuration(tmp_path, tmp_path / "store")))
    return directory_store(tmp_path / "store")


@pytest.fixture
def master(tmp_path: Path) -> Path:
    return write_file(tmp_path / "x_master.h5", images(4))
