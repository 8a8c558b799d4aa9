"""Watching a recipe from outside: the nodes that are added, and only they."""

import copy
import json
from typing import Any

import pytest

from parvis.recipe.envelope import Envelope
from parvis.recipe.graph import Recipe
from parvis.recipe.watch import ERROR_KEY, add_watcher, failure_message, is_watch_topic, without_watchers

TOPIC = "transient.go.0f8fad5b-d9cb-469f-a165-70867728950e"
GRIDSCAN: dict[str, Any] = {
    "1": {
        "queue": "filewatcher",
        "parameters": {"pattern": "x%05d.cbf", "pattern-start": 1, "pattern-end": 4},
        "output": {"every": 2, "finally": 4},
    },
    "2": {"queue": "per_image_analysis", "output": [3, 5]},
    "3": {"queue": "notify_gda", "parameters": {"host": "localhost"}},
    "4": {"queue": "mailnotification"},
    "5": {"queue": "reduce.xray_centering", "output": {"success": 3}},
    "start": [[1, {"a": 1}]],
}


def events(recipe: dict[str, Any], node: str, output: str) -> list[str]:
    """The events that leave a node at an output, by what the nodes added for them say."""
    targets = Envelope(recipe, int(node), {}).targets(output, None)
    added = [recipe[str(target)] for target in targets if recipe[str(target)].get("topic") == TOPIC]
    return [target["parameters"]["event"] for target in added]


def test_results_are_sent_to_the_topic_too():
    watched = add_watcher(GRIDSCAN, TOPIC)
    assert events(watched, "1", "every") == []
    assert events(watched, "1", "finally") == ["finished"]
    assert events(watched, "1", "timeout") == ["timeout"]
    assert events(watched, "2", "result") == ["image"]
    assert events(watched, "5", "success") == ["centred"]
    assert events(watched, "5", "abort") == ["abort"]


def test_what_was_there_stays():
    before = copy.deepcopy(GRIDSCAN)
    watched = add_watcher(GRIDSCAN, TOPIC)
    assert before == GRIDSCAN
    assert watched["2"]["output"]["result"][:2] == [3, 5]
    assert watched["1"]["output"]["every"] == 2
    assert watched["1"]["output"]["finally"][0] == 4
    assert watched["1"]["parameters"] == GRIDSCAN["1"]["parameters"]
    assert watched["3"] == GRIDSCAN["3"]
    assert watched["start"][0] == [1, {"a": 1}]
    Recipe.from_dict(watched).validate()


def test_start_is_told_with_the_recipe():
    watched = add_watcher(GRIDSCAN, TOPIC)
    *_, last = Envelope(watched, 0, None, environment={"ID": "x"}).start()
    assert (last.kind, last.destination) == ("topic", TOPIC)
    envelope = Envelope.parse(last.body)
    assert envelope.node["parameters"] == {"event": "started"}
    assert envelope.recipe_id == "x"


def test_unnamed_output_of_the_centring_is_its_success():
    recipe = copy.deepcopy(GRIDSCAN)
    recipe["5"]["output"] = 3
    watched = add_watcher(recipe, TOPIC)
    assert watched["5"]["output"]["success"][0] == 3
    assert events(watched, "5", "success") == ["centred"]


def test_nodes_without_outputs_get_some():
    recipe = {"7": {"queue": "per_image_analysis"}, "start": [[7, {}]]}
    watched = add_watcher(recipe, TOPIC)
    assert events(watched, "7", "result") == ["image"]
    assert events(watched, "7", "missing") == ["missing"]
    assert sorted(watched) == ["10", "7", "8", "9", "start"]


def test_recipe_with_nothing_to_watch_tells_its_start():
    watched = add_watcher({"1": {"queue": "archive.pattern"}, "start": [[1, []]]}, TOPIC)
    assert watched["1"] == {"queue": "archive.pattern"}
    assert len(watched["start"]) == 2


@pytest.mark.parametrize(
    "name",
    [
        "processing_recipe",
        "transient.go.x",
        TOPIC + "x",
        "x" + TOPIC,
        TOPIC + "\n",
        TOPIC.replace("go", "pia"),
        TOPIC.upper(),
        None,
        7,
        ["transient.go"],
    ],
)
def test_nothing_else_is_sent_to(name: Any):
    assert not is_watch_topic(name)
    with pytest.raises(ValueError, match="not a topic"):
        add_watcher(GRIDSCAN, name)


def test_failure_is_told_in_one_message():
    send = failure_message(TOPIC, "no data collection 12")
    assert (send.kind, send.destination) == ("topic", TOPIC)
    assert json.loads(send.body) == {ERROR_KEY: "no data collection 12"}


def test_without_watchers_a_recipe_is_as_it_was_written() -> None:
    recipe = {
        "1": {"queue": "filewatcher", "output": {"every": [2], "first": [3]}},
        "2": {"queue": "per_image_analysis", "output": {"result": [3]}},
        "3": {"queue": "end"},
        "start": [[1, {}]],
    }
    watched = add_watcher(recipe, TOPIC)
    assert watched != recipe
    assert without_watchers(watched) == recipe
    assert without_watchers({"1": None, "start": None}) == {"1": None, "start": None}
