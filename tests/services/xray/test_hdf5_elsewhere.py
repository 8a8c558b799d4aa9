"""What HDF5 files have elsewhere: links, sources and raw data in other files; what of it may be read."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from made_nxmx import SHAPE, counts, write_images
from parvis_services.paths import PathRule
from parvis_services.xray.analysis import analyse
from parvis_services.xray.errors import BrokenImageError, ForbiddenImageError
from parvis_services.xray.images import Image, open_image
from parvis_services.xray.parameters import AnalysisParameters


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory that the site allows."""
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that it does not."""
    return write_images(tmp_path / "secret.h5", counts(2))


def open_at_site(path: Path, data: Path, frame: int = 0) -> Image:
    rule = PathRule({"parvis.allowed_directories": [str(data)]})
    return open_image(rule.path(str(path)), frame, allowed=rule.predicate)


def without_images(path: Path) -> Path:
    write_images(path, counts(2))
    with h5py.File(path, "a") as file:
        del file["entry/data/data"]
    return path


def virtual(path: Path, *sources: tuple[str, tuple[int, ...]], frames: int = 2) -> Path:
    """A file whose images are those of other files; each source takes whole frames or rows of them."""
    layout = h5py.VirtualLayout((frames, *SHAPE), np.uint32)
    for name, shape in sources:
        if shape == (frames, *SHAPE):
            layout[:] = h5py.VirtualSource(name, "entry/data/data", shape, np.uint32)
        else:  # half of each frame: HDF5 itself has to put the frame together
            layout[:, : shape[1]] = h5py.VirtualSource(name, "entry/data/data", shape, np.uint32)
    without_images(path)
    with h5py.File(path, "a") as file:
        file["entry/data"].create_virtual_dataset("data", layout)  # pyright: ignore[reportAttributeAccessIssue]
    return path


@pytest.mark.parametrize("name", ["{secret}", "../secret.h5", "link.h5"])
def test_links_do_not_lead_out(data: Path, secret: Path, name: str) -> None:
    (data / "link.h5").symlink_to(secret)
    path = without_images(data / "x.h5")
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = h5py.ExternalLink(name.format(secret=secret), "/entry/data/data")
    open_image(path)
    with pytest.raises(ForbiddenImageError, match="outside the directories that the site allows"):
        open_at_site(path, data)


def test_links_inside_are_followed(data: Path) -> None:
    made = counts(2)
    write_images(data / "other.h5", made)
    path = without_images(data / "x.h5")
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = h5py.ExternalLink("other.h5", "/entry/data/data")
    np.testing.assert_array_equal(open_at_site(path, data, 1).data[0], made[1])


@pytest.mark.parametrize("name", ["{secret}", "../secret.h5", "link.h5"])
@pytest.mark.parametrize("shape", [(2, *SHAPE), (2, SHAPE[0] // 2, SHAPE[1])])
def test_sources_of_virtual_datasets_do_not_lead_out(
    data: Path, secret: Path, name: str, shape: tuple[int, ...]
) -> None:
    if shape[1:] != SHAPE:
        write_images(secret, counts(2, shape=shape[1:]))
    (data / "link.h5").symlink_to(secret)
    path = virtual(data / "x.h5", (name.format(secret=secret), shape))
    open_image(path)
    with pytest.raises(ForbiddenImageError, match="outside the directories that the site allows"):
        open_at_site(path, data)


def test_sources_of_sources_do_not_lead_out(data: Path, secret: Path) -> None:
    half = (2, SHAPE[0] // 2, SHAPE[1])
    write_images(secret, counts(2, shape=half[1:]))
    virtual(data / "third.h5", (str(secret), half))
    virtual(data / "second.h5", ("third.h5", (2, *SHAPE)))
    path = virtual(data / "first.h5", ("second.h5", (2, *SHAPE)))
    open_image(path)
    with pytest.raises(ForbiddenImageError, match="outside the directories that the site allows"):
        open_at_site(path, data)


def test_a_source_is_not_looked_for_in_the_current_directory(
    data: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(secret.parent)
    half = (2, SHAPE[0] // 2, SHAPE[1])
    write_images(secret, counts(2, shape=half[1:]))
    path = virtual(data / "x.h5", ("secret.h5", half))
    with pytest.raises(ForbiddenImageError, match="outside the directories that the site allows"):
        open_at_site(path, data)


def test_a_pattern_of_sources_cannot_be_checked(data: Path) -> None:
    layout = h5py.VirtualLayout((2, *SHAPE), np.uint32, (None, *SHAPE))
    layout[0 : h5py.h5s.UNLIMITED : 1] = h5py.VirtualSource(
        "part_%b.h5", "entry/data/data", (1, *SHAPE), np.uint32
    )
    path = without_images(data / "x.h5")
    with h5py.File(path, "a") as file:
        file["entry/data"].create_virtual_dataset("data", layout)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ForbiddenImageError, match="by a pattern"):
        open_at_site(path, data)


def test_sources_inside_are_read(data: Path) -> None:
    made = counts(2)
    write_images(data / "other.h5", made)
    whole = virtual(data / "x.h5", ("other.h5", (2, *SHAPE)))
    np.testing.assert_array_equal(open_at_site(whole, data, 1).data[0], made[1])
    half = made[:, : SHAPE[0] // 2]
    write_images(data / "half.h5", np.ascontiguousarray(half))
    stitched = virtual(data / "y.h5", ("half.h5", half.shape))
    np.testing.assert_array_equal(open_at_site(stitched, data, 1).data[0][: SHAPE[0] // 2], half[1])


def test_raw_data_in_other_files_is_not_read(data: Path) -> None:
    (data.parent / "secret.txt").write_bytes(bytes(8 * SHAPE[0] * SHAPE[1]))
    path = without_images(data / "x.h5")
    with h5py.File(path, "a") as file:
        size = 8 * SHAPE[0] * SHAPE[1]
        file["entry/data"].create_dataset(  # pyright: ignore[reportAttributeAccessIssue]
            "data", (2, *SHAPE), np.uint32, external=[(str(data.parent / "secret.txt"), 0, size)]
        )
    with pytest.raises(ForbiddenImageError, match="not HDF5"):
        open_image(path)


def test_a_link_to_a_fifo_is_not_waited_for(data: Path) -> None:
    os.mkfifo(data / "fifo.h5")
    path = without_images(data / "x.h5")
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = h5py.ExternalLink("fifo.h5", "/entry/data/data")
    with pytest.raises(BrokenImageError, match=r"fifo\.h5, to which it links, is a FIFO"):
        open_image(path)


def test_dials_which_follows_any_link_gets_no_file_that_may_have_some(data: Path) -> None:
    path = write_images(data / "x.h5", counts(1))
    rule = PathRule({"parvis.allowed_directories": [str(data)]})
    with pytest.raises(ValueError, match="use the engine 'parvis'"):
        analyse(path, AnalysisParameters(engine="dials"), allowed=rule.predicate)
