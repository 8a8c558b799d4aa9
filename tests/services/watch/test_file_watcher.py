"""The file watcher: every mode, every output and payload."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from made_nxmx import describe
from parvis.config import Config
from parvis.service.testing import Run, run
from parvis_services.nxmx_files import Series
from parvis_services.simulate.header import Header
from parvis_services.simulate.nexus import NexusWriter
from parvis_services.stream.image_files import pixel_mask
from parvis_services.watch.file_watcher import FileWatcher
from watches import numbers, to_the_end

SHAPE = (24, 32)
HEADER = Header(
    detector="EIGER2 X",
    wavelength=0.98,
    distance=0.2,
    beam_xy=(16.0, 12.0),
    pixel_size=(75e-6, 75e-6),
    sensor_thickness=450e-6,
    count_cutoff=10_000,
)
OUTPUTS = ["first", "every", "every-7", "last", "select-30", "20", "any", "finally", "timeout", "error"]


def touch(directory: Path, numbers: Sequence[int]) -> str:
    """Make empty image files and return their pattern."""
    for number in numbers:
        (directory / f"grid_{number:05d}.cbf").touch()
    return str(directory / "grid_%05d.cbf")


def watch(
    parameters: Mapping[str, Any], payload: Any = None, outputs: Sequence[str] = OUTPUTS, **options: Any
) -> Run:
    return run(FileWatcher, payload, parameters=parameters, outputs=outputs, **options)


def watch_to_the_end(parameters: Mapping[str, Any], outputs: Sequence[str] = OUTPUTS) -> dict[str, list[Any]]:
    """Follow the checkpoints until there are no more; return everything sent, by output."""
    return to_the_end(lambda payload: watch(parameters, payload, outputs))


def numbers_in_list(images: Sequence[Mapping[str, Any]]) -> list[int]:
    return [image["file-list-index"] for image in images]


def test_two_hundred_files_go_to_every_output_they_belong_to(tmp_path: Path) -> None:
    pattern = touch(tmp_path, range(1, 201))
    parameters = {"pattern": pattern, "pattern-start": 1, "pattern-end": 200, "burst-limit": 40}
    sent = watch_to_the_end(parameters)
    assert numbers(sent["every"]) == list(range(1, 201))
    assert numbers(sent["first"]) == [1]
    assert numbers(sent["last"]) == [200]
    assert numbers(sent["every-7"]) == list(range(1, 201, 7))
    assert numbers(sent["select-30"])[:3] == [1, 7, 14]
    assert numbers(sent["20"]) == [20]
    assert sent["any"] == [{"files-expected": 200, "files-seen": 200}]
    assert sent["finally"] == [{"files-expected": 200, "files-seen": 200, "success": True}]
    assert sent["timeout"] == sent["error"] == []


def test_a_payload_says_where_the_file_is_and_when_it_was_seen(tmp_path: Path) -> None:
    pattern = touch(tmp_path, [7])
    look = watch({"pattern": pattern, "pattern-start": 7, "pattern-end": 7})
    (image,) = look.sent("first")
    seen_at = image.pop("file-seen-at")
    assert image == {"file": pattern % 7, "file-number": 1, "file-pattern-index": 7}
    assert isinstance(seen_at, float)


def test_a_directory_may_end_in_a_slash_or_not(tmp_path: Path) -> None:
    pattern = touch(tmp_path, [1]).replace("/grid", "//grid")
    (image,) = watch({"pattern": pattern, "pattern-start": 1, "pattern-end": 1}).sent("first")
    assert image["file"] == str(tmp_path / "grid_00001.cbf")


def test_a_burst_looks_at_no_more_than_its_limit_and_comes_back_at_once(tmp_path: Path) -> None:
    pattern = touch(tmp_path, range(1, 11))
    look = watch({"pattern": pattern, "pattern-start": 1, "pattern-end": 10, "burst-limit": 4})
    assert numbers(look.sent("every")) == [1, 2, 3, 4]
    (checkpoint,) = look.checkpoints
    assert checkpoint.payload["filewatcher-status"]["seen-files"] == 4
    assert checkpoint.delay == 0


def test_a_missing_file_holds_up_those_behind_it(tmp_path: Path) -> None:
    pattern = touch(tmp_path, [1, 2, 4, 5])
    look = watch({"pattern": pattern, "pattern-start": 1, "pattern-end": 5})
    assert numbers(look.sent("every")) == [1, 2]
    again = watch(
        {"pattern": pattern, "pattern-start": 1, "pattern-end": 5}, payload=look.checkpoints[0].payload
    )
    assert again.sent("every") == []
    assert again.checkpoints[0].delay == 1


def test_the_pause_between_looks_is_that_of_the_recipe(tmp_path: Path) -> None:
    pattern = touch(tmp_path, [1])
    look = watch({"pattern": pattern, "pattern-start": 1, "pattern-end": 5, "burst-wait": 3})
    assert look.checkpoints[0].delay == 3


def test_a_time_out_names_the_missing_file_and_ends_the_watch(tmp_path: Path) -> None:
    pattern = touch(tmp_path, [1])
    status = {"seen-files": 1, "start-time": 1000.0, "last-seen": 1001.0}
    look = watch(
        {"pattern": pattern, "pattern-start": 1, "pattern-end": 3, "timeout": 60},
        payload={"filewatcher-status": status},
    )
    assert [sent.output for sent in look.everything] == ["timeout", "any", "finally"]
    assert look.sent("timeout") == [
        {"file": pattern % 2, "file-number": 2, "file-pattern-index": 2, "success": False}
    ]
    assert look.sent("any") == [{"files-expected": 3, "files-seen": 1}]
    assert look.sent("finally") == [{"files-expected": 3, "files-seen": 1, "success": False}]


def test_the_first_file_has_a_time_out_of_its_own(tmp_path: Path) -> None:
    parameters = {
        "pattern": str(tmp_path / "%d"),
        "pattern-start": 1,
        "pattern-end": 3,
        "timeout": 1e9,
        "timeout-first": 1,
    }
    look = watch(parameters, payload={"filewatcher-status": {"seen-files": 0, "start-time": 1000.0}})
    assert [sent.output for sent in look.everything] == ["timeout", "finally"]


def test_a_list_of_files_is_watched_in_its_order(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in "jihgfedcba"]
    for file in files:
        Path(file).touch()
    outputs = ["every-2", "select-3", "first", "finally"]
    sent = watch_to_the_end({"list": files, "burst-limit": 3}, outputs)
    assert numbers_in_list(sent["every-2"]) == [1, 3, 5, 7, 9]
    assert numbers_in_list(sent["select-3"]) == [1, 6, 10]
    assert sent["first"][0]["file"] == files[0]
    assert sent["finally"] == [{"files-expected": 10, "files-seen": 10, "success": True}]


def test_a_list_of_nothing_ends_at_once() -> None:
    look = watch({"list": [None]})
    assert [(sent.output, sent.payload) for sent in look.everything] == [
        ("finally", {"files-expected": 0, "files-seen": 0, "success": True})
    ]


def test_a_list_with_an_empty_entry_is_an_error_that_the_recipe_hears_of(tmp_path: Path) -> None:
    look = watch({"list": [str(tmp_path / "a"), None, str(tmp_path / "b")]})
    assert [sent.output for sent in look.everything] == ["error", "any", "finally"]
    assert "entry 2" in look.sent("error")[0]["reason"]
    assert look.sent("finally")[0]["success"] is False


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({}, "one of pattern, list and hdf5"),
        ({"pattern": "/data/%05d.cbf"}, "pattern-start and pattern-end"),
        ({"pattern": "/data/%05d.cbf", "pattern-start": "one", "pattern-end": 3}, "pattern-start 'one'"),
        ({"pattern": "/data/grid.cbf", "pattern-start": 1, "pattern-end": 3}, "exactly one number"),
        ({"pattern": "/data/%s.cbf", "pattern-start": 1, "pattern-end": 3}, "exactly one number"),
        ({"pattern": "/data/%999999999d", "pattern-start": 1, "pattern-end": 3}, "exactly one number"),
        ({"pattern": "/data/%05d.cbf", "pattern-start": 5, "pattern-end": 3}, "no range"),
        ({"pattern": "data/%05d.cbf", "pattern-start": 1, "pattern-end": 3}, "not an absolute path"),
        ({"pattern": "/d/%05d\0", "pattern-start": 1, "pattern-end": 3}, "not an absolute path"),
        ({"list": ["/data/a"], "burst-limit": "lots"}, "burst-limit 'lots'"),
    ],
)
def test_bad_parameters_are_rejected_with_what_is_wrong(parameters: dict[str, Any], complaint: str) -> None:
    look = watch(parameters)
    assert look.outcome.result == "reject"
    assert complaint in look.outcome.reason


def site(directory: Path) -> Config:
    """A site that allows one directory."""
    return Config(storage={"parvis.allowed_directories": [str(directory)]})


def test_paths_outside_what_the_site_allows_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "away").symlink_to(tmp_path)
    for name in (tmp_path / "secret", tmp_path / "data" / "away" / "secret"):
        look = watch({"list": [str(name)]}, config=site(tmp_path / "data"))
        assert look.outcome.result == "reject"
        assert "parvis.allowed_directories" in look.outcome.reason


def test_a_path_with_dots_in_it_is_rejected_anywhere(tmp_path: Path) -> None:
    look = watch({"list": [str(tmp_path / "data" / ".." / "secret")]})
    assert look.outcome.result == "reject"
    assert "'..'" in look.outcome.reason


def test_every_name_of_a_pattern_is_checked_when_it_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").touch()
    pattern = touch(tmp_path / "data", [1])
    (tmp_path / "data" / "grid_00002.cbf").symlink_to(tmp_path / "secret")
    parameters = {"pattern": pattern, "pattern-start": 1, "pattern-end": 3, "burst-limit": 1}
    first = watch(parameters, config=site(tmp_path / "data"))
    assert numbers(first.sent("every")) == [1]
    second = watch(parameters, first.checkpoints[0].payload, config=site(tmp_path / "data"))
    assert second.outcome.result == "reject"
    assert "grid_00002.cbf" in second.outcome.reason


def test_names_that_are_not_looked_at_yet_cost_nothing(tmp_path: Path) -> None:
    """Only the names of a burst are checked: a name further on may be anything."""
    touch(tmp_path, [1])
    files = [str(tmp_path / "grid_00001.cbf"), "not absolute"]
    look = watch({"list": files, "burst-limit": 1}, config=site(tmp_path))
    assert numbers_in_list(look.sent("every")) == [1]
    again = watch({"list": files}, look.checkpoints[0].payload, config=site(tmp_path))
    assert again.outcome.result == "reject"


def test_an_hdf5_file_may_not_link_to_images_outside_what_the_site_allows(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with nexus(tmp_path, 3) as detector:
        link = tmp_path / "data" / "grid_1.nxs"
        with h5py.File(link, "w") as file:
            describe(file)
            file["entry/data/data"] = h5py.ExternalLink(str(detector.series.master), "/entry/data/data")
        assert numbers(watch({"hdf5": str(link)}).sent("every")) == [1, 2, 3]
        look = watch({"hdf5": str(link)}, config=site(tmp_path / "data"))
    assert look.outcome.result == "reject"
    assert "outside the directories that the site allows" in look.outcome.reason


def test_a_fifo_is_no_hdf5_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "grid_1.nxs")
    look = watch({"hdf5": str(tmp_path / "grid_1.nxs")})
    assert look.outcome.result == "reject"
    assert "is a FIFO" in look.outcome.reason


def nexus(directory: Path, images: int, *, linked: bool = True, written: int | None = None) -> NexusWriter:
    """A detector that writes images to an HDF5 file and has written some of them."""
    frames = [np.full(SHAPE, number, dtype=np.int32) for number in range(images)]
    series = Series(directory, "grid_1", images, SHAPE, images_per_file=4, linked=linked)
    writer = NexusWriter(series, HEADER, pixel_mask(frames[0]))
    for frame in frames[:written]:
        writer.append(frame)
    return writer


@pytest.mark.parametrize("linked", [True, False])
def test_images_of_an_hdf5_file_are_told_of_as_they_are_written(tmp_path: Path, linked: bool) -> None:
    with nexus(tmp_path, 10, linked=linked, written=6) as detector:
        master = str(detector.series.master)
        look = watch({"hdf5": master})
        assert numbers(look.sent("every")) == [1, 2, 3, 4, 5, 6]
        status = look.checkpoints[0].payload
        assert status["filewatcher-status"]["seen-images"] == 6
        for number in range(6, 10):
            detector.append(np.full(SHAPE, number, dtype=np.int32))
        rest = watch({"hdf5": master}, status)
    assert numbers(rest.sent("every")) == [7, 8, 9, 10]
    assert rest.sent("finally") == [{"images-expected": 10, "images-seen": 10, "success": True}]


def test_a_payload_of_an_hdf5_image_says_which_frame_it_is(tmp_path: Path) -> None:
    with nexus(tmp_path, 3) as detector:
        (image,) = watch({"hdf5": str(detector.series.master)}).sent("last")
    image.pop("file-seen-at")
    assert image == {
        "hdf5": str(detector.series.master),
        "hdf5-index": 2,
        "file": str(detector.series.master),
        "file-number": 3,
        "parameters": {"scan_range": "3,3"},
    }


def test_an_hdf5_file_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    parameters = {"hdf5": str(tmp_path / "grid_1.nxs"), "timeout": 60}
    look = watch(parameters)
    assert look.everything == look.checkpoints
    assert look.checkpoints[0].delay == 1
    late = {"filewatcher-status": {"seen-images": 0, "start-time": 1000.0}}
    end = watch(parameters, late)
    assert [sent.output for sent in end.everything] == ["timeout", "finally"]
    assert end.sent("finally")[0]["success"] is False


def test_a_file_that_is_no_stack_of_images_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "other.h5"
    with h5py.File(file, "w") as content:
        content["number"] = 1
    look = watch({"hdf5": str(file)})
    assert look.outcome.result == "reject"
    assert "other.h5" in look.outcome.reason
