"""The check of what a recipe says of failures, tries, priorities and joins."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parvis.recipe.check import check
from parvis.recipe.graph import Recipe
from parvis.recipe.problem import RecipeError
from parvis.service.registry import contracts

FAN_OUT: dict[str, Any] = {
    "1": {"queue": "ext.split", "output": {"first": 2, "rest": 3}},
    "2": {"queue": "ext.second", "output": 4},
    "3": {"queue": "ext.third", "output": 4},
    "4": {"service": "Join", "queue": "join", "parameters": {"wait-for": {"2": 1, "3": "{n}"}}, "output": 5},
    "5": {"queue": "jsonlines", "parameters": {"output_filename": "/data/results.jsonl"}},
    "6": {"queue": "jsonlines", "parameters": {"output_filename": "/data/failed.jsonl"}},
    "start": [[1, {}]],
    "error": [6],
}
JOIN = 'node 4 "Join": parameter "wait-for"'
NOT_HERE = "which does not lead here, so it would wait until its time-out"
ON_FAILURE = "which runs only when something fails, so it would usually time out"


def found(**changes: Any) -> list[str]:
    recipe = json.loads(json.dumps(FAN_OUT))
    for name, value in changes.items():
        key = name.removeprefix("n")
        recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) else value
    try:
        problems = check(Recipe.from_json(json.dumps(recipe)), contracts(), None, ["ext.*"])
    except RecipeError as error:
        problems = error.problems
    return [f"{problem.severity}: {problem}" for problem in problems]


def test_a_recipe_that_says_all_of_it_has_no_problem() -> None:
    says = {"retries": 2, "retry-delay": 0.5, "timeout": 60, "priority": 9, "error": [6]}
    assert found(n2=says) == []
    assert found(n2={key: "{" + key + "}" for key in says if key != "error"}) == []
    assert found(n2={"retries": "2", "retry-delay": "0", "timeout": "1.5", "priority": "0"}) == []


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("retries", -1, '"retries": must be a whole number from 0 to 1000, it is -1'),
        ("retries", 1.5, '"retries": must be a whole number from 0 to 1000, it is 1.5'),
        ("retries", "many", '"retries": must be a whole number from 0 to 1000, it is "many"'),
        ("retries", True, '"retries": must be a whole number from 0 to 1000, it is true'),
        ("retries", [3], '"retries": must be a whole number from 0 to 1000, it is a list'),
        ("priority", 10, '"priority": must be a whole number from 0 to 9, it is 10'),
        ("priority", "²", '"priority": must be a whole number from 0 to 9, it is "²"'),
        (
            "timeout",
            0,
            '"timeout": must be a number of seconds, above zero, at most 864000; it is 0',
        ),
        (
            "timeout",
            "inf",
            '"timeout": must be a number of seconds, above zero, at most 864000; it is "inf"',
        ),
        (
            "retry-delay",
            -0.1,
            '"retry-delay": must be a number of seconds, zero or more, at most 864000; it is -0.1',
        ),
        (
            "retry-delay",
            "nan",
            '"retry-delay": must be a number of seconds, zero or more, at most 864000; it is "nan"',
        ),
    ],
)
def test_nonsense_is_found_in_its_place(key: str, value: Any, text: str) -> None:
    assert found(n2={key: value}) == [f'error: node 2 "ext.second": {text}']


def test_a_key_that_is_nearly_one_of_them_is_pointed_out() -> None:
    assert found(n2={"retry_delay": 3}) == [
        'warning: node 2 "ext.second": the key "retry_delay" is read by nobody; did you mean "retry-delay"?'
    ]


def test_an_error_edge_that_leads_nowhere_is_found() -> None:
    text = "leads to node 9, which the recipe does not have; it has nodes 1, 2, 3, 4, 5, 6"
    assert found(n2={"error": 9}) == [f'error: node 2 "ext.second": "error": {text}']
    assert found(error=[9, 6]) == [f"error: error: {text}"]


def test_a_circle_by_way_of_an_error_edge_is_found() -> None:
    (problem,) = [text for text in found(n4={"error": [1]}) if "circle" in text]
    assert problem.startswith('error: node 4 "Join": "error": leads back to node 1, a circle: 1 → 2 → 4 → 1')


def test_an_error_edge_of_an_error_node_is_pointed_out() -> None:
    assert found(n6={"error": [5]}) == [
        'warning: node 6 "jsonlines": "error": is not followed, as this is an error node itself: '
        "what fails there becomes a dead letter"
    ]


def test_an_error_node_that_does_not_take_what_it_is_sent_is_found() -> None:
    images = {"queue": "per_image_analysis", "output": {"result": 5}}
    (problem,) = [text for text in found(n2={"error": 7}, n7=images) if "does not fit" in text]
    assert problem.startswith('error: node 2 "ext.second": "error": does not fit node 7 "per_image_analysis"')


@pytest.mark.parametrize(
    ("wait_for", "texts"),
    [
        ([2, 3], []),
        ({"2": 1, "3": 100}, []),
        ({"2": 1, "3": "100"}, []),
        ("{$REPLACE:what}", []),
        (
            [2],
            [f"error: {JOIN}: node 3 leads here and is not among them, so its messages would be rejected"],
        ),
        ([2, 3, 9], [f"error: {JOIN}: waits for node 9, which the recipe does not have"]),
        (
            [2, 3, 1],
            [f"error: {JOIN}: waits for node 1, {NOT_HERE}"],
        ),
        (
            [2, 3, 4],
            [f"error: {JOIN}: waits for node 4, {NOT_HERE}"],
        ),
    ],
)
def test_a_join_must_wait_for_what_can_come(wait_for: Any, texts: list[str]) -> None:
    assert found(n4={"parameters": {"wait-for": wait_for}}) == texts


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, 'parameter "wait-for": is missing; Join needs it'),
        ({"wait-for": {"2": 0, "3": 1}}, 'parameter "wait-for[2]": is 0, must be greater than or equal to 1'),
        ({"wait-for": {"2": 1.5, "3": 1}}, 'parameter "wait-for[2]": is 1.5, must be a whole number'),
        ({"wait-for": []}, "at least 1 item"),
        ({"wait-for": [2, 2, 3]}, 'names node 2 twice; for two messages of it write {"2": 2}'),
        ({"wait-for": [2, 3], "timeout": "soon"}, 'parameter "timeout": is "soon", must be a number'),
    ],
)
def test_counts_that_make_no_sense_are_found(parameters: dict[str, Any], text: str) -> None:
    problems = found(n4={"parameters": parameters})
    assert any(text in problem and problem.startswith("error") for problem in problems), problems


def test_a_join_cannot_be_the_start() -> None:
    (problem,) = found(start=[[1, {}], [4, {}]])
    assert problem.startswith("error: start of node 4: is a join, and starts with no message")


def test_waiting_for_what_runs_only_on_failure_is_pointed_out() -> None:
    problems = found(
        n2={"error": 7},
        n7={"queue": "ext.mend", "output": 4},
        n4={"parameters": {"wait-for": [2, 3, 7]}},
    )
    assert problems == [f"warning: {JOIN}: waits for node 7, {ON_FAILURE}"]


def test_merging_renumbers_what_a_join_waits_for() -> None:
    recipe = Recipe.from_dict(FAN_OUT)
    merged = recipe.merge(recipe)
    assert merged.to_dict()["10"]["parameters"] == {"wait-for": {"8": 1, "9": "{n}"}}
    assert merged.to_dict()["4"]["parameters"] == FAN_OUT["4"]["parameters"]
    assert check(merged, contracts(), None, ["ext.*"]) == []
    listed = Recipe.from_dict({**FAN_OUT, "4": {**FAN_OUT["4"], "parameters": {"wait-for": [3, 2]}}})
    assert recipe.merge(listed).to_dict()["10"]["parameters"] == {"wait-for": [9, 8]}


def test_a_large_recipe_with_joins_is_checked_in_time_proportional_to_its_size() -> None:
    layers = 3000  # squared, that would take longer than any test may
    recipe: dict[str, Any] = {"start": [[1, {}]], "error": [3 * layers + 1]}
    for layer in range(layers):
        one, two, join = 3 * layer + 1, 3 * layer + 2, 3 * layer + 3
        following = [join + 1] if layer + 1 < layers else []
        recipe[str(one)] = {"queue": "ext.a", "output": [two, join]}
        recipe[str(two)] = {"queue": "ext.b", "output": join, "retries": 1}
        parameters = {"wait-for": [one, two]}
        recipe[str(join)] = {"queue": "join", "parameters": parameters, "output": {"complete": following}}
    recipe[str(3 * layers + 1)] = {"queue": "ext.failed"}
    assert check(Recipe.from_json(json.dumps(recipe)), contracts(), None, ["ext.*"]) == []
