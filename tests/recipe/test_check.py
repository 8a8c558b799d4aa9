"""The static check: the shipped recipes pass, and each mistake in a copy of one is found."""

from __future__ import annotations

import copy
import json

import pytest

from parvis.config import shipped_recipes
from parvis.recipe.check import check
from parvis.recipe.graph import Recipe
from parvis.service.registry import contracts
from recipe_mistakes import (
    CENTRING,
    GDA,
    GRIDSCAN,
    ISPYB,
    LINES,
    PIA,
    PLACEHOLDERS,
    WATCHER,
    Change,
    drop,
    find_mistake,
    problems_of,
    put,
)

SHIPPED = [
    "per-image-analysis-gridscan",
    "per-image-analysis-gridscan-swmr",
    "per-image-analysis-rotation",
    "per-image-analysis-rotation-swmr",
    "per-image-analysis-stream",
    "per-image-analysis-stream-rotation",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_recipes_have_no_problem(name: str) -> None:
    assert problems_of((shipped_recipes() / f"{name}.json").read_text()) == []


def test_all_shipped_recipes_are_checked() -> None:
    assert sorted(path.stem for path in shipped_recipes().glob("*.json")) == SHIPPED


OUTPUTS = (
    'it has "first", "every", "last", "#", "every-#", "select-#", "any", "finally", "timeout", "error" '
    "(# stands for a whole number above zero)"
)

MISTAKES = [
    # queues
    (
        put("1", "queue", value="filewatchr"),
        "error",
        WATCHER,
        '"queue": no service listens to "filewatchr"; did you mean "filewatcher"? '
        "If a program outside Parvis does, list the queue under parvis.external_queues",
    ),
    (
        put("2", "queue", value="per image analysis"),
        "error",
        PIA,
        "\"queue\": 'per image analysis' cannot name a queue",
    ),
    (
        drop("4", "queue"),
        "error",
        GDA,
        'has neither "queue" nor "topic", so whatever is sent to it would be lost',
    ),
    # outputs
    (
        put("1", "output", value={"evry": 2}),
        "error",
        WATCHER,
        f'output "evry": FileWatcher has no such output; did you mean "every"? {OUTPUTS}',
    ),
    (
        put("1", "output", value={"every-0": 2}),
        "error",
        WATCHER,
        f'output "every-0": FileWatcher has no such output; did you mean "every-#"? {OUTPUTS}',
    ),
    (
        put("1", "output", value=[2]),
        "error",
        WATCHER,
        '"output": FileWatcher has only outputs with names; write which one: "first", "every", ',
    ),
    (put("3", "output", value=4), "error", ISPYB, '"output": ISPyBPIA sends nothing on'),
    (
        put("2", "output", "result", value=[3, 4, 5, 6, 6]),
        "warning",
        PIA,
        'output "result": leads to node 6 twice, so it gets everything twice',
    ),
    # keys of nodes
    (
        put("5", "gridifno", value={}),
        "warning",
        CENTRING,
        'the key "gridifno" is read by nobody; did you mean "gridinfo"?',
    ),
    (
        put("2", "parametres", value={}),
        "warning",
        PIA,
        'the key "parametres" is read by nobody; did you mean "parameters"?',
    ),
    (put("2", "comment", value="x"), "warning", PIA, 'the key "comment" is read by nobody'),
    (
        put("5", "gridinfo", value={"steps_x": "three"}),
        "error",
        CENTRING,
        '"gridinfo[steps_x]": is "three", must be a whole number',
    ),
    (
        put("2", "transport-delay", value=-3),
        "error",
        PIA,
        '"transport-delay": must be a number of seconds, zero or more; it is -3',
    ),
    # the graph
    (
        put("2", "output", "result", value=[3, 9]),
        "error",
        PIA,
        'output "result": leads to node 9, which the recipe ',
    ),
    (
        put("6", "output", value={"again": 2}),
        "error",
        LINES,
        'output "again": leads back to node 2, a circle: 2 → 6 → 2; a recipe must come to an end',
    ),
    (
        put("2", "output", "result", value=[3, 4, 5]),
        "error",
        LINES,
        "nothing leads to it, so it would never run",
    ),
    (drop("start"), "error", "", 'has no "start"; name the nodes that the recipe starts with'),
    (
        put("start", value=[[7, {}]]),
        "error",
        "",
        "start: leads to node 7, which the recipe does not have; it has nodes 1, 2, ",
    ),
    (
        put("2", "output", "result", value="jsonlines"),
        "error",
        PIA,
        'output "result": leads to "jsonlines", which is not',
    ),
    (
        put("4", "topic", value="gda.results"),
        "warning",
        GDA,
        'has both "queue" and "topic", so everything is sent to it twice',
    ),
    (put("archiver", value={"queue": "jsonlines"}), "error", "", 'unknown key "archiver" beside the nodes'),
]


@pytest.mark.parametrize(
    ("change", "severity", "node", "text"), MISTAKES, ids=[mistake[3][:50] for mistake in MISTAKES]
)
def test_a_mistake_is_found(change: Change, severity: str, node: str, text: str) -> None:
    find_mistake(change, severity, node, text)


def test_a_key_that_stands_twice_is_found() -> None:
    text = GRIDSCAN.replace('"timeout": 900,', '"timeout": 900, "timeout": 5,')
    assert text != GRIDSCAN
    (problem,) = problems_of(text)
    assert (
        str(problem)
        == 'node 1: "parameters": the key "timeout" stands there more than once; only the last would count'
    )


def test_a_syntax_error_is_found_with_its_line() -> None:
    text = GRIDSCAN.replace('"queue": "notify_gda",', '"queue": "notify_gda"')
    (problem,) = problems_of(text)
    line = GRIDSCAN[: GRIDSCAN.index('"queue": "notify_gda"')].count("\n") + 2
    assert str(problem) == f"line {line}, column 5: not JSON: expecting ',' delimiter"


def test_several_mistakes_are_found_at_once() -> None:
    recipe = json.loads(GRIDSCAN)
    recipe["1"]["queue"] = "filewatchr"
    recipe["3"]["parameters"] = {}
    recipe["4"]["parameters"]["port"] = "{gda_prot}"
    recipe["6"]["output"] = {"again": 2}
    assert len([each for each in problems_of(json.dumps(recipe)) if each.severity == "error"]) == 5


def test_checking_changes_nothing() -> None:
    recipe = Recipe.from_json(GRIDSCAN)
    before = copy.deepcopy(recipe)
    check(recipe, contracts(), PLACEHOLDERS)
    assert recipe == before
