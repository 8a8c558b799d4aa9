"""Opening whatever somebody calls an image."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from parvis_services.xray.errors import (
    BrokenImageError,
    ForbiddenImageError,
    ImageError,
    MissingImageError,
    UnfinishedImageError,
    UnknownFormatError,
)
from parvis_services.xray.geometry import Beam, perpendicular_detector
from parvis_services.xray.images import Buffers, Image, count_frames, open_image


def test_no_such_file(tmp_path):
    with pytest.raises(MissingImageError, match="there is no such file"):
        open_image(tmp_path / "x.cbf")


def test_a_directory(tmp_path):
    with pytest.raises(MissingImageError, match="is a directory"):
        open_image(tmp_path)


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.cbf")
    with pytest.raises(UnknownFormatError, match="is a FIFO"):
        open_image(tmp_path / "x.cbf")


def test_a_device_is_no_image():
    with pytest.raises(UnknownFormatError, match="is a device"):
        open_image("/dev/zero")


def test_a_file_that_is_not_allowed_is_not_opened(tmp_path):
    asked: list[Path] = []

    def never(path: Path) -> bool:
        asked.append(path)
        return False

    with pytest.raises(ForbiddenImageError, match="outside"):
        open_image(tmp_path / "x.cbf", allowed=never)
    assert asked == [tmp_path / "x.cbf"]


def test_a_file_larger_than_any_image_costs_no_memory(tmp_path):
    path = tmp_path / "x.cbf"
    path.write_bytes(b"###CBF: VERSION 1.5\r\n")
    os.truncate(path, 2**40)
    with pytest.raises(BrokenImageError, match="1099511627776 bytes"):
        open_image(path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(MissingImageError):
        open_image(name)


@pytest.fixture
def forbidden(tmp_path):
    """A file that we may not read; root, who may read every file, is somebody else meanwhile."""
    path = tmp_path / "x.cbf"
    path.touch(mode=0)
    us = os.geteuid()
    if us == 0:
        os.seteuid(65534)
    yield path
    os.seteuid(us)


def test_a_file_that_may_not_be_read(forbidden):
    with pytest.raises(MissingImageError, match="Permission denied"):
        open_image(forbidden)


@pytest.mark.parametrize("contents", [b"", b"\0" * 1000, b"###C", b"\x89HD"])
def test_a_file_that_has_hardly_begun(tmp_path, contents):
    path = tmp_path / "x"
    path.write_bytes(contents)
    with pytest.raises(UnfinishedImageError):
        open_image(path)


@pytest.mark.parametrize("contents", [b"Hello, I am a text file.\n", b"x", os.urandom(100) + b"x"])
def test_a_file_of_something_else(tmp_path, contents):
    path = tmp_path / "x.cbf"
    path.write_bytes(b"?" + contents)
    with pytest.raises(UnknownFormatError, match="neither CBF nor HDF5"):
        open_image(str(path))


def test_a_file_that_is_not_hdf5_has_one_image(tmp_path):
    path = tmp_path / "x.cbf"
    path.write_bytes(b"###CBF: VERSION 1.5")
    assert count_frames(path) is None


def test_errors_name_file_and_reason(tmp_path):
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path / "x.cbf")
    assert caught.value.path == str(tmp_path / "x.cbf")
    assert str(caught.value) == f"{caught.value.path}: {caught.value.reason}"


def test_an_image_fits_its_detector():
    detector = perpendicular_detector((4, 5), (0.1, 0.1), (2, 2), 100, (0, 9))
    beam = Beam(1.0)
    with pytest.raises(ValueError, match="does not fit"):
        Image((np.zeros((5, 4)),), detector, beam, (None,), "x")
    with pytest.raises(ValueError, match="does not fit"):
        Image((np.zeros((4, 5)),), detector, beam, (np.ones((5, 4), bool),), "x")
    with pytest.raises(ValueError, match="do not match"):
        Image((), detector, beam, (None,), "x")


def test_threads_do_not_share_buffers():
    buffers = Buffers()
    found: list[int] = []
    here = buffers.array((4, 4), np.int32)

    def look() -> None:
        found.append(id(buffers.array((4, 4), np.int32)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert buffers.array((4, 4), np.int32) is here
    assert found != [id(here)]


def test_a_buffer_holds_a_whole_file(tmp_path):
    buffers = Buffers()
    path = Path(tmp_path / "x")
    for size in (10, 100_000, 7, 0):
        contents = os.urandom(size)
        path.write_bytes(contents)
        assert bytes(buffers.read(path)) == contents
