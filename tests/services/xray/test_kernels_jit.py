"""Where compiled kernels are kept, and that they work where they cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import parvis_services
from parvis_services.xray import kernels

USE_THEM = """
import numpy
from parvis_services.xray.kernels import byte_offset
assert byte_offset.decode(bytes([1, 2, 3, 4]), (2, 2)).tolist() == [[1, 3], [6, 10]]
"""


def run(package: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Decompress something in a process of its own, with the packages of this directory."""
    settings = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "HOME")}
    settings |= {"PYTHONPATH": str(package), **environment}
    return subprocess.run(
        [sys.executable, "-c", USE_THEM],
        env=settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the services without anything compiled."""
    assert parvis_services.__file__
    shutil.copytree(
        Path(parvis_services.__file__).parent,
        tmp_path / "lib" / "parvis_services",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path / "lib"


def test_compiled_kernels_are_kept_where_the_user_says(package: Path, tmp_path: Path) -> None:
    done = run(package, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache").rglob("*.nbc"))


def test_kernels_work_where_nothing_can_be_kept(package: Path, tmp_path: Path) -> None:
    """Files in the place of directories cannot be written into, not even by root."""
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    (package / "parvis_services" / "xray" / "kernels" / "__pycache__").write_text("")
    done = run(package, HOME=str(nowhere), XDG_CACHE_HOME=str(nowhere), PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.nbc"))


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i4"])
def test_warming_up_leaves_nothing_to_compile(kind: str) -> None:
    from parvis_services.xray.kernels import screened, threshold
    from parvis_services.xray.parameters import DispersionParameters

    kernels.warm_up(kind)
    before = len(screened.strong.signatures)  # pyright: ignore[reportFunctionMemberAccess] (of numba)
    image, mask = np.ones((30, 40), kind), np.ones((30, 40), np.bool_)
    threshold.dispersion(image, mask, (0, 70), DispersionParameters())
    assert len(screened.strong.signatures) == before  # pyright: ignore[reportFunctionMemberAccess]


def test_warming_up_for_an_impossible_type_says_so() -> None:
    with pytest.raises(ValueError, match="image must be"):
        kernels.warm_up("c16")
