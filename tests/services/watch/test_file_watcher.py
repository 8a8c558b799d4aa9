"""The file watcher: every mode, every output and payload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from parvis.config import Config
from parvis.service.testing import Run, run
from parvis_services.watch.file_watcher import FileWatcher

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
    sent: dict[str, list[Any]] = {output: [] for output in outputs}
    payload: Any = None
    for _ in range(1000):
        look = watch(parameters, payload, outputs)
        assert look.outcome.result == "done", look.outcome
        for output in outputs:
            sent[output] += look.sent(output)
        if not look.checkpoints:
            return sent
        payload = look.checkpoints[0].payload
    raise AssertionError("the watch does not end")


def numbers(images: Sequence[Mapping[str, Any]]) -> list[int]:
    return [image["file-number"] for image in images]


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
    assert [image["file-list-index"] for image in sent["every-2"]] == [1, 3, 5, 7, 9]
    assert [image["file-list-index"] for image in sent["select-3"]] == [1, 6, 10]
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


def test_paths_outside_what_the_site_allows_are_rejected(tmp_path: Path) -> None:
    config = Config(storage={"parvis.allowed_directories": [str(tmp_path / "data")]})
    parameters = {"list": [str(tmp_path / "data" / ".." / "secret")]}
    look = watch(parameters, config=config)
    assert look.outcome.result == "reject"
    assert "parvis.allowed_directories" in look.outcome.reason
