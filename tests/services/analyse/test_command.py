"""`parvis analyse`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from made_nxmx import SHAPE, counts, write_images
from parvis_services.analyse.command import analyse
from parvis_services.simulate.cbf import write_cbf
from parvis_services.simulate.header import Header
from parvis_services.xray.analysis import analyse as analyse_image
from parvis_services.xray.parameters import AnalysisParameters

HEADER = Header("PILATUS", 1.0, 0.1, (75.0, 60.0), (1e-3, 1e-3), 450e-6, 60000)


@pytest.fixture
def cbf(tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    image = random.poisson(2, (120, 150)).astype(np.int32)
    for _ in range(40):
        y, x = random.integers(5, 110, 2)
        image[y : y + 2, x : x + 3] = random.integers(100, 40_000)
    write_cbf(tmp_path / "grid_0001.cbf", image, HEADER)
    return str(tmp_path / "grid_0001.cbf")


@pytest.fixture
def master(tmp_path: Path) -> str:
    return str(write_images(tmp_path / "x_master.h5", counts(5)))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(analyse, [*arguments])


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_one_json_object_a_line(cbf):
    result = run(cbf, "--json")
    assert result.exit_code == 0
    assert lines(result) == [{"file": cbf, **analyse_image(cbf).as_dict()}]
    assert result.stderr == ""


def test_options_reach_the_analysis(cbf):
    (found,) = lines(
        run(cbf, "--json", "--algorithm", "dispersion_extended", "--d-min", "1.6", "--d-max", "9")
    )
    parameters = AnalysisParameters(algorithm="dispersion_extended", d_min=1.6, d_max=9)
    assert found == {"file": cbf, **analyse_image(cbf, parameters).as_dict()}
    assert found != {"file": cbf, **analyse_image(cbf).as_dict()}


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["1:3"], [1, 2]),
        (["3:"], [3, 4]),
        ([":2"], [0, 1]),
        (["4"], [4]),
        (["3:99"], [3, 4]),
    ],
)
def test_frames_of_a_master(master, frames, expected):
    result = run(master, "--json", *(["--frames", *frames] if frames else []))
    assert result.exit_code == 0
    assert [line["frame"] for line in lines(result)] == expected
    assert {line["file"] for line in lines(result)} == {master}


def test_a_table(cbf, master):
    result = run(cbf, master, "--frames", "0:2")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if "." in line and "Resolution" not in line]
    spots = analyse_image(cbf)
    assert rows[0][:3] == ["grid_0001.cbf", str(spots.n_spots_total), str(spots.n_spots_no_ice)]
    assert f"{spots.estimated_d_min:.2f}" in rows[0]
    assert [row[:2] for row in rows[1:]] == [["x_master.h5", "0"], ["x_master.h5", "1"]]
    assert rows[1][-1] == "-"  # no spots, no resolution


def test_bad_files_are_named_and_the_others_done(tmp_path, cbf, master):
    text = tmp_path / "notes.txt"
    text.write_text("not an image")
    cut = tmp_path / "cut.cbf"
    cut.write_bytes(Path(cbf).read_bytes()[:5000])
    result = run("missing.cbf", str(text), str(tmp_path), str(cut), cbf, master, "--json")
    assert result.exit_code == 1
    assert [line["file"] for line in lines(result)] == [cbf, *[master] * 5]
    errors = result.stderr.splitlines()
    assert len(errors) == 4
    assert errors[0] == "Error: missing.cbf: there is no such file"
    assert "notes.txt" in errors[1]
    assert "is a directory" in errors[2]
    assert "still being written, or cut short" in errors[3]


def test_a_broken_frame_spoils_no_other(master):
    import h5py

    with h5py.File(master, "a") as file:
        images = file["entry/data/data"]
        assert isinstance(images, h5py.Dataset)
        images.id.write_direct_chunk((2, 0, 0), b"garbage")
    result = run(master, "--json")
    assert result.exit_code == 1
    assert [line["frame"] for line in lines(result)] == [0, 1, 3, 4]
    assert "frame 2 is damaged" in result.stderr


def test_frames_still_to_be_written_are_told_once(tmp_path, master):
    import h5py

    with h5py.File(master, "a") as file:
        images = file["entry/data/data"]
        assert isinstance(images, h5py.Dataset)
        del file["entry/data/data"]
        stored = file.create_dataset("entry/data/data", (100, *SHAPE), "u4", chunks=(1, *SHAPE))
        stored[:3] = counts(3)
    result = run(master, "--json")
    assert result.exit_code == 1
    assert [line["frame"] for line in lines(result)] == [0, 1, 2]
    assert result.stderr == f"Error: {master}: frame 3 is not written yet\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--frames", "3:1", "x"], "not a range of frames"),
        (["--frames", "a:b", "x"], "not a range of frames"),
        (["--frames", "-3", "x"], "not a range of frames"),
        (["--d-min", "5", "--d-max", "4", "x"], "d_min (5.0 Å) must be less than d_max (4.0 Å)"),
        (["--d-max", "-1", "x"], "d_max"),
        (["--algorithm", "guess", "x"], "'guess' is not one of"),
        ([], "Usage"),
    ],
)
def test_wrong_usage(arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_frames_that_a_file_does_not_have(master):
    result = run(master, "--frames", "7:9")
    assert result.exit_code == 1
    assert "it has 5 frames, numbered from 0" in result.stderr


def test_the_command_is_part_of_parvis(cbf):
    """As a person calls it; help needs none of the heavy libraries."""
    parvis = [sys.executable, "-c", "from parvis.cli import main; main()"]
    done = subprocess.run([*parvis, "analyse", cbf, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["n_spots_total"] > 20
    program = (
        "import sys\n"
        "from parvis.cli import main\n"
        "main(['analyse', '--help'], standalone_mode=False)\n"
        "assert not {'numpy', 'numba', 'h5py', 'orjson'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "parvis analyse" in done.stdout
