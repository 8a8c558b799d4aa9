"""JSON lines: what is written, once, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parvis.config import Config
from parvis.service.testing import run
from parvis_services.deliver.json_lines import JSONLines


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_payload_becomes_a_line_in_the_order_of_arrival(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.jsonl"
    run(JSONLines, {"file-number": 1}, {"file-number": 2}, parameters={"output_filename": str(file)})
    run(JSONLines, {"file-number": 3}, parameters={"output_filename": str(file)})
    assert lines(file) == [{"file-number": 1}, {"file-number": 2}, {"file-number": 3}]


def test_only_the_keys_asked_for_are_written(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    payload = {"a": 1, "b": 2, "c": 3}
    run(
        JSONLines, payload, parameters={"output_filename": str(file), "include": ["a", "b"], "exclude": ["b"]}
    )
    assert lines(file) == [{"a": 1}]


def test_a_line_that_is_there_already_is_not_written_again_on_redelivery(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    parameters = {"output_filename": str(file)}
    run(JSONLines, {"n": 1}, {"n": 2}, parameters=parameters)
    run(JSONLines, {"n": 2}, {"n": 3}, parameters=parameters, redelivered=True)
    assert lines(file) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_equal_results_that_are_new_are_written(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    run(JSONLines, {"n": 1}, {"n": 1}, parameters={"output_filename": str(file)})
    assert lines(file) == [{"n": 1}, {"n": 1}]


@pytest.mark.parametrize("torn", [b'{"n": 1}\n{"n":', b'{"n": 1}'])
def test_what_a_killed_writer_left_of_a_line_is_put_right(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(torn)
    run(JSONLines, {"n": 2}, parameters={"output_filename": str(file)})
    assert lines(file) == [{"n": 1}, {"n": 2}]


def test_a_file_that_cannot_be_written_is_tried_again_later(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    outcome = run(
        JSONLines, {"n": 1}, parameters={"output_filename": str(tmp_path / "taken" / "results.jsonl")}
    ).outcome
    assert outcome.result == "retry"
    assert "taken" in outcome.reason


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("results.jsonl", "absolute"), ("{ispyb_results_directory}/x.jsonl", "placeholder")],
)
def test_a_name_that_is_no_path_is_rejected(name: str, complaint: str) -> None:
    outcome = run(JSONLines, {"n": 1}, parameters={"output_filename": name}).outcome
    assert outcome.result == "reject"
    assert complaint in outcome.reason


def test_paths_outside_what_the_site_allows_are_rejected(tmp_path: Path) -> None:
    config = Config(storage={"parvis.allowed_directories": [str(tmp_path / "data")]})
    parameters = {"output_filename": str(tmp_path / "elsewhere.jsonl")}
    assert run(JSONLines, {"n": 1}, parameters=parameters, config=config).outcome.result == "reject"
    assert not (tmp_path / "elsewhere.jsonl").exists()
