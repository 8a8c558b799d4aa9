"""Recipes from before mean what they meant: what is sent along them is what `workflows` would send."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest

from parvis.config import shipped_recipes
from parvis.recipe.check import check
from parvis.recipe.envelope import Envelope
from parvis.recipe.graph import Recipe
from parvis.recipe.policy import Policy, policy_of
from parvis.recipe.template import fill_recipe

workflows = pytest.importorskip("workflows.recipe")

# As sites write them: scalars and lists, both kinds of output, topics, delays, keys of a service alone.
OLD: dict[str, Any] = {
    "1": {
        "service": "DLS cluster submission",
        "queue": "cluster.submission",
        "parameters": {
            "cluster": {"commands": ["a {guid}"]},
            "timeout": 3600,
            "retries": "in here nobody minds",
        },
        "job_parameters": {"priority": 1},
        "output": {"a": 2, "b": [3, 4]},
        "error": [5],
    },
    "2": {"queue": "two", "output": 3, "comment": "kept"},
    "3": {"queue": "three", "topic": "three.too", "transport-delay": 2},
    "4": {"topic": "four", "output": [3, 5], "gridinfo": "{$REPLACE:grid}"},
    "5": {"queue": "join", "parameters": {"what": "another service of that name"}},
    "start": [[1, []], [2, {"file": "{name}"}]],
    "error": [5],
}
RECIPES = [pytest.param(OLD, id="old")] + [
    pytest.param(json.loads(path.read_text()), id=path.stem)
    for path in sorted(shipped_recipes().glob("*.json"))
]
VALUES = {"guid": "g", "name": "file", "grid": {"steps": [1, 2]}}


class Recorder:
    """Takes what `workflows` sends."""

    is_reconnectable = False

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any, float]] = []

    def send(self, destination: str, message: Any, *, headers: Mapping[str, Any], delay: float = 0) -> None:
        assert headers == {"workflows-recipe": True}
        self.sent.append(("queue", destination, _plain(message), delay))

    def broadcast(
        self, destination: str, message: Any, *, headers: Mapping[str, Any], delay: float = 0
    ) -> None:
        assert headers == {"workflows-recipe": True}
        self.sent.append(("topic", destination, _plain(message), delay))


def _plain(message: Any) -> Any:
    """With keys as text, and the recipe as a recipe: they write the same one in more than one way."""
    content = json.loads(json.dumps(message))
    content["recipe"] = Recipe.from_dict(content["recipe"]).to_dict()
    return content


def theirs(
    content: dict[str, Any], number: int | None, output: str | None
) -> list[tuple[str, str, Any, float]]:
    recorder = Recorder()
    content = copy.deepcopy(content)
    if number is None:
        recipe = workflows.Recipe(content)
        workflows.RecipeWrapper(recipe=recipe, transport=recorder, environment={"ID": "i"}).start()
        return recorder.sent
    message = {"recipe": content, "recipe-pointer": number, "recipe-path": [7], "environment": {"ID": "i"}}
    wrapper = workflows.RecipeWrapper(message=message, transport=recorder)
    wrapper.set_default_channel("default")
    wrapper.send_to(output or "default", {"some": "payload"})
    return recorder.sent


def ours(
    content: dict[str, Any], number: int | None, output: str | None
) -> list[tuple[str, str, Any, float]]:
    if number is None:
        sends = list(Envelope(content, 0, None, environment={"ID": "i"}).start())
    else:
        envelope = Envelope(content, number, None, [7], {"ID": "i"})
        sends = list(envelope.onward(output or "default", "default", {"some": "payload"}))
    assert {send.priority for send in sends} <= {None}
    return [(send.kind, send.destination, _plain(json.loads(send.body)), send.delay) for send in sends]


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_sent_along_an_old_recipe_is_what_workflows_sends(recipe: dict[str, Any]) -> None:
    loaded = Recipe.from_json(json.dumps(recipe))
    loaded.validate()
    content = fill_recipe(loaded, VALUES).to_dict()
    their_recipe = workflows.Recipe(copy.deepcopy(recipe))
    their_recipe.validate()
    their_recipe.apply_parameters(VALUES)
    # Filled in by them or by us: one and the same.
    assert Recipe.from_dict(json.loads(their_recipe.serialize())).to_dict() == content
    assert ours(content, None, None) == theirs(content, None, None) != []
    for node in loaded.nodes.values():
        for output in (*node.outputs, "never heard of"):
            assert ours(content, node.number, output) == theirs(content, node.number, output)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_old_recipe_says_nothing_of_the_handling(recipe: dict[str, Any]) -> None:
    for node in Recipe.from_dict(recipe).to_dict().values():
        if isinstance(node, dict):
            assert policy_of(node) == Policy()


def test_a_queue_that_is_called_join_is_no_join() -> None:
    found = [str(problem) for problem in check(Recipe.from_dict(OLD), {}, None, ["*"])]
    assert not any("join" in text for text in found if "leads" in text or "waits" in text)
    merged = Recipe.from_dict(OLD).merge(Recipe.from_dict(OLD)).to_dict()
    assert merged["10"]["parameters"] == OLD["5"]["parameters"]
