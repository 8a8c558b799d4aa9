"""Code in the documents works: programs and recipes of the tutorials, and the page made from the code."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from documents import DOCUMENTS, ROOT, blocks, name
from parvis.recipe.check import check
from parvis.recipe.graph import Recipe
from parvis.service.registry import contracts
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.fields import collection_fields
from parvis_services.ispyb.schema import CORE_TABLES, create_schema

TUTORIAL = ROOT / "docs" / "tutorials" / "write-a-service.md"
RECIPES = [
    pytest.param(block.text, id=f"{name(document)} {number}")
    for document in DOCUMENTS
    for number, block in enumerate(blocks(document), 1)
    if block.language == "json" and '"start": [[1, {}]]\n}' in block.text
    if document != TUTORIAL  # whose service is not installed here; see below
]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package of the tutorial, as its reader writes it, announced as an installed one is."""
    texts = {
        language: [block.text for block in blocks(TUTORIAL) if block.language == language]
        for language in ("toml", "python", "json")
    }
    (project,), (service, tests), (recipe,) = texts["toml"], texts["python"], texts["json"]
    entry_points = project[project.index("[project.entry-points") :].replace('project.entry-points."', "")
    files = {
        "hits/__init__.py": "",
        "hits/hit_finder.py": service,
        "test_hit_finder.py": tests,
        "hits.json": recipe,
        "hits-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: hits\nVersion: 0.1\n",
        "hits-0.1.dist-info/entry_points.txt": entry_points.replace('"', ""),
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(directory)}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_service_of_the_tutorial_is_found(package: Path) -> None:
    listed = run(package, "parvis", "service").stdout
    line = next(block.text for block in blocks(TUTORIAL) if block.text.startswith("HitFinder "))
    assert line.split() in [each.split() for each in listed.splitlines()]


def test_the_tests_of_the_tutorial_pass(package: Path) -> None:
    done = run(package, "pytest", "-q", "-p", "no:cacheprovider", "test_hit_finder.py")
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_the_recipe_of_the_tutorial_is_right(package: Path) -> None:
    done = run(package, "parvis", "recipe", "check", "hits.json")
    assert (done.returncode, done.stdout) == (0, "hits.json: no problem found\n")


def test_the_mistakes_of_the_tutorial_are_found_as_it_says(package: Path) -> None:
    recipe = package / "hits.json"
    recipe.write_text(recipe.read_text().replace('"hit": 4', '"hits": 4').replace(": 20,", ': "many",'))
    done = run(package, "parvis", "recipe", "check", "hits.json")
    assert done.returncode == 1
    assert done.stdout in [block.text for block in blocks(TUTORIAL)]


@pytest.mark.parametrize("text", RECIPES)
def test_recipes_are_right(text: str) -> None:
    assert check(Recipe.from_json(text.encode()), contracts()) == []


def test_the_grid_scan_of_the_tutorial_is_registered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ispyb.sqlite'}"
    create_schema(Database(url), tables=CORE_TABLES)
    for expected in ("1\n", "2\n"):  # again, as a second scan of the same visit
        done = subprocess.run(
            [sys.executable, ROOT / "docs" / "examples" / "register_grid_scan.py", "/data/cm12345-1"],
            env=os.environ | {"PARVIS_ISPYB_URL": url},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == expected
    fields = collection_fields(Database(url), 1, parameters={"guid": "x"})
    shown = {
        line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1]
        for block in blocks(ROOT / "docs" / "tutorials" / "first-grid-scan.md")
        if block.text.startswith("ispyb_beamline")
        for line in block.text.splitlines()
    }
    assert len(shown) == 6
    for key, value in shown.items():
        assert str(fields[key]) == value.strip('"').replace("/tmp/first-scan", "")


def test_the_page_of_services_is_up_to_date() -> None:
    page = ROOT / "docs" / "reference" / "services.md"
    generator = runpy.run_path(str(ROOT / "docs" / "generate_services.py"), run_name="generate_services")
    assert generator["page"]() == page.read_text(encoding="utf-8"), "run: python docs/generate_services.py"
