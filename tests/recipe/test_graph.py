"""Recipes: reading, writing, merging, validating."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvis.recipe.graph import Node, Recipe
from parvis.recipe.problem import Problem, RecipeError

CHAIN: dict[str, Any] = {
    "1": {"service": "first", "queue": "a", "parameters": {"x": 1}, "output": {"every": 2, "last": [2, 3]}},
    "2": {
        "queue": "b",
        "output": [3],
        "gridinfo": "{$REPLACE:grid}",
        "job_parameters": {"deep": [1, {"y": None}]},
    },
    "3": {"topic": "c", "transport-delay": 2.5, "error": [4]},
    "4": {"queue": "d", "topic": "e", "parameters": {}},
    "start": [[1, {"purpose": "test"}], [4, []]],
    "error": [4],
}


def problems_of(content: Any) -> list[str]:
    """What is said of a recipe, whether it is noticed on reading or on validating."""
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    try:
        return [str(problem) for problem in Recipe.from_json(text).problems()]
    except RecipeError as error:
        return [str(problem) for problem in error.problems]


def one_node(**node: Any) -> dict[str, Any]:
    return {"1": {"service": "only", "queue": "a", **node}, "start": [[1, {}]]}


def test_a_recipe_is_read_into_typed_nodes() -> None:
    recipe = Recipe.from_dict(CHAIN)
    assert recipe.nodes[1].outputs == {"every": [2], "last": [2, 3]}
    assert recipe.nodes[2].outputs == {None: [3]}
    assert recipe.nodes[2].extra == {
        "gridinfo": "{$REPLACE:grid}",
        "job_parameters": {"deep": [1, {"y": None}]},
    }
    assert recipe.nodes[3].transport_delay == 2.5
    assert recipe.nodes[3].error == [4]
    assert recipe.start == [(1, {"purpose": "test"}), (4, [])]
    assert recipe.problems() == []


def test_reading_and_writing_changes_nothing() -> None:
    assert Recipe.from_dict(CHAIN).to_dict() == CHAIN
    assert Recipe.from_json(json.dumps(CHAIN)).to_dict() == CHAIN
    assert Recipe.from_json(json.dumps(CHAIN).encode()).to_dict() == CHAIN


def test_scalar_outputs_and_numbers_as_text_are_read_as_other_programs_write_them() -> None:
    written = {
        "1": {"queue": "a", "output": "2"},
        "2": {"queue": "b", "output": 3, "transport-delay": "7"},
        3: {"queue": "c", "output": None},
        "start": [("1", None)],
    }
    assert Recipe.from_dict(written).to_dict() == {
        "1": {"queue": "a", "output": [2]},
        "2": {"queue": "b", "output": [3], "transport-delay": 7.0},
        "3": {"queue": "c"},
        "start": [[1, None]],
    }


def test_workflows_accepts_what_we_write() -> None:
    workflows = pytest.importorskip("workflows.recipe")
    theirs = workflows.Recipe(Recipe.from_dict(CHAIN).to_dict())
    theirs.validate()
    assert theirs == workflows.Recipe(CHAIN)


@given(
    st.dictionaries(
        st.text(max_size=5), st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=5)), max_size=4
    ),
    st.lists(
        st.one_of(
            st.text(max_size=3), st.booleans(), st.floats(allow_nan=False, allow_infinity=False, width=16)
        ),
        max_size=3,
    ),
)
def test_unknown_keys_and_payloads_survive(extra: dict[str, Any], payload: list[Any]) -> None:
    known = {"service", "queue", "topic", "parameters", "output", "error", "transport-delay"}
    content = one_node(**{key: value for key, value in extra.items() if key not in known})
    content["start"] = [[1, payload]]
    assert Recipe.from_dict(content).to_dict() == content


def test_merging_renumbers_the_second_and_joins_starts() -> None:
    other = {
        "7": {"queue": "x", "output": {"out": 3}, "error": [3]},
        "3": {"queue": "y"},
        "start": [[7, "go"]],
        "error": [3],
    }
    first, second = Recipe.from_dict(CHAIN), Recipe.from_dict(other)
    before = copy.deepcopy((first, second))
    merged = first.merge(second)
    assert merged.to_dict() == {
        **CHAIN,
        "5": {"queue": "x", "output": {"out": 6}, "error": [6]},
        "6": {"queue": "y"},
        "start": [*CHAIN["start"], [5, "go"]],
        "error": [4, 6],
    }
    assert (first, second) == before
    merged.validate()


def test_merging_numbers_as_workflows_does() -> None:
    workflows = pytest.importorskip("workflows.recipe")
    other = {"9": {"queue": "x", "output": [2]}, "2": {"queue": "y"}, "start": [[9, "go"]]}
    theirs = workflows.Recipe(copy.deepcopy(CHAIN)).merge(workflows.Recipe(copy.deepcopy(other)))
    assert theirs == Recipe.from_dict(CHAIN).merge(Recipe.from_dict(other)).to_dict()


def test_merging_with_a_recipe_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(RecipeError, match="leads to node 5, which the recipe does not have"):
        Recipe.from_dict(CHAIN).merge(Recipe.from_dict(one_node(output=5)))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "a recipe is a JSON object, this is a list"),
        (
            {"1": {"queue": "a"}},
            'has no "start"; name the nodes that the recipe starts with: "start": [[1, {}]]',
        ),
        (
            {"1": {"queue": "a"}, "start": 1},
            "start: must be a list of pairs [number of a node, payload], such as [[1, {}]]; it is 1",
        ),
        (
            {"1": {"queue": "a"}, "start": [[1]]},
            "start: must be a list of pairs [number of a node, payload], such as [[1, {}]]; an entry of it ",
        ),
        (
            {"1": {"queue": "a"}, "start": [["start", {}]]},
            "start: must be a list of pairs [number of a node, payload], such as [[1, {}]]; an entry of it ",
        ),
        (
            {"1": {"queue": "a"}, "start": []},
            "start: is empty, so nothing would happen; write [[number of a node, {}]]",
        ),
        (
            {"1": {"queue": "a"}, "start": [[2, {}]]},
            "start: leads to node 2, which the recipe does not have; it has nodes 1",
        ),
        (
            {"1": {"queue": "a"}, "start": [[1, {}], [1, {}]]},
            "start: leads to node 1 twice, so it gets everything twice",
        ),
        (
            {"1": {"queue": "a"}, "2": {"queue": "b"}, "start": [[1, {}]], "error": [2, 2]},
            "error: leads to node 2 twice, once is enough",
        ),
        (
            {"1": {"queue": "a", "error": [2, 2]}, "2": {"queue": "b"}, "start": [[1, {}]]},
            'node 1 "a": "error": leads to node 2 twice, once is enough',
        ),
        (
            {"archiver": {"queue": "a"}, **one_node()},
            'unknown key "archiver" beside the nodes; the keys of nodes are whole numbers above zero',
        ),
        (
            {"0": {"queue": "a"}, **one_node()},
            'unknown key "0" beside the nodes; the keys of nodes are whole numbers above zero',
        ),
        ({"strat": [[1, {}]], **one_node()}, 'unknown key "strat" beside the nodes; did you mean "start"?'),
        ({**one_node(), "1": ["a"]}, "node 1: a node is a JSON object, this is a list"),
        (
            one_node(queue=None),
            'node 1 "only": has neither "queue" nor "topic", so whatever is sent to it would be lost',
        ),
        (one_node(queue=5), 'node 1 "only": "queue": must be text, it is 5'),
        (
            one_node(queue="/queue/x"),
            'node 1 "only": "queue": \'/queue/x\' cannot name a queue: use letters, digits',
        ),
        (one_node(parameters=[1]), 'node 1 "only": "parameters": must be a JSON object, it is a list'),
        (
            one_node(output={"first": "mail"}),
            'node 1 "only": output "first": leads to "mail", which is not the number of a node',
        ),
        (one_node(output=True), 'node 1 "only": "output": leads to true, which is not the number of a node'),
        (
            one_node(output={"first": [2]}),
            'node 1 "only": output "first": leads to node 2, which the recipe does not have; it has nodes 1',
        ),
        (
            one_node(error=[2]),
            'node 1 "only": "error": leads to node 2, which the recipe does not have; it has nodes 1',
        ),
        (
            one_node(output=1),
            'node 1 "only": "output": leads back to node 1, a circle: 1 → 1; a recipe must come to an end; '
            "a service that wants to see a message again sends itself a checkpoint",
        ),
        (
            {**one_node(), "2": {"queue": "b"}},
            'node 2 "b": nothing leads to it, so it would never run: name it in "start" or in an output',
        ),
        (
            one_node(**{"transport-delay": -1}),
            'node 1 "only": "transport-delay": must be a number of seconds, zero or more; it is -1',
        ),
        (
            one_node(**{"transport-delay": "soon"}),
            'node 1 "only": "transport-delay": must be a number of seconds, zero or more; it is "soon"',
        ),
        (
            one_node(parameters={"n": 2**64}),
            'node 1: parameter "n": the whole number does not fit in 64 bits; write it as text',
        ),
        (
            '{"1": {"queue": "a", "parameters": {"n": 1, "n": 2}}, "start": [[1, {}]]}',
            'node 1: "parameters": the key "n" stands there more than once; only the last would count',
        ),
        (
            '{"1": {"queue": "a"}, "1": {"queue": "b"}, "start": [[1, {}]]}',
            'the key "1" stands there more than once; only the last would count',
        ),
        (
            '{"1": {"queue": "a\\ud800"}, "start": [[1, {}]]}',
            'node 1: "queue": half of a surrogate pair is not a character',
        ),
        (
            '{"1": {"queue": "a"}, "start": [[1, {"t": 1e999}]]}',
            'recipe: "start[0][1][t]": the number is too large',
        ),
        ('{"1": {"queue": "a"}, "start": [[1, NaN]]}', "not JSON: NaN is not a number that JSON knows"),
        ('{\n "1": {"queue" "a"}\n}', "line 2, column 16: not JSON: expecting ':' delimiter"),
        (b'{\n"1": "\xff"}', "line 2: not text in UTF-8"),
        ('{"1": ' + "9" * 5000 + "}", "a number in it has too many digits"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(content: Any, problem: str) -> None:
    assert [text for text in problems_of(content) if text.startswith(problem)], problems_of(content)


def test_all_problems_are_found_at_once() -> None:
    content = {
        "1": {"queue": "a", "output": {"first": "x"}, "transport-delay": "y"},
        "2": {"output": 1},
        "tsart": 3,
        "start": [[1, {}]],
    }
    assert len(problems_of(content)) == 4


def test_a_circle_is_reported_at_the_link_that_closes_it() -> None:
    content = {str(n): {"queue": "q", "output": {"next": n + 1}} for n in range(1, 5)}
    content["5"] = {"queue": "q", "output": {"again": 2}}
    found = Recipe.from_dict({**content, "start": [[1, {}]]}).problems()
    assert [problem.where for problem in found] == ['node 5 "q": output "again"']
    assert "a circle: 2 → 3 → 4 → 5 → 2" in found[0].text


def test_diamonds_do_not_multiply_the_work() -> None:
    """Every path through 1000 diamonds would be 2 to the power of 1000 of them."""
    content: dict[str, Any] = {}
    for n in range(1, 3000, 3):
        content |= {
            str(n): {"queue": "q", "output": [n + 1, n + 2]},
            str(n + 1): {"queue": "q", "output": [n + 3]},
            str(n + 2): {"queue": "q", "output": [n + 3]},
        }
    content["3001"] = {"queue": "q"}
    Recipe.from_dict({**content, "start": [[1, {}]]}).validate()


def test_a_chain_may_be_longer_than_the_stack_is_deep() -> None:
    length = 5000
    content: dict[str, Any] = {str(n): {"queue": "q", "output": [n + 1]} for n in range(1, length)}
    recipe = Recipe.from_dict({**content, str(length): {"queue": "q"}, "start": [[1, {}]]})
    recipe.validate()
    closed = Recipe.from_dict({**content, str(length): {"queue": "q", "output": [1]}, "start": [[1, {}]]})
    with pytest.raises(RecipeError, match=r"a circle: 1 → 2 → .* → … \(5000 nodes\)"):
        closed.validate()


def test_many_circles_in_a_deep_chain_are_all_found() -> None:
    length = 5000
    content: dict[str, Any] = {str(n): {"queue": "q", "output": [n + 1, 1]} for n in range(1, length)}
    content[str(length)] = {"queue": "q", "output": [1]}
    assert len(Recipe.from_dict({**content, "start": [[1, {}]]}).problems()) == length


def test_deep_nesting_is_refused_without_recursion() -> None:
    nested: Any = {}
    for _ in range(5000):
        nested = {"a": nested}
    with pytest.raises(RecipeError, match="nested more than 64 levels deep"):
        Recipe.from_dict(one_node(parameters=nested))
    with pytest.raises(RecipeError, match="nested more than 64 levels deep"):
        Recipe.from_json("[" * 200_000 + "]" * 200_000)


def test_size_is_bounded() -> None:
    with pytest.raises(RecipeError, match="larger than 16 MiB"):
        Recipe.from_json(b" " * (16 * 2**20 + 1))
    with pytest.raises(RecipeError, match="more than 1000000 values"):
        Recipe.from_dict(one_node(parameters={"list": [0] * 1_000_001}))


def test_warnings_alone_do_not_make_a_recipe_invalid() -> None:
    recipe = Recipe.from_dict({"1": {"queue": "a"}, "start": [[1, {}], [1, {}]]})
    assert [problem.severity for problem in recipe.problems()] == ["warning"]
    recipe.validate()


def test_an_error_shows_some_problems_and_holds_all() -> None:
    error = RecipeError([Problem("node 1", f"problem {n}") for n in range(50)])
    assert str(error).startswith("node 1: problem 0; node 1: problem 1; ")
    assert str(error).endswith("and 40 more problems")
    assert len(error.problems) == 50


def test_hostile_text_cannot_write_to_the_terminal() -> None:
    (text,) = problems_of(one_node(service="\x1b[2J\u202e" + "x" * 500, output=7))
    assert text.isprintable()
    assert len(text) < 200


def test_a_recipe_can_be_built_by_hand() -> None:
    recipe = Recipe({1: Node(1, queue="a", outputs={"out": [2]}), 2: Node(2, queue="b")}, [(1, {})])
    recipe.validate()
    assert recipe.to_dict() == {
        "1": {"queue": "a", "output": {"out": 2}},
        "2": {"queue": "b"},
        "start": [[1, {}]],
    }
