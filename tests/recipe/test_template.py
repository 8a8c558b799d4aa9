"""Placeholders: what is filled in, what stays, what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis.recipe.graph import Recipe
from parvis.recipe.problem import RecipeError
from parvis.recipe.template import TemplateError, fill, fill_recipe, placeholders, unread

PARAMETERS: dict[str, Any] = {
    "ispyb_dcid": 993677,
    "ispyb_dc_info": {
        "imageDirectory": "/data/",
        "gridinfo": {"steps_x": 3},
        "wavelength": 0.97,
        "0": "zero",
    },
    "files": ["a.cbf", "b.cbf"],
    "name": "thau",
    "nothing": None,
    "my-name": "dash",
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{ispyb_dcid}", "993677"),
        ("dc {ispyb_dcid} of {name}", "dc 993677 of thau"),
        ("{ispyb_dc_info[imageDirectory]}x", "/data/x"),
        ("{ispyb_dc_info[gridinfo][steps_x]}", "3"),
        ("{files[0]}", "a.cbf"),
        ("{name[1]}", "h"),
        ("{ispyb_dc_info[0]}", "zero"),
        ("{my-name}", "dash"),
        ("{nothing}", "None"),
        ("{missing}", "{missing}"),
        ("{missing[x][y]}", "{missing[x][y]}"),
        ("{ispyb_dcid:08d}", "00993677"),
        ("{ispyb_dc_info[wavelength]:.3f}", "0.970"),
        ("{name:>6}", "  thau"),
        ("{name!s}", "thau"),
        ("{{ispyb_dcid}}", "{ispyb_dcid}"),
        ("{{{ispyb_dcid}}}", "{993677}"),
        ("awk '{print $1}'", "awk '{print $1}'"),
        ("find . -exec rm {} ;", "find . -exec rm {} ;"),
        ("cp {a.txt,b.txt} .", "cp {a.txt,b.txt} ."),
        ("{0}", "{0}"),
        ("lone { and } braces", "lone { and } braces"),
        ("${ispyb_dcid} $name", "${ispyb_dcid} $name"),
        ("{$REPLACE:ispyb_dc_info[gridinfo]}", {"steps_x": 3}),
        ("{$REPLACE:files}", ["a.cbf", "b.cbf"]),
        ("{$REPLACE:files[1]}", "b.cbf"),
        ("{$REPLACE:ispyb_dcid}", 993677),
        ("{$REPLACE:missing}", None),
        ("{$REPLACE:missing[key]}", None),
        ("{$REPLACE:ispyb_dc_info[missing][key]}", None),
    ],
)
def test_texts(text: str, filled: Any) -> None:
    assert fill(text, PARAMETERS) == filled


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "{ispyb_dcid.__class__}",
            "{ispyb_dcid.__class__}: a recipe cannot reach the attributes of a parameter; "
            "a key of it is written {name[key]}",
        ),
        ("{missing.__init__.__globals__[sys]}", "a recipe cannot reach the attributes of a parameter"),
        ("{ispyb_dc_info[gridinfo].keys}", "a recipe cannot reach the attributes of a parameter"),
        ("{ispyb_dcid:>200000000}", 'the format ">200000000" is not known'),
        ("{ispyb_dcid:>9999}", 'the format ">9999" is wider than 200 characters'),
        ("{ispyb_dcid:.999999999f}", "is not known; write for example {name:05d} or {name:.3f}"),
        ("{ispyb_dcid!r}", "{ispyb_dcid!r}: the only conversion is !s"),
        ("{name:05d}", 'the format "05d" does not fit "thau"'),
        ("{files:>5}", 'the format ">5" does not fit a list'),
        (
            "{ispyb_dc_info[wavelenght]}",
            '{ispyb_dc_info[wavelenght]}: "ispyb_dc_info" has no "wavelenght"; did you mean "wavelength"? '
            'it has "imageDirectory", "gridinfo", "wavelength", "0"',
        ),
        ("{files[7]}", '{files[7]}: "files" is a list of 2, it has no entry "7"'),
        ("{files[x]}", '"files" is a list of 2, it has no entry "x"'),
        ("{files[-1]}", '"files" is a list of 2, it has no entry "-1"'),
        ("{ispyb_dcid[x]}", '"ispyb_dcid" is 993677, it has no "x"'),
        ("{ispyb_dc_info[gridinfo][steps]}", '"ispyb_dc_info[gridinfo]" has no "steps"'),
        ("{nothing[x]}", '"nothing" is null, it has no "x"'),
        (
            "the {$REPLACE:files}",
            "{$REPLACE:files}: stands for an object, so it must be the whole of a value, with nothing ",
        ),
        ("{$REPLACE:files.append}", "a recipe cannot reach the attributes of a parameter"),
        ("{$REPLACE:a b}", "write {$REPLACE:name} or {$REPLACE:name[key]}"),
        ("{$REPLACE:files:>5}", "an object cannot be formatted"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(TemplateError) as error:
        fill({"a": ["b", text]}, PARAMETERS, "somewhere")
    assert problem in str(error.value)
    assert str(error.value).startswith('somewhere: "a[1]": ')


def test_keys_are_filled_too() -> None:
    assert fill({"{name}": {"x{ispyb_dcid}": 1}, 5: 2}, PARAMETERS) == {"thau": {"x993677": 1}, 5: 2}


def test_two_keys_must_not_become_one() -> None:
    with pytest.raises(TemplateError, match='two keys become "thau"'):
        fill({"{name}": 1, "thau": 2}, PARAMETERS)


def test_an_object_cannot_be_a_key() -> None:
    with pytest.raises(TemplateError, match="must be the whole of a value"):
        fill({"{$REPLACE:name}": 1}, PARAMETERS)


def test_what_is_not_text_stays() -> None:
    value = {"a": 1, "b": [None, True, 2.5], "c": {}}
    assert fill(value, PARAMETERS) == value


def test_objects_are_copied() -> None:
    parameters = copy.deepcopy(PARAMETERS)
    first = fill("{$REPLACE:ispyb_dc_info}", parameters)
    first["gridinfo"]["steps_x"] = 99
    assert parameters == PARAMETERS


def test_the_result_is_bounded() -> None:
    big = {"list": list(range(100_000))}
    with pytest.raises(TemplateError, match="larger than 16 MiB"):
        fill(["{big}"] * 100, {"big": big})
    with pytest.raises(TemplateError, match="larger than 16 MiB"):
        fill(["{$REPLACE:big}"] * 1000, {"big": big})


def test_a_parameter_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TemplateError, match="nested more than 64 levels deep"):
        fill("{$REPLACE:loop}", {"loop": loop})


def test_a_recipe_is_filled_everywhere() -> None:
    recipe = Recipe.from_dict(
        {
            "1": {
                "service": "{name}",
                "queue": "{missing}",
                "parameters": {"dcid": "{ispyb_dcid}", "{name}": ["{files[1]}"]},
                "gridinfo": "{$REPLACE:ispyb_dc_info[gridinfo]}",
                "output": {"{name}": 2},
                "transport-delay": "{ispyb_dcid}",
            },
            "2": {"queue": "x.{name}", "parameters": "{$REPLACE:ispyb_dc_info}"},
            "start": [[1, {"file": "{files[0]}"}], [2, "{$REPLACE:files}"]],
        }
    )
    before = recipe.to_dict()
    filled = fill_recipe(recipe, PARAMETERS | {"missing": "queue"})
    assert filled.to_dict() == {
        "1": {
            "service": "thau",
            "queue": "queue",
            "parameters": {"dcid": "993677", "thau": ["b.cbf"]},
            "gridinfo": {"steps_x": 3},
            "output": {"thau": 2},
            "transport-delay": 993677.0,
        },
        "2": {"queue": "x.thau", "parameters": PARAMETERS["ispyb_dc_info"]},
        "start": [[1, {"file": "a.cbf"}], [2, ["a.cbf", "b.cbf"]]],
    }
    assert recipe.to_dict() == before


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"parameters": {"list": ["{ispyb_dc_info[x]}"]}}, 'node 1 "watcher": parameter "list[0]": '),
        ({"gridinfo": {"x": "{files.x}"}}, 'node 1 "watcher": "gridinfo[x]": '),
        ({"queue": "{files[9]}"}, 'node 1 "watcher": "queue": '),
    ],
)
def test_errors_name_the_place_in_the_recipe(change: dict[str, Any], where: str) -> None:
    recipe = Recipe.from_dict({"1": {"service": "watcher", "queue": "q", **change}, "start": [[1, {}]]})
    with pytest.raises(TemplateError) as error:
        fill_recipe(recipe, PARAMETERS)
    assert str(error.value).startswith(where)


def test_errors_in_payloads_name_the_start() -> None:
    recipe = Recipe.from_dict({"1": {"queue": "q"}, "start": [[1, {"file": "{files[9]}"}]]})
    with pytest.raises(TemplateError, match=r'^start of node 1: "file": '):
        fill_recipe(recipe, PARAMETERS)


def test_what_is_filled_in_must_leave_a_valid_recipe() -> None:
    recipe = Recipe.from_dict({"1": {"queue": "{where}"}, "start": [[1, {}]]})
    with pytest.raises(RecipeError, match="cannot name a queue"):
        fill_recipe(recipe, {"where": "x\ny"})
    delayed = Recipe.from_dict({"1": {"queue": "q", "transport-delay": "{delay}"}, "start": [[1, {}]]})
    with pytest.raises(RecipeError, match='must be a number of seconds, zero or more; it is "-5"'):
        fill_recipe(delayed, {"delay": -5})


def test_placeholders_names_what_a_value_asks_for() -> None:
    value = {
        "{key}": "{a[b][0]} {{escaped}} {c:05d} ${environment}",
        "x": ["{$REPLACE:d[e]}", 5, "awk '{print $1}' {}"],
    }
    assert placeholders(value) == {"key", "a", "c", "d"}


def test_an_error_can_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(TemplateError("node 1", "no")))  # noqa: S301 - our own bytes
    assert str(error) == "node 1: no"


@given(st.text(alphabet="{}$x[]:!.01 R", max_size=30))
def test_no_text_breaks_it(text: str) -> None:
    try:
        filled = fill(text, {"x": {"0": "v", "x": 5}})
    except TemplateError:
        return
    if not isinstance(filled, str):
        assert text.startswith("{$REPLACE:") or filled is None
    elif "{" not in text and "}" not in text:
        assert filled == text


@given(
    st.lists(
        st.sampled_from(
            [
                "{a}",
                "{b[c]}",
                "{l[0]}",
                "{missing}",
                "{missing[x]}",
                "{{",
                "}}",
                "{{a}}",
                " ",
                "text",
                "{n:05d}",
                "%",
            ]
        ),
        max_size=8,
    )
)
def test_workflows_fills_the_same(pieces: list[str]) -> None:
    workflows = pytest.importorskip("workflows.recipe")
    parameters = {"a": "A", "b": {"c": 7}, "l": ["first"], "n": 42}
    content = {"1": {"queue": "q", "parameters": {"x": "".join(pieces)}}, "start": [[1, {}]]}
    theirs = workflows.Recipe(copy.deepcopy(content))
    theirs.apply_parameters(parameters)
    assert theirs == fill_recipe(Recipe.from_dict(content), parameters).to_dict()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("/data/{ispyb_dcid/x", "a { without"),
        ("/data/ispyb_dcid}/x", "a } without"),
        ("{a} and {b", "a { without"),
        ("}{", "a } without"),
        ("{{{", "a { without"),
        ("{ispyb dcid}", "a space"),
        ("{name} {ispyb_dc_info[wavelength] }", "a space"),
    ],
)
def test_what_looks_like_a_placeholder_and_is_none_is_found(text: str, fault: str) -> None:
    ((path, said),) = unread({"plain": "x", "files": ["{name}", text]})
    assert path == ("files", 1)
    assert fault in said


@pytest.mark.parametrize(
    "text",
    [
        "{{ is one",
        "one is }}",
        "{{{name}}}",
        '{"a": {"b": 1}}',
        "${HOME}/{name:05d}",
        "{files:>5}",
        "{}",
        "{ }",
        "a{3}",
        "plain",
    ],
)
def test_other_braces_are_left_alone(text: str) -> None:
    assert list(unread(text)) == []
