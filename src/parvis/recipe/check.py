"""A recipe against the contracts of the services it names, before it runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from typing import Any, cast

from pydantic import BaseModel

from parvis.recipe.fit import Misfit, accepted_names, misfits, payload_misfits
from parvis.recipe.graph import Node, Recipe
from parvis.recipe.join import join_problems
from parvis.recipe.policy import POLICY_KEYS
from parvis.recipe.problem import (
    Path,
    Problem,
    listed,
    place,
    printable,
    quoted,
    shown,
    start_place,
    suggestion,
)
from parvis.recipe.template import Placeholder, is_open, scan, unread
from parvis.service.contract import Contract

#: A recipe with more problems than this is not looked at further.
MAX_PROBLEMS = 200

_TRANSIENT = "transient."
_NODE_KEYS = (
    "service",
    "queue",
    "topic",
    "parameters",
    "output",
    "error",
    "transport-delay",
    "exchange",
    *POLICY_KEYS,
)


class FailedMessage(BaseModel):
    """What error nodes are sent; `parvis.service.failure` makes it."""

    error: dict[str, Any]
    payload: Any


def check(
    recipe: Recipe,
    contracts: Mapping[str, Contract],
    known_placeholders: Collection[str] | None = None,
    external_queues: Collection[str] = (),
) -> list[Problem]:
    """Return everything that is wrong with a recipe, as far as that can be said before it runs.

    Args:
        recipe: The recipe, not filled in.
        contracts: The contract of each service, by queue.
        known_placeholders: Names that are filled in when the recipe is dispatched; None if nobody knows.
        external_queues: Queues that somebody else listens to; `*` stands for any part of a name.
    """
    checker = _Checker(recipe, contracts, known_placeholders, external_queues)
    return list(islice(checker.problems(), MAX_PROBLEMS))


class _Checker:
    def __init__(
        self,
        recipe: Recipe,
        contracts: Mapping[str, Contract],
        known_placeholders: Collection[str] | None,
        external_queues: Collection[str],
    ) -> None:
        self._recipe = recipe
        self._contracts = contracts
        self._placeholders = known_placeholders
        self._external = external_queues
        self._error_nodes = {
            *recipe.error,
            *(number for node in recipe.nodes.values() for number in node.error),
        }

    def problems(self) -> Iterator[Problem]:
        yield from self._recipe.problems()
        yield from join_problems(self._recipe)
        yield from self._top_level_error()
        for node in self._recipe.nodes.values():
            yield from self._node(node)
        for number, payload in self._recipe.start:
            yield from self._start(number, payload)

    def _node(self, node: Node) -> Iterator[Problem]:
        content = node.to_dict()
        for key, value in content.items():
            yield from self._templates(value, key, node)
            yield from _unread(unread(value, (key,)), partial(place, node.place))
        if node.queue and node.topic:
            text = 'has both "queue" and "topic", so everything is sent to it twice; leave one out'
            yield Problem(node.place, text, "warning")
        yield from self._error_edges(node)
        contract = self._contracts.get(node.queue or "")
        yield from self._keys(node, contract)
        if contract is not None:
            yield from self._parameters(node, contract)
            yield from self._outputs(node, contract)
        elif node.queue is not None and not self._is_external(node.queue):
            hint = (
                suggestion(node.queue, self._contracts) or f"; known are {listed(sorted(self._contracts))}."
            )
            advice = "If a program outside Parvis does, list the queue under parvis.external_queues"
            text = f"no service listens to {quoted(node.queue)}{hint} {advice}"
            yield Problem(place(node.place, ("queue",)), text)

    def _error_edges(self, node: Node) -> Iterator[Problem]:
        where = place(node.place, ("error",))
        if node.error and node.number in self._error_nodes:
            text = "is not followed, as this is an error node itself: what fails there becomes a dead letter"
            yield Problem(where, text, "warning")
        for target in node.error:
            yield from self._payload(where, FailedMessage, target)

    def _top_level_error(self) -> Iterator[Problem]:
        for target in self._recipe.error:
            yield from self._payload("error", FailedMessage, target)

    def _is_external(self, queue: str) -> bool:
        if "{" in queue or queue.startswith(_TRANSIENT):
            return True
        return any(fnmatchcase(queue, pattern) for pattern in self._external)

    def _templates(self, value: Any, key: str, node: Node) -> Iterator[Problem]:
        for path, placeholder in scan(value, (key,)):
            yield from self._placeholder(placeholder, place(node.place, path))

    def _placeholder(self, placeholder: Placeholder, where: str) -> Iterator[Problem]:
        text = printable(placeholder.text)
        if placeholder.fault:
            yield Problem(where, f"{text}: {placeholder.fault}")
        elif self._placeholders is not None and placeholder.name not in self._placeholders:
            hint = suggestion(placeholder.name, self._placeholders)
            advice = "" if hint else "; if it is given by hand (go -s), name it to the check with --given"
            yield Problem(where, f"{text}: nobody fills in {quoted(placeholder.name)}{hint}{advice}")

    def _keys(self, node: Node, contract: Contract | None) -> Iterator[Problem]:
        own = contract.node_keys if contract else ()
        for key in node.extra:
            if key in own or key in _NODE_KEYS:
                continue
            hint = suggestion(key, [*_NODE_KEYS, *own])
            # A service that nobody knows here may read whatever it likes.
            if contract is not None or hint:
                yield Problem(node.place, f"the key {quoted(key)} is read by nobody{hint}", "warning")

    def _parameters(self, node: Node, contract: Contract) -> Iterator[Problem]:
        if isinstance(node.parameters, str):
            return
        own = {key: node.extra[key] for key in contract.node_keys if key in node.extra}
        values = {**(node.parameters or {}), **own}
        found = misfits(contract.parameters, values)
        for misfit in found:
            yield Problem(_parameter_place(node, misfit.path, own), _parameter_text(misfit, contract))
        for key in contract.node_keys:
            if key not in values and not any(misfit.path == (key,) for misfit in found):
                text = f"is missing; {contract.service} reads it from the node, beside the parameters"
                yield Problem(place(node.place, (key,)), text, "warning")
        names = accepted_names(contract.parameters)
        known = {name for accepted in names.values() for name in accepted}
        strict = contract.parameters.model_config.get("extra") == "forbid"
        for name in node.parameters or {}:
            if known and name not in known:
                usual = [accepted[0] for accepted in names.values()]
                hint = suggestion(name, usual) or f"; it knows {listed(usual)}"
                text = f"{contract.service} has no such parameter{hint}"
                where = place(node.place, ("parameters", name))
                yield Problem(where, text, "error" if strict else "warning")

    def _outputs(self, node: Node, contract: Contract) -> Iterator[Problem]:
        for name, targets in node.outputs.items():
            where = place(node.place, ("output",) if name is None else ("output", name))
            declared = contract.default_output if name is None else contract.output(name)
            if name is not None and "{" in name:
                continue
            if declared is None:
                yield Problem(where, _no_output(name, contract))
                continue
            sent = contract.outputs.get(declared)
            for target in targets:
                yield from self._payload(where, sent, target)

    def _payload(self, where: str, sent: type[BaseModel] | None, target: int) -> Iterator[Problem]:
        node = self._recipe.nodes.get(target)
        taker = self._contracts.get(node.queue or "") if node else None
        if node is None or taker is None or sent is None:
            return
        for text in payload_misfits(sent, taker.payload):
            yield Problem(where, f"does not fit {node.place}: {text}")

    def _start(self, number: int, payload: Any) -> Iterator[Problem]:
        for path, placeholder in scan(payload):
            yield from self._placeholder(placeholder, start_place(number, path))
        yield from _unread(unread(payload), partial(start_place, number))
        node = self._recipe.nodes.get(number)
        contract = self._contracts.get(node.queue or "") if node else None
        if contract is None or (isinstance(payload, str) and is_open(payload)):
            return
        # Recipes in the field write an empty list where there is nothing to say.
        if not (payload is None or payload == [] or isinstance(payload, dict)):
            text = f"is {shown(payload)}, {contract.service} takes an object; write {{}} for an empty one"
            yield Problem(start_place(number), text)
            return
        values = cast("dict[str, Any]", payload or {})
        for misfit in misfits(contract.payload, values):
            if misfit.missing:
                missing = f"{contract.service} needs {quoted(str(misfit.path[-1]))}"
                yield Problem(start_place(number, misfit.path[:-1]), missing)
            else:
                yield Problem(start_place(number, misfit.path), misfit.text)


def _unread(found: Iterator[tuple[Path, str]], where: Callable[[Path], str]) -> Iterator[Problem]:
    for path, fault in found:
        yield Problem(where(path), f"nothing is filled in there: {fault}", "warning")


def _parameter_place(node: Node, path: Path, node_keys: Collection[str]) -> str:
    if path and path[0] in node_keys:
        return place(node.place, path)
    return place(node.place, ("parameters", *path))


def _parameter_text(misfit: Misfit, contract: Contract) -> str:
    if not misfit.missing:
        return misfit.text
    if misfit.path[0] in contract.node_keys and len(misfit.path) == 1:
        return f"is missing; {contract.service} reads it from the node, beside the parameters"
    return f"is missing; {contract.service} needs it"


def _no_output(name: str | None, contract: Contract) -> str:
    outputs = list(contract.outputs)
    if not outputs:
        return f"{contract.service} sends nothing on"
    if name is None:
        return f"{contract.service} has only outputs with names; write which one: {listed(outputs)}"
    hint = suggestion(name, outputs)
    numbers = " (# stands for a whole number above zero)" if any("#" in each for each in outputs) else ""
    return f"{contract.service} has no such output{hint or ';'} it has {listed(outputs)}{numbers}"
