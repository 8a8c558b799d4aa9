"""Mistakes in copies of a shipped recipe, for the tests of the check."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from parvis.config import shipped_recipes
from parvis.recipe.check import check
from parvis.recipe.graph import Recipe
from parvis.recipe.problem import Problem, RecipeError
from parvis.service.registry import contracts

Change: TypeAlias = Callable[[dict[str, Any]], None]

PLACEHOLDERS = {
    "gda_host",
    "gda_port",
    "guid",
    "ispyb_beamline",
    "ispyb_dc_info",
    "ispyb_dcg_dcids",
    "ispyb_dcg_experiment_type",
    "ispyb_dcid",
    "ispyb_image_directory",
    "ispyb_image_first",
    "ispyb_image_last",
    "ispyb_image_pattern",
    "ispyb_image_template",
    "ispyb_msp_sample_ids",
    "ispyb_pin_info",
    "ispyb_results_directory",
}
GRIDSCAN = (shipped_recipes() / "per-image-analysis-gridscan.json").read_text()
WATCHER, PIA, ISPYB = (
    'node 1 "File watcher"',
    'node 2 "Per-image analysis"',
    'node 3 "ISPyB per-image results"',
)
GDA, CENTRING, LINES = 'node 4 "Notify GDA"', 'node 5 "X-ray centring"', 'node 6 "JSON lines"'


def problems_of(text: str) -> list[Problem]:
    """What the check finds in the text of a recipe."""
    try:
        return check(Recipe.from_json(text), contracts(), PLACEHOLDERS)
    except RecipeError as error:
        return error.problems


def find_mistake(change: Change, severity: str, node: str, text: str) -> None:
    """Find a mistake in a copy of the recipe for grid scans.

    Args:
        change: What makes the mistake.
        severity: That it must have.
        node: Where it is, empty for the recipe as a whole.
        text: How the sentence about it begins.

    Raises:
        AssertionError: It is not found, or not once, or with another severity.
    """
    recipe = json.loads(GRIDSCAN)
    change(recipe)
    found = problems_of(json.dumps(recipe))
    problem = f"{node}: {text}" if node else text
    match = [each for each in found if str(each).startswith(problem)]
    assert [each.severity for each in match] == [severity], "\n".join(map(str, found))


def put(*path: str | int, value: Any) -> Change:
    """Return a change of a recipe: `value` at `path`."""

    def change(recipe: dict[str, Any]) -> None:
        at: Any = recipe
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


def drop(*path: str) -> Change:
    """Return a change of a recipe: what is at `path` goes."""

    def change(recipe: dict[str, Any]) -> None:
        at: Any = recipe
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return change


def change_all(*changes: Change) -> Change:
    """Return a change of a recipe: several one after another."""

    def change(recipe: dict[str, Any]) -> None:
        for each in changes:
            each(recipe)

    return change
