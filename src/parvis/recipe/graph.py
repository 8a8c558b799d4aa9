"""A recipe as typed data: nodes, outputs, start; load, merge, serialise, validate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast

from parvis.recipe import join, jsontext
from parvis.recipe.policy import policy_faults
from parvis.recipe.problem import (
    Path,
    Problem,
    RecipeError,
    node_place,
    place,
    shown,
    suggestion,
)
from parvis.transport.base import check_destination

Outputs = Mapping["str | None", "list[int]"]

_NODE_KEYS = ("service", "queue", "topic", "parameters", "output", "error", "transport-delay")
_TOP_KEYS = ("start", "error")


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a recipe: what is done, and where its results go.

    Text may hold placeholders as long as the recipe has not been filled in.

    Attributes:
        number: Its number, above zero.
        queue: Queue that its messages go to, without namespace, or None.
        topic: Topic that its messages go to, or None. With a queue, they go to both.
        service: Label for people, or None.
        parameters: What the service is told; None if the recipe says nothing. Text only where a placeholder
            stands for the whole object.
        outputs: Numbers of the nodes that each output leads to; the key None is the output without a name.
        error: Numbers of the nodes that get what comes of a message that ended for good.
        transport_delay: Seconds that the broker holds back each message to this node, or None. Text only
            where a placeholder stands for the number.
        extra: All other keys, as they stand in the recipe.
    """

    number: int
    queue: str | None = None
    topic: str | None = None
    service: str | None = None
    parameters: dict[str, Any] | str | None = None
    outputs: Outputs = field(default_factory=dict["str | None", "list[int]"])
    error: list[int] = field(default_factory=list[int])
    transport_delay: float | str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def label(self) -> str:
        """What people call it: its service label, or else its queue or topic."""
        return self.service or self.queue or self.topic or ""

    @property
    def place(self) -> str:
        """How problems call it: `node 2 "archiver"`."""
        return node_place(self.number, self.label)

    def links(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """Yield every node number that this node leads to, with the path to what says so."""
        for name, targets in self.outputs.items():
            path = ("output",) if name is None else ("output", name)
            yield from ((path, target) for target in targets)
        yield from ((("error",), target) for target in self.error)

    def to_dict(self) -> dict[str, Any]:
        """Return the node as it stands in a recipe message."""
        written = {
            "service": self.service,
            "queue": self.queue,
            "topic": self.topic,
            "parameters": self.parameters,
            "output": self._output() if self.outputs else None,
            "error": self.error or None,
            "transport-delay": self.transport_delay,
        }
        return {key: value for key, value in written.items() if value is not None} | dict(self.extra)

    def _output(self) -> Any:
        if None in self.outputs:
            return self.outputs[None]
        return {name: ids[0] if len(ids) == 1 else ids for name, ids in self.outputs.items()}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe. Values are shared with whatever it was made of and is made into; nobody changes them.

    Attributes:
        nodes: The nodes by number.
        start: Numbers of the nodes that the recipe starts with, and the payload that each is given.
        error: Numbers of the nodes that stand in for the `error` of each node that has none.
    """

    nodes: Mapping[int, Node]
    start: Sequence[tuple[int, Any]]
    error: Sequence[int] = ()

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """Read the text of a recipe file.

        Raises:
            RecipeError: It is not the JSON form of a recipe. Whether the recipe makes sense, `validate` says.
        """
        content, problems = jsontext.parse(text)
        return _read(content, problems)

    @classmethod
    def from_dict(cls, content: Mapping[Any, Any]) -> Recipe:
        """Read a recipe from plain values: what stands in a recipe message, or a filled recipe.

        Raises:
            RecipeError: It does not have the form of a recipe.
        """
        return _read(content, list(jsontext.examine(content)))

    def to_dict(self) -> dict[str, Any]:
        """Return the form on the wire: node numbers are text as keys, and numbers in outputs."""
        written: dict[str, Any] = {str(number): node.to_dict() for number, node in self.nodes.items()}
        written["start"] = [[number, payload] for number, payload in self.start]
        if self.error:
            written["error"] = list(self.error)
        return written

    def merge(self, other: Recipe) -> Recipe:
        """Return one recipe that does what both do. Nodes of `other` get the numbers after those of this one.

        Raises:
            RecipeError: `other` leads to a node that it does not have, or runs in a circle.
        """
        wrong = [problem for problem in other.local_problems() if problem.severity == "error"]
        if wrong:
            raise RecipeError(wrong)
        highest = max(self.nodes, default=0)
        new = {old: highest + position for position, old in enumerate(other.nodes, start=1)}
        moved = {
            new[node.number]: replace(
                node,
                number=new[node.number],
                outputs={name: [new[target] for target in ids] for name, ids in node.outputs.items()},
                error=[new[target] for target in node.error],
                parameters=join.renumbered(node, new),
            )
            for node in other.nodes.values()
        }
        return Recipe(
            nodes={**self.nodes, **moved},
            start=[*self.start, *((new[number], payload) for number, payload in other.start)],
            error=[*self.error, *(new[number] for number in other.error)],
        )

    def problems(self) -> list[Problem]:
        """Return everything that is wrong with the graph, in time proportional to its size."""
        empty = "is empty, so nothing would happen; write [[number of a node, {}]]"
        nothing = [] if self.start else [Problem("start", empty)]
        return [*nothing, *self.local_problems(), *self._unreached_problems()]

    def local_problems(self) -> list[Problem]:
        """Return the problems of `problems` that are there however much of the recipe is still missing."""
        return [*self._node_problems(), *self._link_problems(), *self._circle_problems()]

    def validate(self) -> None:
        """Check the graph.

        Raises:
            RecipeError: There are problems other than warnings; it holds all of them.
        """
        problems = self.problems()
        if any(problem.severity == "error" for problem in problems):
            raise RecipeError(problems)

    def _node_problems(self) -> Iterator[Problem]:
        for node in self.nodes.values():
            if node.queue is None and node.topic is None:
                text = 'has neither "queue" nor "topic", so whatever is sent to it would be lost'
                yield Problem(node.place, text)
            for key, name in (("queue", node.queue), ("topic", node.topic)):
                if name is not None and "{" not in name:
                    yield from _name_problems(place(node.place, (key,)), name)
            for key, fault in policy_faults(node.extra):
                yield Problem(place(node.place, (key,)), fault)

    def _link_problems(self) -> Iterator[Problem]:
        yield from self._target_problems("start", [((), number) for number, _ in self.start])
        yield from self._target_problems("error", [((), number) for number in self.error])
        for node in self.nodes.values():
            yield from self._target_problems(node.place, node.links())

    def _target_problems(self, origin: str, links: Iterable[tuple[Path, int]]) -> Iterator[Problem]:
        seen: set[tuple[Path, int]] = set()
        for path, target in links:
            if target not in self.nodes:
                text = f"leads to node {target}, which the recipe does not have; it has {self._numbers()}"
                yield Problem(place(origin, path), text)
            elif (path, target) in seen:
                is_error = origin == "error" or path == ("error",)
                more = "once is enough" if is_error else "so it gets everything twice"
                text = f"leads to node {target} twice, {more}"
                yield Problem(place(origin, path), text, "warning")
            seen.add((path, target))

    def _numbers(self) -> str:
        if not self.nodes:
            return "no node at all"
        numbers = ", ".join(str(number) for number in islice(self.nodes, 8))
        return f"nodes {numbers}{', …' if len(self.nodes) > 8 else ''}"

    def _unreached_problems(self) -> Iterator[Problem]:
        reached = self._reached()
        led_to = {target for node in self.nodes.values() for _, target in node.links()}
        for number, node in self.nodes.items():
            # Of a chain that nothing leads to, its first node is the one to mend.
            if number not in reached and number not in led_to:
                text = 'nothing leads to it, so it would never run: name it in "start" or in an output'
                yield Problem(node.place, text)

    def _reached(self) -> set[int]:
        reached: set[int] = set()
        waiting = [*(number for number, _ in self.start), *self.error]
        while waiting:
            number = waiting.pop()
            if number in self.nodes and number not in reached:
                reached.add(number)
                waiting += [target for _, target in self.nodes[number].links()]
        return reached

    def _circle_problems(self) -> Iterator[Problem]:
        """Walk depth first, without recursion: a link back into the way here closes a circle."""
        done: set[int] = set()
        for root in [*(number for number, _ in self.start), *self.nodes]:
            if root not in done and root in self.nodes:
                yield from self._circles_from(root, done)

    def _circles_from(self, root: int, done: set[int]) -> Iterator[Problem]:
        depth = {root: 0}
        way = [(root, self.nodes[root].links())]
        while way:
            number, links = way[-1]
            for path, target in links:
                if target in depth:
                    where = place(self.nodes[number].place, path)
                    yield _circle(
                        where,
                        [step for step, _ in way[depth[target] : depth[target] + 8]],
                        len(way) - depth[target],
                    )
                elif target in self.nodes and target not in done:
                    depth[target] = len(way)
                    way.append((target, self.nodes[target].links()))
                    break
            else:
                way.pop()
                del depth[number]
                done.add(number)


def _circle(where: str, first: list[int], length: int) -> Problem:
    way = " → ".join(str(number) for number in first)
    way += f" → {first[0]}" if length == len(first) else f" → … ({length} nodes)"
    advice = (
        "a recipe must come to an end; a service that wants to see a message again sends itself a checkpoint"
    )
    return Problem(where, f"leads back to node {first[0]}, a circle: {way}; {advice}")


def _name_problems(where: str, name: str) -> Iterator[Problem]:
    try:
        check_destination(name)
    except ValueError as error:
        yield Problem(where, str(error))


def _read(content: Any, problems: list[Problem]) -> Recipe:
    reader = _Reader(problems)
    recipe = reader.recipe(content)
    if reader.problems:
        # Whoever has to mend the form of a recipe wants to hear of the rest as well.
        raise RecipeError([*reader.problems, *recipe.local_problems()])
    return recipe


class _Reader:
    """Reads plain values into a recipe; collects what is wrong, and goes on with what can be read."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems

    def recipe(self, content: Any) -> Recipe:
        if not isinstance(content, Mapping):
            raise RecipeError(
                [*self.problems, Problem("", f"a recipe is a JSON object, this is {shown(content)}")]
            )
        content = cast("Mapping[Any, Any]", content)
        nodes: dict[int, Node] = {}
        for key, value in content.items():
            number = _node_number(key)
            if number is not None:
                if number in nodes:
                    self._complain(node_place(number), "stands there twice")
                nodes[number] = self._node(number, value)
            elif key not in _TOP_KEYS:
                hint = suggestion(str(key), _TOP_KEYS) or "; the keys of nodes are whole numbers above zero"
                self._complain("", f"unknown key {shown(key)} beside the nodes{hint}")
        if "start" not in content:
            hint = 'name the nodes that the recipe starts with: "start": [[1, {}]]'
            self._complain("", f'has no "start"; {hint}')
        start = self._start(content.get("start", []))
        return Recipe(nodes, start, self._targets(content.get("error"), "error"))

    def _node(self, number: int, content: Any) -> Node:
        if not isinstance(content, Mapping):
            self._complain(node_place(number), f"a node is a JSON object, this is {shown(content)}")
            # It cannot be read, but it is there: what leads to it is no mistake.
            return Node(number, queue="unreadable")
        content = cast("Mapping[str, Any]", content)
        label = next((v for k in ("service", "queue", "topic") if isinstance(v := content.get(k), str)), None)
        where = node_place(number, label)
        return Node(
            number,
            queue=self._text(content, "queue", where),
            topic=self._text(content, "topic", where),
            service=self._text(content, "service", where),
            parameters=self._parameters(content.get("parameters"), where),
            outputs=self._outputs(content.get("output"), where),
            error=self._targets(content.get("error"), where, ("error",)),
            transport_delay=self._delay(content.get("transport-delay"), where),
            extra={str(key): value for key, value in content.items() if key not in _NODE_KEYS},
        )

    def _text(self, content: Mapping[str, Any], key: str, where: str) -> str | None:
        value = content.get(key)
        if value is None or isinstance(value, str):
            return value or None
        self._complain(place(where, (key,)), f"must be text, it is {shown(value)}")
        return "unreadable"

    def _parameters(self, value: Any, where: str) -> dict[str, Any] | str | None:
        if value is None or isinstance(value, dict) or (isinstance(value, str) and "{" in value):
            return cast("dict[str, Any] | str | None", value)
        self._complain(place(where, ("parameters",)), f"must be a JSON object, it is {shown(value)}")
        return None

    def _outputs(self, value: Any, where: str) -> dict[str | None, list[int]]:
        if value is None or value == []:
            return {}
        if isinstance(value, Mapping):
            entries = cast("Mapping[Any, Any]", value).items()
            return {str(name): self._targets(ids, where, ("output", str(name))) for name, ids in entries}
        return {None: self._targets(value, where, ("output",))}

    def _targets(self, value: Any, where: str, path: Path = ()) -> list[int]:
        if value is None:
            return []
        entries = cast("list[Any]", value) if isinstance(value, list) else [value]
        numbers = [(entry, _node_number(entry)) for entry in entries]
        for entry, number in numbers:
            if number is None:
                self._complain(
                    place(where, path), f"leads to {shown(entry)}, which is not the number of a node"
                )
        return [number for _, number in numbers if number is not None]

    def _start(self, value: Any) -> list[tuple[int, Any]]:
        form = "must be a list of pairs [number of a node, payload], such as [[1, {}]]"
        if not isinstance(value, list | tuple):
            self._complain("start", f"{form}; it is {shown(value)}")
            return []
        pairs: list[tuple[int, Any]] = []
        for pair in cast("list[Any]", value):
            entry: list[Any] = list(cast("list[Any]", pair)) if isinstance(pair, list | tuple) else []
            number = _node_number(entry[0]) if len(entry) == 2 else None
            if number is None:
                self._complain("start", f"{form}; an entry of it is not")
            else:
                pairs.append((number, entry[1]))
        return pairs

    def _delay(self, value: Any, where: str) -> float | str | None:
        if value is None or (isinstance(value, str) and "{" in value):
            return value
        number = _number(value)
        if number is None or not math.isfinite(number) or number < 0:
            text = f"must be a number of seconds, zero or more; it is {shown(value)}"
            self._complain(place(where, ("transport-delay",)), text)
            return None
        return number

    def _complain(self, where: str, text: str) -> None:
        self.problems.append(Problem(where, text))


def _node_number(value: Any) -> int | None:
    """Read the number of a node, which other programs write as text, too."""
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isdecimal()
        and len(value) < 10
        and value[0] != "0"
    ):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9:
        return value
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if isinstance(value, int) else number
