"""`parvis analyse`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from made_nxmx import SHAPE, counts, describe, write_images
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
    assert "there is no frame 7: it has 5, numbered from 0" in result.stderr


def linked(path: Path, *data_files: str, virtual: bool) -> str:
    """A master file of data files of two frames each."""
    import h5py

    with h5py.File(path, "w") as file:
        describe(file)
        entry_data = file["entry/data"]
        assert isinstance(entry_data, h5py.Group)
        whole = h5py.VirtualLayout((2 * len(data_files), *SHAPE), "u4")
        for number, name in enumerate(data_files):
            with h5py.File(path.parent / name, "w") as data_file:
                data_file["data"] = counts(2)
            whole[2 * number : 2 * number + 2] = h5py.VirtualSource(name, "data", (2, *SHAPE))
            if not virtual:
                entry_data[f"data_{number + 1:06}"] = h5py.ExternalLink(name, "data")
        if virtual:
            entry_data.create_virtual_dataset("data", whole)
    return str(path)


@pytest.mark.parametrize("virtual", [True, False])
@pytest.mark.parametrize("frames", [[], ["--frames", "0:3"], ["--frames", "2"]])
@pytest.mark.parametrize("damage", ["missing", "cut"])
@pytest.mark.parametrize("first_too", [True, False])
def test_the_data_file_that_is_missing_or_damaged_is_named(
    tmp_path: Path, virtual: bool, frames: list[str], damage: str, first_too: bool
):
    master = linked(tmp_path / "x.nxs", "x_000001.h5", "x_000002.h5", virtual=virtual)
    for name in ["x_000001.h5"] * first_too + ["x_000002.h5"]:
        data = tmp_path / name
        whole = data.read_bytes()
        data.unlink()
        if damage == "cut":
            data.write_bytes(whole[:3000])
    result = run(master, "--json", *frames)
    assert result.exit_code == 1
    assert len(lines(result)) == (0 if first_too or frames == ["--frames", "2"] else 2)
    (error,) = result.stderr.splitlines()
    says = "is not there" if damage == "missing" else "is shorter than it should be"
    assert f"x_00000{1 if first_too else 2}.h5, to which it links, {says}" in error


def test_brackets_of_a_name_stay(tmp_path: Path, cbf: str):
    named = Path(cbf).rename(tmp_path / "x[bold]_0001.cbf")
    assert "x[bold]_0001.cbf" in run(str(named)).stdout


def test_what_was_done_is_shown_when_interrupted(cbf: str):
    many = [cbf] * 20_000
    program = "from parvis.cli import main; main()"
    master, slave = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program, "analyse", *many], stdout=subprocess.PIPE, stderr=slave, text=True
    ) as process:
        os.close(slave)
        shown = b""
        while b" 1 done" not in shown and b"0 done" not in shown:
            shown += os.read(master, 4096)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 130
    assert 1 <= output.count("grid_0001.cbf") < len(many)


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
