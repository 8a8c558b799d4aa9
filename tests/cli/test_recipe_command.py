"""`parvis recipe check|draw|show`, as processes would call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from parvis.cli.recipe import recipe
from parvis.config import shipped_recipes
from parvis.service import registry

GRIDSCAN = "per-image-analysis-gridscan"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's own recipe directory, and a configuration that names it."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    config = tmp_path / "zocalo.yml"
    storage = {
        "plugin": "storage",
        "zocalo.recipe_directory": str(recipes),
        "parvis.external_queues": ["mimas*"],
    }
    config.write_text(
        json.dumps({"version": 1, "store": storage, "environments": {"live": ["store"], "default": "live"}})
    )
    for variable in ("ZOCALO_DEFAULT_ENV", "PARVIS_ENVIRONMENT", "PARVIS_RECIPE_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ZOCALO_CONFIG", str(config))
    return recipes


def run(*arguments: str) -> Result:
    return CliRunner().invoke(recipe, arguments, catch_exceptions=False)


def write(path: Path, **changes: Any) -> str:
    content = {
        "1": {"service": "Lines", "queue": "jsonlines", "parameters": {"output_filename": "/x"}},
        "start": [[1, {}]],
    }
    path.write_text(json.dumps(content | changes))
    return str(path)


def test_the_shipped_recipes_pass() -> None:
    names = sorted(path.stem for path in shipped_recipes().glob("*.json"))
    result = run("check", *names, "--given", "gda_host", "--given", "gda_port")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{name}: no problem found" for name in names]


def test_services_that_cannot_be_loaded_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "parvis_other-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: parvis-other\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[parvis.services]\nAway = parvis_no_such_module:Away\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.find_services.cache_clear()
    result = run("check", write(tmp_path / "right.json"), "--json")
    registry.find_services.cache_clear()
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["problems"] == []
    assert result.stderr.splitlines() == [
        "Note: Away cannot be loaded, so its queue is not known: "
        "ModuleNotFoundError: No module named 'parvis_no_such_module'"
    ]


def test_problems_are_printed_with_file_and_place(tmp_path: Path) -> None:
    wrong = write(tmp_path / "wrong.json", **{"2": {"queue": "jsonlnes", "comment": 1}})
    result = run("check", wrong)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f'{wrong}: node 2 "jsonlnes": nothing leads to it, so it would never run: '
        'name it in "start" or in an output',
        f'{wrong}: node 2 "jsonlnes": "queue": no service listens to "jsonlnes"; did you mean "jsonlines"? '
        "If a program outside Parvis does, list the queue under parvis.external_queues",
    ]


def test_warnings_alone_are_no_failure(tmp_path: Path) -> None:
    result = run("check", write(tmp_path / "double.json", start=[[1, {}], [1, {}]]))
    assert result.exit_code == 0
    assert "double.json: warning: start: leads to node 1 twice" in result.stdout


def test_json_is_for_programs(tmp_path: Path) -> None:
    right, wrong = write(tmp_path / "right.json"), write(tmp_path / "wrong.json", start=[])
    result = run("check", right, wrong, "--json")
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)
    assert first == {"recipe": right, "problems": []}
    assert second["recipe"] == wrong
    assert second["problems"][0] == {
        "where": "start",
        "text": "is empty, so nothing would happen; write [[number of a node, {}]]",
        "severity": "error",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.json", "nowhere.json: cannot be read: No such file or directory"),
        ("per-image-analysis-gridscam", 'did you mean "per-image-analysis-gridscan"?'),
        ("/etc", "/etc: cannot be read: Is a directory"),
        ("..", "cannot be the name of a recipe"),
    ],
)
def test_what_cannot_be_read_is_said_and_the_rest_is_checked(name: str, message: str) -> None:
    result = run("check", name, "per-image-analysis-rotation")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert "per-image-analysis-rotation: no problem found" in result.stdout
    assert run("draw", name).exit_code == 2
    assert run("show", name).exit_code == 2


def test_text_that_is_no_recipe_is_a_problem_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"1": {')
    for command in ("check", "draw", "show"):
        result = run(command, str(tmp_path / "broken.json"))
        assert result.exit_code == 1
        assert "broken.json: line 1, column 8: not JSON" in result.output


def test_recipes_of_the_site_come_first(site: Path) -> None:
    write(site / f"{GRIDSCAN}.json")
    assert json.loads(run("show", GRIDSCAN).stdout)["1"]["service"] == "Lines"
    known = json.loads(run("show", "--list", "--json").stdout)
    assert known[GRIDSCAN] == str(site / f"{GRIDSCAN}.json")
    assert Path(known["per-image-analysis-rotation"]).parent == shipped_recipes()
    assert f"{GRIDSCAN} " in run("show", "--list").stdout


def test_queues_of_others_are_configured(site: Path) -> None:
    started = {"2": {"queue": "mimas.held"}, "start": [[1, {}], [2, {}]]}
    assert run("check", write(site / "own.json", **started)).exit_code == 0


def test_a_broken_configuration_is_said(site: Path) -> None:
    (site.parent / "zocalo.yml").write_text("version: 7")
    result = run("check", GRIDSCAN)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")


def test_drawings(tmp_path: Path) -> None:
    assert run("draw", GRIDSCAN).stdout.startswith("● start → 1 File watcher  [filewatcher]\n")
    assert run("draw", GRIDSCAN, "--mermaid").stdout.startswith("flowchart TD\n")
    out = tmp_path / "gridscan.svg"
    assert run("draw", GRIDSCAN, "--svg", str(out)).stdout == f"wrote {out}\n"
    assert ET.parse(out).getroot().tag.endswith("svg")  # noqa: S314 - our own picture
    result = run("draw", GRIDSCAN, "--svg", str(tmp_path / "missing" / "x.svg"))
    assert result.exit_code == 2
    assert "cannot write" in result.stderr


def test_show_writes_what_travels() -> None:
    shown = json.loads(run("show", GRIDSCAN).stdout)
    assert shown["5"]["gridinfo"] == "{$REPLACE:ispyb_dc_info[gridinfo]}"


@pytest.mark.parametrize(
    "arguments", [["check"], ["show"], ["show", "x", "--list"], ["draw", "x", "--svg", "o", "--mermaid"]]
)
def test_wrong_use_is_explained(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
