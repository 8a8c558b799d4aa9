"""The static check against contracts of services that are made for it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, model_validator

from parvis.recipe.check import check
from parvis.recipe.graph import Recipe
from parvis.recipe.problem import Problem
from parvis.service.contract import Anything, Contract, Model


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
