"""A recipe message: the form in which a recipe travels from node to node.

The form on the wire is that of `workflows`: a JSON object with `payload`, `recipe`, `recipe-pointer`,
`recipe-path` and `environment`, under the header `workflows-recipe: True`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from parvis.recipe.policy import PRIORITY, PolicyError, error_targets, priority_of
from parvis.recipe.problem import shown
from parvis.transport.base import Kind, Send

RECIPE_HEADER = "workflows-recipe"
_TRUE = {"True", "true", "1"}
_MOST_DIGITS = 9
_LONGEST_ID = 200


class MalformedMessage(ValueError):
    """A message that cannot be read; the text says what is wrong with it."""


def is_recipe_message(headers: Mapping[str, str]) -> bool:
    """Whether the headers say that the body is a recipe message."""
    return headers.get(RECIPE_HEADER) in _TRUE


def parse_json(body: bytes) -> Any:
    """Read a JSON body. `NaN` and `Infinity`, which are no JSON but which `workflows` writes, become null.

    Raises:
        MalformedMessage: It is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    try:
        return json.loads(body, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise MalformedMessage(f"the body is not JSON: {reason}") from None


def as_object(value: Any) -> dict[str, Any]:
    """Return a JSON object, and an empty one instead of anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def dump_json(value: Any) -> bytes:
    """Write JSON: dates as ISO 8601, NumPy values and decimals as numbers, keys as text.

    Raises:
        TypeError: A value has no form in JSON.
    """
    try:
        return orjson.dumps(
            value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        )
    except orjson.JSONEncodeError as error:
        raise TypeError(str(error.__cause__ or error)) from None


def _plain(value: Any) -> Any:
    from decimal import Decimal

    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent: {str(value)[:80]}")


@dataclass(slots=True)
class Envelope:
    """One message of a running recipe.

    Attributes:
        recipe: The recipe as on the wire: node numbers are text.
        pointer: Number of the node that this message is for.
        path: Numbers of the nodes it came through.
        payload: What the service is given.
        environment: The recipe environment: travels along and may be added to; `ID` is the recipe ID.
    """

    recipe: dict[str, Any]
    pointer: int
    payload: Any
    path: list[int] = field(default_factory=list[int])
    environment: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def parse(cls, body: bytes) -> Envelope:
        """Read a body from the wire.

        Raises:
            MalformedMessage: Something that a recipe message needs is missing or of the wrong kind.
        """
        content = parse_json(body)
        if not isinstance(content, dict):
            raise MalformedMessage(f"a recipe message is a JSON object, this is {_kind(content)}")
        content = cast("dict[str, Any]", content)
        recipe = _object(content, "recipe", required=True)
        pointer = _whole_number(content.get("recipe-pointer"), "recipe-pointer")
        if not isinstance(recipe.get(str(pointer)), dict):
            raise MalformedMessage(f"recipe-pointer is {pointer}, but the recipe has no such node")
        path: Any = content.get("recipe-path") or []
        environment = _object(content, "environment", required=False)
        _check_recipe_id(environment.get("ID"))
        if not isinstance(path, list):
            raise MalformedMessage(f"recipe-path must be a list, it is {_kind(path)}")
        return cls(
            recipe=recipe,
            pointer=pointer,
            payload=content.get("payload"),
            path=[_whole_number(step, "recipe-path") for step in cast("list[Any]", path)],
            environment=environment,
        )

    @property
    def node(self) -> dict[str, Any]:
        """The recipe node that this message is for."""
        return self.recipe[str(self.pointer)]

    @property
    def recipe_id(self) -> str | None:
        """The recipe ID, or None outside a dispatched recipe."""
        value = self.environment.get("ID")
        return None if value is None else str(value)

    def targets(self, output: str, default_output: str | None) -> list[int]:
        """Numbers of the nodes that `output` leads to; none if the recipe does not use that output."""
        outputs = self.node.get("output")
        if isinstance(outputs, dict):
            return node_numbers(cast("dict[str, Any]", outputs).get(output))
        return node_numbers(outputs) if output == default_output else []

    def onward(
        self, output: str, default_output: str | None, payload: Any, delay: float | None = None
    ) -> Iterator[Send]:
        """Yield what sends `payload` to all nodes that `output` leads to.

        Args:
            output: Name of the output.
            default_output: The output of a node whose `output` names none.
            payload: What to send.
            delay: Seconds to wait, in place of the `transport-delay` of the node.

        Raises:
            MalformedMessage: The recipe leads to a node that it does not have, or that cannot be sent to.
        """
        path = [*self.path, self.pointer]
        for target in self.targets(output, default_output):
            yield from self._to(target, path, payload, delay)

    def checkpoint(self, payload: Any, delay: float = 0) -> list[Send]:
        """Return what sends `payload` to this node once more."""
        return self._to(self.pointer, self.path, payload, delay)

    def start(self) -> Iterator[Send]:
        """Yield what starts the recipe: one message for each entry of its `start`."""
        for number, payload in self.recipe["start"]:
            yield from self._to(int(number), [], payload, None)

    def failed(self, payload: Any) -> Iterator[Send]:
        """Yield what sends `payload` to the error nodes of this node; nothing if it has none.

        Nothing either if this message came through one of them: what fails there must not go round.

        Raises:
            MalformedMessage: As `onward`.
        """
        targets = error_targets(self.recipe, self.pointer)
        path = [*self.path, self.pointer]
        if not set(targets).isdisjoint(path):
            return
        for target in targets:
            yield from self._to(target, path, payload, None)

    def _to(self, target: int, path: Sequence[int], payload: Any, delay: float | None) -> list[Send]:
        node = self.recipe.get(str(target))
        if not isinstance(node, dict):
            raise MalformedMessage(
                f"node {self.pointer} leads to node {target}, which the recipe does not have"
            )
        node = cast("dict[str, Any]", node)
        body = dump_json(
            {
                "environment": self.environment,
                "payload": payload,
                "recipe": self.recipe,
                "recipe-path": path,
                "recipe-pointer": target,
            }
        )
        wait = (node.get("transport-delay") or 0) if delay is None else delay
        kinds: tuple[Kind, ...] = ("queue", "topic")
        try:
            priority = self._priority(node)
            return [
                Send(
                    str(node[kind]),
                    body,
                    {RECIPE_HEADER: "True"},
                    kind=kind,
                    delay=float(wait),
                    priority=priority,
                )
                for kind in kinds
                if node.get(kind)
            ]
        except (ValueError, TypeError) as error:
            raise MalformedMessage(f"node {target} of the recipe: {error}") from None

    def _priority(self, node: Mapping[str, Any]) -> int | None:
        """What the node says, or the recipe environment, where other programs may keep something else."""
        own = priority_of(node) if PRIORITY in node else None
        if own is None and PRIORITY in self.environment:
            with contextlib.suppress(PolicyError):
                return priority_of(self.environment)
        return own


def node_numbers(value: Any) -> list[int]:
    """Read one entry of a node's `output`: a number, a list of numbers, or nothing."""
    if value is None:
        return []
    entries = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [_whole_number(entry, "an output") for entry in entries]


def _whole_number(value: Any, what: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_MOST_DIGITS:
        return value
    if isinstance(value, str) and value.isdecimal() and len(value) <= _MOST_DIGITS:
        return int(value)
    raise MalformedMessage(f"{what} must be the number of a node, it is {shown(value)}")


def _check_recipe_id(value: Any) -> None:
    """A recipe ID goes into log lines, headers and paths."""
    if value is not None and not (isinstance(value, str | int) and len(str(value)) <= _LONGEST_ID):
        raise MalformedMessage(f"the recipe ID must be text of at most {_LONGEST_ID} characters")


def _object(content: dict[str, Any], key: str, *, required: bool) -> dict[str, Any]:
    value = content.get(key)
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    if value is None and not required:
        return {}
    raise MalformedMessage(f"{key} must be a JSON object, it is {_kind(value)}")


def _kind(value: Any) -> str:
    names: dict[Any, str] = {
        dict: "an object",
        list: "a list",
        str: "text",
        type(None): "missing or null",
        bool: "true or false",
    }
    return names.get(type(value), "a number")


def envelope_of(headers: Mapping[str, str], body: bytes) -> Envelope | None:
    """Return a message as one of a recipe; None if it is none, or cannot be read."""
    if not is_recipe_message(headers):
        return None
    try:
        return Envelope.parse(body)
    except (MalformedMessage, RecursionError):
        return None
