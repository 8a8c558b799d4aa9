"""Simulated collections: which files come, in which order, and when."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from typing import Any

import fabio
import h5py
import hdf5plugin  # noqa: F401  # pyright: ignore[reportUnusedImport] - its filters unpack the images
import numpy as np
import pytest

from parvis_services.simulate.collect import GridScan, Pace, collect, copy_frames
from parvis_services.simulate.crystal import Blob, Sample
from parvis_services.simulate.detectors import detector
from parvis_services.simulate.placing import Slowly
from parvis_services.xray.centring import centre_2d
from parvis_services.xray.grid import Grid

SMALL = detector("pilatus-300k")
LINE = GridScan(Grid(3, 1), SMALL, seed=2)


def brightness(image: np.ndarray) -> int:
    """Pixels far above any background, as a measure of how many spots there are."""
    return int((image > 40).sum())


@pytest.mark.parametrize("kind", ["cbf", "cbf.gz", "cbf.bz2"])
def test_a_scan_becomes_cbf_files(tmp_path, kind):
    seen: list[int] = []
    collected = collect(LINE, tmp_path / "new", "scan_2", kind=kind, seen=seen.append)
    assert seen == [1, 2, 3]
    assert collected.pattern is not None
    assert collected.pattern == f"{tmp_path}/new/scan_2_%05d.{kind}"
    assert [str(path) for path in collected.files] == [collected.pattern % n for n in seen]
    assert sorted((tmp_path / "new").iterdir()) == collected.files
    for path, image in zip(collected.files, LINE.images(), strict=True):
        with fabio.open(str(path)) as file:
            np.testing.assert_array_equal(file.data, image)


def test_the_same_scan_becomes_the_same_nexus_images(tmp_path):
    collected = collect(LINE, tmp_path, kind="nexus", images_per_file=2)
    assert collected.master is not None
    assert [path.name for path in collected.files] == ["grid_1_000001.h5", "grid_1_000002.h5"]
    with h5py.File(collected.master) as opened:
        file: Any = opened
        data, mask = file["/entry/data/data"], file["/entry/instrument/detector/pixel_mask"][()]
        for number, image in enumerate(LINE.images()):
            np.testing.assert_array_equal(data[number][mask == 0], image[mask == 0])
            assert (image[mask != 0] < 0).all()


@pytest.mark.parametrize("orientation", ["horizontal", "vertical"])
def test_images_follow_the_snake_and_show_the_crystal(orientation):
    grid = Grid(6, 5, True, orientation)
    scan = GridScan(grid, SMALL, Sample(Blob((4.2, 1.6), (2.6, 2.4))), seed=3)
    counts = [brightness(image) for image in scan.images()]
    found = centre_2d(grid, counts, (1, 1), (0, 0))
    assert found.centre_of_mass == pytest.approx(scan.mounted.centre, abs=0.5)


def test_slow_files_are_whole_in_the_end(tmp_path):
    collected = collect(GridScan(Grid(1, 1), SMALL), tmp_path, slowly=Slowly(pieces=3, pause=0.001))
    with fabio.open(str(collected.files[0])) as file:
        assert file.data.shape == SMALL.shape


def test_the_resolution_sets_the_distance():
    near, far = (GridScan(Grid(1, 1), SMALL, resolution=d).header.distance for d in (1.5, 3.0))
    half = min(SMALL.shape) / 2 * SMALL.pixel_size
    two_theta = np.arctan(half / far)
    assert 0.9795 / (2 * np.sin(two_theta / 2)) == pytest.approx(3.0, abs=0.01)
    assert near < far


def test_pace():
    assert list(islice(Pace(rate=10).times(), 4)) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert list(islice(Pace().times(), 3)) == [0, 0, 0]
    times = list(islice(Pace(rate=10, jitter=0.5, seed=1).times(), 200))
    steps = np.diff(times)
    assert times == list(islice(Pace(rate=10, jitter=0.5, seed=1).times(), 200))
    assert 0.05 <= steps.min() < 0.06
    assert 0.14 < steps.max() <= 0.15


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": -1}, {"jitter": 1.5}, {"jitter": -0.1}])
def test_impossible_paces_are_refused(wrong):
    with pytest.raises(ValueError, match=r"rate|jitter"):
        Pace(**wrong)


@pytest.mark.parametrize("prefix", ["", "../x", "a/b", ".hidden", "x" * 200, "a b", "%d", "é"])
def test_prefixes_stay_in_the_directory(tmp_path, prefix):
    with pytest.raises(ValueError, match="file names"):
        collect(LINE, tmp_path / "new", prefix)
    assert not (tmp_path / "new").exists()


def test_a_second_collection_does_not_overwrite_the_first(tmp_path):
    first = collect(GridScan(Grid(1, 1), SMALL, seed=1), tmp_path)
    before = first.files[0].read_bytes()
    with pytest.raises(FileExistsError, match=r"grid_1_00001\.cbf"):
        collect(GridScan(Grid(1, 1), SMALL, seed=2), tmp_path)
    assert first.files[0].read_bytes() == before


def test_existing_frames_are_copied_as_they_are(tmp_path):
    originals = []
    for number in (3, 1, 2):
        path = tmp_path / "from" / f"thau_{number:04d}.cbf.bz2"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"BZh9 not really" * number)
        originals.append(path)
    there: list[list[str]] = []
    copies = copy_frames(
        originals,
        tmp_path / "to",
        [0, 0.001],
        lambda _: there.append([p.name for p in (tmp_path / "to").iterdir()]),
    )
    assert [copy.name for copy in copies] == [path.name for path in originals]
    assert [copy.read_bytes() for copy in copies] == [path.read_bytes() for path in originals]
    assert [len(names) for names in there] == [1, 2, 3]


def test_copying_refuses_two_of_a_name_and_what_is_there(tmp_path):
    first, second = tmp_path / "a" / "x.cbf", tmp_path / "b" / "x.cbf"
    for path in (first, second):
        path.parent.mkdir()
        path.write_bytes(b"data")
    with pytest.raises(ValueError, match=r"two of the files are called x\.cbf"):
        copy_frames([first, second], tmp_path / "to")
    with pytest.raises(FileExistsError):
        copy_frames([first], second.parent)


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parvis_services.simulate", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_line(tmp_path):
    done = simulate(
        "grid", str(tmp_path), "--columns", "2", "--rows", "1", "--detector", "pilatus-300k", "--json"
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert written["images"] == 2
    assert written["files"] == [f"{tmp_path}/grid_1_{n:05d}.cbf" for n in (1, 2)]
    assert len(written["centre_box"]) == 2
    copied = simulate("copy", *written["files"], str(tmp_path / "to"), "--interval", "0")
    assert copied.returncode == 0, copied.stderr
    assert len(list((tmp_path / "to").iterdir())) == 2


def test_the_command_line_says_what_is_wrong(tmp_path):
    done = simulate("grid", str(tmp_path), "--detector", "mar345")
    assert done.returncode == 2
    assert "'mar345' is not one of 'pilatus-300k'" in done.stderr
