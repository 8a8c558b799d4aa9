"""`python -m parvis_services.simulate`: a scan from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from parvis_services.simulate.__main__ import main
from parvis_services.simulate.detectors import DETECTORS


@pytest.mark.parametrize("command", [[], ["grid"], ["copy"]])
def test_help_fits_a_terminal(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "-h"], terminal_width=80)
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", ["grid", "copy"])
def test_every_option_is_explained(command: str) -> None:
    options = [each for each in main.commands[command].params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []


def test_the_help_lists_the_detectors() -> None:
    text = " ".join(CliRunner().invoke(main, ["grid", "-h"]).stdout.split())
    assert all(name in text for name in DETECTORS)


def test_an_unknown_detector_is_refused_with_those_there_are(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["grid", str(tmp_path), "--detector", "film"])
    assert result.exit_code == 2
    assert "pilatus-1m" in result.stderr


def test_a_scan_is_written(tmp_path: Path) -> None:
    arguments = ["grid", str(tmp_path), "--columns", "2", "--rows", "1", "--json"]
    written = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert written["images"] == 2
    assert all(Path(file).is_file() for file in written["files"])
