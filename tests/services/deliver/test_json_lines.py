"""JSON lines: what is written, once, whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("torn", "kept"), [(b'{"n": 1}\n{"n":', [{"n": 1}]), (b'{"n": 1}', [{"n": 1}]), (b'{"n":', [])]
)
def test_what_a_killed_writer_left_of_a_line_is_put_right(
    tmp_path: Path, torn: bytes, kept: list[Any]
) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(torn)
    run(JSONLines, {"n": 2}, parameters={"output_filename": str(file)})
    assert lines(file) == [*kept, {"n": 2}]


@pytest.mark.parametrize(
    "end", [b"a note without an end", b'{"n":1}\nno JSON\n{"n":', b'{"n":"' + b"x" * 2**20, b'["n",']
)
def test_an_unfinished_line_that_may_be_of_somebody_else_is_left_alone(tmp_path: Path, end: bytes) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(b'{"n": 1}\n' + end)
    run(JSONLines, {"n": 2}, parameters={"output_filename": str(file)})
    assert file.read_bytes() == b'{"n": 1}\n' + end + b'\n{"n":2}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08",
        b"Notes\nof somebody",
        b"no line",
        b"[1]\n",
        b"\n",
        b'{\n  "pretty": 1\n}\n',
        b"x" * 3 * 2**20,
    ],
)
def test_a_file_of_something_else_is_not_touched(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.h5"
    file.write_bytes(content)
    outcome = run(JSONLines, {"n": 2}, parameters={"output_filename": str(file)}).outcome
    assert outcome.result == "reject"
    assert "not a JSON lines file" in outcome.reason
    assert file.read_bytes() == content


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jsonl")
    outcome = run(JSONLines, {"n": 2}, parameters={"output_filename": str(tmp_path / "x.jsonl")}).outcome
    assert outcome.result == "reject"
    assert "is a FIFO" in outcome.reason


@pytest.mark.parametrize(
    ("wrong", "result"),
    [
        ("{tmp}/taken/x.jsonl", "retry"),
        ("relative", "reject"),
        ("/x/../y", "reject"),
        ("/nul\0", "reject"),
        ("{{unfilled}}", "reject"),
        ("{tmp}/taken", "reject"),
    ],
)
def test_what_is_wrong_with_one_file_costs_the_others_nothing(
    tmp_path: Path, wrong: str, result: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("text")
    good = str(tmp_path / "good.jsonl")
    done = run(
        JSONLines,
        *[
            {"n": number, "parameters": {"output_filename": name}}
            for number, name in enumerate([good, wrong.format(tmp=tmp_path), good])
        ],
        parameters={"include": ["n"]},
    )
    assert [outcome.result for outcome in done.outcomes] == ["done", result, "done"]
    assert lines(tmp_path / "good.jsonl") == [{"n": 0}, {"n": 2}]
    assert "one by one" not in caplog.text


IN_A_CHILD = """
import resource, sys
from parvis.service.testing import run
from parvis_services.deliver.json_lines import JSONLines
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
payloads = [{"n": number, "text": "x" * 40} for number in range(3)]
done = run(JSONLines, *payloads, parameters={"output_filename": sys.argv[1]})
print({outcome.result for outcome in done.outcomes})
"""


def test_what_did_not_fit_on_the_disk_is_not_there_twice_later(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk, in a process of its own."""
    file = tmp_path / "results.jsonl"
    file.write_text('{"n":0}\n')
    command = [sys.executable, "-c", IN_A_CHILD, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "{'retry'}\n"
    assert file.read_text() == '{"n":0}\n'


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
