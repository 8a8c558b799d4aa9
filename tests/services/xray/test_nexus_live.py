"""HDF5 files that another program is writing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from made_nxmx import SHAPE, counts, write_images
from parvis_services.xray.errors import ImageError, UnfinishedImageError
from parvis_services.xray.images import count_frames, open_image

SERIES = """
import sys
from pathlib import Path
import numpy as np
from parvis_services.simulate.header import Header
from parvis_services.nxmx_files import Series
from parvis_services.simulate.nexus import NexusWriter

header = Header("EIGER2", 1.0, 0.2, (20, 10), (75e-6, 75e-6), 450e-6, 100000)
series = Series(Path(sys.argv[1]), "x", 5, (24, 40), 3)
with NexusWriter(series, header, np.zeros((24, 40), np.uint32)) as writer:
    print("ready", flush=True)
    for number, _ in enumerate(sys.stdin):
        writer.append(np.full((24, 40), 10 + number, np.int32))
        print("written", flush=True)
"""

PLAIN = """
import sys
import h5py, hdf5plugin
import numpy as np

with h5py.File(sys.argv[1], "r+", libver=(sys.argv[2], "v110")) as file:
    images = file["entry/data/data"]
    file.flush()
    print("ready", flush=True)
    for number, _ in enumerate(sys.stdin):
        images.resize(number + 3, axis=0)
        images[number + 2] = 10 + number
        file.flush()
        print("written", flush=True)
"""


class Writer:
    """A program that writes a frame whenever it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def wait(self, word: str) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline() == f"{word}\n"

    def write(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.wait("written")


@contextmanager
def writing(program: str, *arguments: str) -> Iterator[Writer]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        writer = Writer(process)
        writer.wait("ready")
        yield writer
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_frames_are_read_as_they_are_written_for_swmr(tmp_path):
    master = tmp_path / "x.nxs"
    with writing(SERIES, str(tmp_path)) as writer:
        with pytest.raises(UnfinishedImageError, match="no images in it"):
            open_image(master)
        for number in range(5):
            with pytest.raises(UnfinishedImageError):
                open_image(master, number)
            writer.write()
            assert (open_image(master, number).data[0] == 10 + number).all()
    assert count_frames(master) == 5
    assert [int(open_image(master, number).data[0][3, 3]) for number in range(5)] == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("version", ["earliest", "v110"])
def test_a_file_written_without_swmr(tmp_path, version):
    """Either its frames can be read once they are flushed, or it is clear who has it."""
    made = counts(2)
    path = write_images(
        tmp_path / "x.h5", made, maxshape=(None, *SHAPE), chunks=(1, *SHAPE), compression="gzip"
    )
    with writing(PLAIN, str(path), version) as writer:
        for number in range(3):
            try:
                found = open_image(path, number + 1).data[0]
                assert found.min() == found.max() == 9 + number or number == 0
            except UnfinishedImageError as error:
                assert "being written" in str(error)  # noqa: PT017 -- which of the two depends on the format
            with pytest.raises(ImageError):
                open_image(path, number + 2)
            writer.write()
    assert count_frames(path) == 5
    assert (open_image(path, 4).data[0] == 12).all()


def test_reading_never_keeps_a_writer_out(tmp_path):
    path = write_images(tmp_path / "x.h5", counts(2), maxshape=(None, *SHAPE), chunks=(1, *SHAPE))
    kept = open_image(path)
    with writing(PLAIN, str(path), "earliest") as writer:
        writer.write()
    assert (open_image(path, 2).data[0] == 10).all()
    np.testing.assert_array_equal(kept.data[0], counts(2)[0])


def test_a_writer_that_died(tmp_path):
    """Its file says that it is still being written; that is an error, not a wait without end."""
    path = Path(write_images(tmp_path / "x.h5", counts(2)))
    program = (
        "import h5py, os, sys\n"
        "file = h5py.File(sys.argv[1], 'w', libver='v110')\n"
        "file.create_dataset('entry/data/data', data=[[[1]]], chunks=(1, 1, 1), maxshape=(None, 1, 1))\n"
        "file.flush()\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    with pytest.raises(UnfinishedImageError, match="being written by another program"):
        open_image(path)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ImageError, match="give its master file"):
        open_image(tmp_path / "y.h5")
