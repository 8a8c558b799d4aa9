"""A drop file is there as a whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from parvis.cli.dropfile import drop_file, store


def test_names_are_new_each_time(tmp_path: Path):
    assert drop_file(tmp_path) != drop_file(tmp_path)


def test_directory_is_made_and_only_the_file_is_left(tmp_path: Path):
    file = tmp_path / "deep" / "down" / "name"
    store(file, {"h": "1"}, {"recipes": ["é"]})
    assert [path.name for path in file.parent.iterdir()] == ["name"]
    assert json.loads(file.read_text()) == {"headers": {"h": "1"}, "message": {"recipes": ["é"]}}


def test_nothing_is_left_where_the_disk_is_full(tmp_path: Path):
    """A limit on the size of files stands for the full disk: it fails in the middle of the text."""
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom parvis.cli.dropfile import store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try:\n    store(Path(sys.argv[1]), {}, {'recipes': ['a' * 100]})\n"
        "except OSError as error:\n    print(error.strerror)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout == "File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_no_directory_no_file(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="File exists"):
        store(tmp_path / "file" / "x", {}, {})
