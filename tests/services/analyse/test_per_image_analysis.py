"""Per-image analysis as a service: which files it may be sent to."""

from __future__ import annotations

import os
from pathlib import Path

import h5py

from made_nxmx import counts, describe, write_images
from parvis.config import Config
from parvis.service.testing import run
from parvis_services.analyse.per_image_analysis import PerImageAnalysis


def test_an_hdf5_file_may_not_link_to_images_outside_what_the_site_allows(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    secret = write_images(tmp_path / "secret.h5", counts(1))
    link = tmp_path / "data" / "x.h5"
    with h5py.File(link, "w") as file:
        describe(file)
        file["entry/data/data"] = h5py.ExternalLink(str(secret), "/entry/data/data")
    payload = {"file": str(link), "file-number": 1}
    assert run(PerImageAnalysis, payload).outcome.result == "done"
    config = Config(storage={"parvis.allowed_directories": [str(tmp_path / "data")]})
    outcome = run(PerImageAnalysis, payload, config=config).outcome
    assert outcome.result == "reject"
    assert "outside the directories that the site allows" in outcome.reason


def test_a_fifo_is_rejected_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.cbf")
    outcome = run(PerImageAnalysis, {"file": str(tmp_path / "x.cbf"), "file-number": 1}).outcome
    assert outcome.result == "reject"
    assert "is a FIFO" in outcome.reason
