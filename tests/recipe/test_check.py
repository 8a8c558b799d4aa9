"""The static check: the shipped recipes pass, and each mistake in a copy of one is found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, Field, model_validator

from parvis.config import shipped_recipes
from parvis.recipe.check import check
from parvis.recipe.graph import Recipe
from parvis.recipe.problem import Problem, RecipeError
from parvis.service.contract import Anything, Contract, Model
from parvis.service.registry import contracts

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
SHIPPED = [
    "per-image-analysis-gridscan",
    "per-image-analysis-gridscan-swmr",
    "per-image-analysis-rotation",
    "per-image-analysis-rotation-swmr",
]
GRIDSCAN = (shipped_recipes() / "per-image-analysis-gridscan.json").read_text()


def problems_of(text: str) -> list[Problem]:
    try:
        return check(Recipe.from_json(text), contracts(), PLACEHOLDERS)
    except RecipeError as error:
        return error.problems


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_recipes_have_no_problem(name: str) -> None:
    assert problems_of((shipped_recipes() / f"{name}.json").read_text()) == []


def test_all_shipped_recipes_are_checked() -> None:
    assert sorted(path.stem for path in shipped_recipes().glob("*.json")) == SHIPPED


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of a recipe: `value` at `path`."""

    def change(recipe: dict[str, Any]) -> None:
        at: Any = recipe
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    """Return a change of a recipe: what is at `path` goes."""

    def change(recipe: dict[str, Any]) -> None:
        at: Any = recipe
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return change


def change_all(*changes: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Return a change of a recipe: several one after another."""

    def change(recipe: dict[str, Any]) -> None:
        for each in changes:
            each(recipe)

    return change


WATCHER, PIA, ISPYB = (
    'node 1 "File watcher"',
    'node 2 "Per-image analysis"',
    'node 3 "ISPyB per-image results"',
)
GDA, CENTRING, LINES = 'node 4 "Notify GDA"', 'node 5 "X-ray centring"', 'node 6 "JSON lines"'
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
    # parameters
    (
        put("1", "parameters", "timeout", value="lots"),
        "error",
        WATCHER,
        'parameter "timeout": is "lots", must be a number',
    ),
    (
        put("1", "parameters", "burst-limit", value=0),
        "error",
        WATCHER,
        'parameter "burst-limit": is 0, must be greater than or equal to 1',
    ),
    (
        put("1", "parameters", "burst-limit", value=2.5),
        "error",
        WATCHER,
        'parameter "burst-limit": is 2.5, must be a whole number',
    ),
    (
        put("6", "parameters", "include", value="file"),
        "error",
        LINES,
        'parameter "include": is "file", must be a list',
    ),
    (
        put("1", "parameters", "timout", value=5),
        "warning",
        WATCHER,
        'parameter "timout": FileWatcher has no such parameter; did you mean "timeout"?',
    ),
    (drop("3", "parameters", "dcid"), "error", ISPYB, 'parameter "dcid": is missing; ISPyBPIA needs it'),
    (drop("6", "parameters"), "error", LINES, 'parameter "output_filename": is missing; JSONLines needs it'),
    (
        drop("1", "parameters", "pattern-end"),
        "error",
        WATCHER,
        '"parameters": pattern needs pattern-start and pattern-end',
    ),
    (
        drop("1", "parameters", "pattern"),
        "error",
        WATCHER,
        '"parameters": one of pattern, list and hdf5 must say what to watch',
    ),
    (put("1", "parameters", value=[]), "error", WATCHER, '"parameters": must be a JSON object, it is a list'),
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
    # placeholders
    (
        put("3", "parameters", "dcid", value="{ispyb_dcidd}"),
        "error",
        ISPYB,
        'parameter "dcid": {ispyb_dcidd}: nobody fills in "ispyb_dcidd"; did you mean "ispyb_dcid"?',
    ),
    (
        put("5", "parameters", "sample_id", value="{$REPLACE:wavelength}"),
        "error",
        CENTRING,
        'parameter "sample_id": {$REPLACE:wavelength}: nobody fills in "wavelength"; '
        "if it is given by hand (go -s), name it to the check with --given",
    ),
    (
        put("3", "parameters", "dcid", value="{ispyb_dcid.__class__}"),
        "error",
        ISPYB,
        'parameter "dcid": {ispyb_dcid.__class__}: a recipe cannot reach the attributes of a parameter',
    ),
    (
        put("3", "parameters", "dcid", value="{ispyb_dcid:>200000000}"),
        "error",
        ISPYB,
        'parameter "dcid": {ispyb_dcid:>200000000}: the format ">200000000" is not known',
    ),
    (
        put("6", "parameters", "output_filename", value="/tmp/{$REPLACE:ispyb_results_directory}"),
        "error",
        LINES,
        'parameter "output_filename": {$REPLACE:ispyb_results_directory}: stands for an object, '
        "so it must be the whole of a value",
    ),
    (
        put("start", value=[[1, {"directory": "{ispyb_visti}"}]]),
        "error",
        "",
        'start of node 1: "directory": {ispyb_visti}: nobody fills in "ispyb_visti"',
    ),
    # payloads
    (
        put("1", "output", value={"finally": 2}),
        "error",
        WATCHER,
        f'output "finally": does not fit {PIA}: it needs "file"; what comes holds '
        '"files-expected", "files-seen", "images-expected", "images-seen", "success"',
    ),
    (
        put("1", "output", value={"every": [2, 5]}),
        "error",
        WATCHER,
        f'output "every": does not fit {CENTRING}: file-number and n_spots_total are needed',
    ),
    (put("start", value=[[1, {}], [2, {}]]), "error", "", 'start of node 2: PerImageAnalysis needs "file"'),
    (
        put("start", value=[[1, {"filewatcher-status": {"seen-files": -1, "start-time": 0}}]]),
        "error",
        "",
        'start of node 1: "filewatcher-status[seen-files]": is -1, must be greater than or equal to 0',
    ),
    (
        put("start", value=[[1, "go"]]),
        "error",
        "",
        'start of node 1: is "go", FileWatcher takes an object; write {} for an empty one',
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
    # parameters that could be right by type, and are not
    (
        put("1", "parameters", "pattern", value="/data/grid.cbf"),
        "error",
        WATCHER,
        "parameter \"pattern\": pattern '/data/grid.cbf' must hold exactly one number, such as %05d",
    ),
    (
        put("1", "parameters", "pattern", value="/data/%04d/%05d.cbf"),
        "error",
        WATCHER,
        "parameter \"pattern\": pattern '/data/%04d/%05d.cbf' must hold exactly one number, such as %05d",
    ),
    (
        change_all(
            put("1", "parameters", "pattern", value="/data/grid.cbf"),
            put("1", "parameters", "pattern-start", value=9),
            put("1", "parameters", "pattern-end", value=3),
        ),
        "error",
        WATCHER,
        'parameter "pattern-end": pattern-start 9 to pattern-end 3 is no range of images',
    ),
    (
        put("6", "parameters", "output_filename", value="results.jsonl"),
        "error",
        LINES,
        "parameter \"output_filename\": 'results.jsonl' is not an absolute path",
    ),
    (
        put("1", "parameters", "timeout", value=True),
        "error",
        WATCHER,
        'parameter "timeout": is true, must be a number',
    ),
    (
        put("5", "gridinfo", value="{ispyb_dc_info[gridinfo]}"),
        "error",
        CENTRING,
        '"gridinfo": would be text, must be an object; write {$REPLACE:name}',
    ),
    (
        drop("5", "gridinfo"),
        "warning",
        CENTRING,
        '"gridinfo": is missing; XRayCentring reads it from the node, beside the parameters',
    ),
    (
        put("5", "parameters", "output", value="/data/{ispyb_dcid/centre.json"),
        "warning",
        CENTRING,
        'parameter "output": nothing is filled in there: "/data/{ispyb_dcid/centre.json" has a {',
    ),
    (
        put("start", value=[[1, {"comment": "} of {guid}"}]]),
        "warning",
        "",
        'start of node 1: "comment": nothing is filled in there: "} of {guid}" has a } without',
    ),
    (
        put("5", "parameters", "output", value="/data/{ispyb dcid}/centre.json"),
        "warning",
        CENTRING,
        'parameter "output": nothing is filled in there: "{ispyb dcid}" has a space in it',
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
def test_a_mistake_is_found(
    change: Callable[[dict[str, Any]], None], severity: str, node: str, text: str
) -> None:
    recipe = json.loads(GRIDSCAN)
    change(recipe)
    found = problems_of(json.dumps(recipe))
    problem = f"{node}: {text}" if node else text
    match = [each for each in found if str(each).startswith(problem)]
    assert [each.severity for each in match] == [severity], "\n".join(map(str, found))


def test_types_of_what_holds_placeholders_are_not_checked() -> None:
    recipe = json.loads(GRIDSCAN)
    recipe["1"]["parameters"] |= {
        "timeout": "{ispyb_dcid}",
        "list": ["{guid}"],
        "burst-wait": "{$REPLACE:guid}",
    }
    assert problems_of(json.dumps(recipe)) == []


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


def contract(name: str, **changes: Any) -> Contract:
    values: dict[str, Any] = {
        "service": name.title(),
        "queue": name,
        "parameters": Anything,
        "payload": Anything,
        "outputs": {"out": None},
        "default_output": "out",
        "node_keys": (),
    }
    return Contract(**values | changes)


def checked(recipe: dict[str, Any], *services: Contract, **options: Any) -> list[str]:
    known = {each.queue: each for each in services}
    return [str(problem) for problem in check(Recipe.from_dict(recipe), known, **options)]


def chain(sender: type[BaseModel] | None, taker: type[BaseModel]) -> list[str]:
    recipe = {"1": {"queue": "a", "output": 2}, "2": {"queue": "b"}, "start": [[1, {}]]}
    return checked(recipe, contract("a", outputs={"out": sender}), contract("b", payload=taker))


def test_queues_of_others_are_accepted_where_they_are_declared() -> None:
    recipe = {
        "1": {"queue": "mimas.held"},
        "2": {"queue": "transient.x.y"},
        "3": {"queue": "{feedback_queue}"},
    }
    started = {**recipe, "start": [[1, []], [2, []], [3, "any"]]}
    assert checked(started, external_queues=["other", "mimas.*"]) == []
    assert len(checked(started)) == 1


def test_placeholders_are_not_checked_where_nobody_knows_them() -> None:
    recipe = {"1": {"queue": "a", "parameters": {"x": "{anything}"}}, "start": [[1, {}]]}
    assert checked(recipe, contract("a")) == []
    assert len(checked(recipe, contract("a"), known_placeholders=[])) == 1


def test_what_belongs_to_the_recipe_environment_is_no_placeholder() -> None:
    class Parameters(Model):
        number: int
        other: int

    recipe = {"1": {"queue": "a", "parameters": {"number": "${id}", "other": "$id"}}, "start": [[1, {}]]}
    assert checked(recipe, contract("a", parameters=Parameters), known_placeholders=[]) == []


def test_a_service_that_forbids_unknown_parameters_makes_them_errors() -> None:
    class Parameters(BaseModel, extra="forbid"):
        number: int = 0

    recipe = Recipe.from_dict({"1": {"queue": "a", "parameters": {"nunber": 1}}, "start": [[1, {}]]})
    (problem,) = check(recipe, {"a": contract("a", parameters=Parameters)})
    assert problem == Problem(
        'node 1 "a": parameter "nunber"', 'A has no such parameter; did you mean "number"?'
    )


def test_a_service_without_declared_parameters_takes_any() -> None:
    recipe = {"1": {"queue": "a", "parameters": {"whatever": 1}}, "start": [[1, {}]]}
    assert checked(recipe, contract("a")) == []


def test_payloads_fit_by_name_and_type() -> None:
    class Sent(Model):
        file: str
        number: int | None = Field(default=None, alias="file-number")
        counts: list[int]

    class Same(Model):
        file: str
        number: float = Field(alias="file-number")

    class Needs(Model):
        file: str
        colour: str

    class Other(Model):
        counts: str

    assert chain(Sent, Same) == []
    assert chain(None, Needs) == []
    assert chain(Sent, Anything) == []
    assert chain(Sent, Needs) == [
        'node 1 "a": "output": does not fit node 2 "b": it needs "colour"; what comes holds "file", '
        '"file-number", "counts"'
    ]
    assert chain(Sent, Other) == [
        'node 1 "a": "output": does not fit node 2 "b": "counts" is a list there, and must be text'
    ]


def test_a_model_that_is_never_content_is_given_the_benefit_of_the_doubt() -> None:
    class Sent(Model):
        file: str

    class Strict(Model):
        file: str
        more: str = ""

        @model_validator(mode="after")
        def _refuse(self) -> Strict:
            raise ValueError("never content")

    assert chain(Sent, Strict) == []


def test_what_only_the_filled_recipe_can_show_is_not_guessed() -> None:
    class Range(Model):
        start: int
        end: int | None = None
        step: int | None = None

        @model_validator(mode="after")
        def _in_order(self) -> Range:
            if self.end is None and self.step is None:
                raise ValueError("one of end and step is needed")
            if self.end is not None and self.start > self.end:
                raise ValueError("start lies behind end")
            return self

    def problems(**parameters: Any) -> list[str]:
        recipe = {"1": {"queue": "a", "parameters": parameters}, "start": [[1, {}]]}
        return checked(recipe, contract("a", parameters=Range))

    assert problems(start="{first}", end=-5) == []
    assert problems(start=5, end="{last}") == []
    assert problems(start="{first}") == ['node 1 "a": "parameters": one of end and step is needed']
    assert problems(start=5, end=-5) == ['node 1 "a": "parameters": start lies behind end']


def test_a_model_that_fails_is_reported_and_does_not_stop_the_check() -> None:
    class Broken(Model):
        @model_validator(mode="before")
        @classmethod
        def _fail(cls, value: Any) -> Any:
            return value["nothing"]

    recipe = {"1": {"queue": "a", "parameters": {"x": 1}}, "start": [[1, {}]]}
    assert checked(recipe, contract("a", parameters=Broken)) == [
        'node 1 "a": "parameters": the service cannot read this: KeyError'
    ]


def test_there_is_an_end_to_it() -> None:
    recipe: dict[str, Any] = {str(n): {"queue": f"q{n}"} for n in range(1, 5000)}
    recipe["start"] = [[n, {}] for n in range(1, 5000)]
    assert len(checked(recipe, *(contract(f"service{n}") for n in range(50)))) == 200


def test_checking_changes_nothing() -> None:
    recipe = Recipe.from_json(GRIDSCAN)
    before = copy.deepcopy(recipe)
    check(recipe, contracts(), PLACEHOLDERS)
    assert recipe == before
