"""Finding recipes by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from parvis.config import Config, shipped_recipes
from parvis.recipe.graph import Recipe
from parvis.recipe.library import UnknownRecipe, find_recipe, recipe_directories, recipes


def test_the_first_directory_that_has_it_counts(tmp_path: Path) -> None:
    (tmp_path / "per-image-analysis-rotation.json").write_text("{}")
    directories = [tmp_path, shipped_recipes()]
    assert (
        find_recipe("per-image-analysis-rotation", directories)
        == tmp_path / "per-image-analysis-rotation.json"
    )
    assert find_recipe("per-image-analysis-gridscan", directories).parent == shipped_recipes()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "..",
        ".hidden",
        "",
        "a\0b",
        "a b",
        "é",
        "x" * 500,
        "%2e%2e",
        "a\n",
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownRecipe, match="cannot be the name of a recipe"):
        find_recipe(name, [tmp_path])


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UnknownRecipe) as error:
        find_recipe("per-image-analysis-gridscam", [shipped_recipes()])
    assert 'did you mean "per-image-analysis-gridscan"?' in str(error.value)


def test_all_recipes_are_listed_once(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("{}")
    (tmp_path / ".hidden.json").write_text("{}")
    (tmp_path / "per-image-analysis-rotation.json").write_text("{}")
    found = recipes([tmp_path, tmp_path / "missing", shipped_recipes()])
    assert list(found) == sorted(found)
    assert found["own"] == tmp_path / "own.json"
    assert found["per-image-analysis-rotation"].parent == tmp_path
    assert ".hidden" not in found


def test_the_site_comes_before_what_is_shipped(tmp_path: Path) -> None:
    config = Config(storage={"zocalo.recipe_directory": str(tmp_path)})
    assert recipe_directories(config) == [tmp_path, shipped_recipes()]
    assert recipe_directories(Config()) == [shipped_recipes()]


def test_every_shipped_recipe_is_valid_for_workflows_too() -> None:
    workflows = pytest.importorskip("workflows.recipe")
    for path in shipped_recipes().glob("*.json"):
        workflows.Recipe(path.read_text()).validate()
        Recipe.from_json(path.read_bytes()).validate()
