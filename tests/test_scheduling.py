"""Tests in several processes: those of a file stay together, and so do all campaigns."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

TESTS = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(8))
def test_it(number):
    with open(pathlib.Path(__file__).parents[{levels}] / "ran", "a") as file:
        file.write("{name} " + os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""
HOOKS = "from scheduling import pytest_collection_modifyitems, pytest_xdist_make_scheduler"


def test_files_and_campaigns_stay_together(tmp_path: Path) -> None:
    (tmp_path / "campaign").mkdir()
    (tmp_path / "conftest.py").write_text(HOOKS)
    for number in range(6):
        (tmp_path / f"test_{number}.py").write_text(TESTS.format(name=number, levels=0))
    for number in range(2):
        file = tmp_path / "campaign" / f"test_campaign_{number}.py"
        file.write_text(TESTS.format(name="campaign", levels=1))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "3",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "64 passed" in done.stdout, done.stdout
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    workers: defaultdict[str, set[str]] = defaultdict(set)
    for name, worker in ran:
        workers[name].add(worker)
    assert {name: len(where) for name, where in workers.items()} == dict.fromkeys((*"012345", "campaign"), 1)
    assert len(set.union(*workers.values())) == 3
    first = next(n for n, (_, worker) in enumerate(ran) if {worker} == workers["campaign"])
    assert ran[first][0] == "campaign"
