"""`parvis demo`, from its first line to its last."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from real_data import real_data


def demo(*arguments: object, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parvis", "demo", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def results(directory: Path, *arguments: object) -> dict[str, Any]:
    done = demo("--json", "--directory", directory, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_crystal_is_found_where_it_was_put(tmp_path: Path) -> None:
    found = results(tmp_path / "demo", "--seed", 3)
    assert found["success"] is True
    assert len(found["images"]) == found["rows"] == found["datagrams"] == 140
    centre = found["centre"]["centre_x_box"], found["centre"]["centre_y_box"]
    assert math.dist(centre, found["true_centre_box"]) < 1.5
    assert max(image["n_spots_total"] for image in found["images"]) > 50
    with Image.open(found["files"]["picture"]) as picture:
        assert picture.size[0] > 500
    assert json.loads(Path(found["files"]["centre"]).read_text())["status"] == "ok"
    assert len(Path(found["files"]["images"]).read_text().splitlines()) == 140


def test_real_frames_are_analysed_as_well(tmp_path: Path) -> None:
    frames = real_data("thaumatin_grid")
    found = results(tmp_path / "demo", "--images", f"{frames}/*_000?.cbf.bz2")
    assert [image["n_spots_total"] for image in found["images"]][:3:2] == [287, 1373]
    assert found["centre"]["best_image"] == 3


def test_what_is_printed_for_people_says_what_to_try_next(tmp_path: Path) -> None:
    done = demo("--seed", 3, "--directory", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "of 140 images analysed" in done.stderr
    assert "The crystal's centre is at box" in done.stdout
    assert "140 rows in ISPyB, 140 datagrams" in done.stdout
    following = [line.split() for line in done.stdout.splitlines() if " -m parvis " in line]
    assert [command[3] for command in following] == ["analyse", "find", "recipe", "logs", "trace"]
    for command in following:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert tried.returncode == 0, f"{command}: {tried.stderr}"
        if command[3] == "logs":
            assert "XRayCentring" in tried.stdout, "nobody logged anything"
        if command[3] == "analyse":
            assert " 326 " in tried.stdout, "not the image with the most spots"
    assert done.stdout.splitlines()[-1].endswith(f" MB. To remove it: rm -r {tmp_path / 'demo'}")


def test_images_that_cannot_be_analysed_are_named_with_the_reason(tmp_path: Path) -> None:
    frames = [tmp_path / f"grid_1_{number:05d}.cbf" for number in (1, 2, 3)]
    scan = [sys.executable, "-m", "parvis_services.simulate", "grid", str(tmp_path), "--columns", "3"]
    subprocess.run([*scan, "--rows", "1"], check=True, capture_output=True)
    content = frames[1].read_bytes()
    start = content.index(b"\x0c\x1a\x04\xd5") + 4
    frames[1].write_bytes(content[:start] + b"\x80\xff\x7f" * 100 + content[start + 300 :])
    # As a shell puts them where a pattern has no quotes.
    done = demo("--images", *frames, "--directory", tmp_path / "demo")
    assert done.returncode == 1
    assert "Not analysed: 1 of 3 images: grid_1_00002.cbf" in done.stdout
    assert "PerImageAnalysis set a message aside" in done.stdout
    assert "the centring needs every image" in done.stdout
    assert "No crystal" not in done.stdout


def test_files_without_the_option_are_refused() -> None:
    done = demo("frame_1.cbf")
    assert done.returncode == 2
    assert "frames come after --images" in done.stderr


def test_frames_that_cannot_be_read_are_refused_before_anything_starts(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"a_{number}.cbf").write_text("no image\n")
    done = demo("--images", tmp_path / "*.cbf")
    assert done.returncode == 1
    assert "a_1.cbf is not a CBF image" in done.stderr
    assert "Starting" not in done.stderr


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "there are no files"),
        (["a_1.cbf", "a_3.cbf"], "a_3.cbf does not follow"),
        (["a_1.cbf", "b_2.cbf"], "b_2.cbf does not follow"),
        (["notes.txt"], "not a numbered CBF file"),
    ],
)
def test_frames_that_are_no_scan_are_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    done = demo("--images", tmp_path / "*")
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    done = demo("--directory", tmp_path)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
