"""Real data for tests: a directory beside the checkout, or the one that `PARVIS_TEST_DATA` names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DIRECTORY = Path(os.environ.get("PARVIS_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def real_data(name: str) -> Path:
    """The path of a file or directory of the test data; where it is absent the test is skipped."""
    path = DIRECTORY / name
    if not path.exists():
        pytest.skip(f"test data {name} is not in {DIRECTORY} (set PARVIS_TEST_DATA)")
    return path
