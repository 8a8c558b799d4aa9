"""What is known of a running job from the messages that `parvis.recipe.watch` has sent back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from parvis.recipe.envelope import (
    Envelope,
    MalformedMessage,
    as_object,
    is_recipe_message,
    node_numbers,
    parse_json,
)
from parvis.recipe.watch import DEAD_LETTER_KEY, ERROR_KEY, SERVICE_LABEL
from parvis.transport.base import Message


@dataclass
class _Watcher:
    """A file watcher of the recipe: how many images it expects, and how it ended.

    Attributes:
        expected: How many images there are to be; None as long as nobody knows.
        seen: How many there were, at the end.
        success: Whether that were all; None before the end.
    """

    expected: int | None
    seen: int | None = None
    success: bool | None = None


@dataclass
class Job:
    """A job that is being followed.

    Attributes:
        recipe_id: The recipe ID; None before the start.
        images: Results in order of arrival, one an image and node.
        centres: Results of the centring.
        rejected: Why the dispatcher started nothing, or None.
        aborted: The centring gave up.
        dead_letters: Node, service and reason of each message of the recipe that was set aside.
    """

    recipe_id: str | None = None
    images: dict[tuple[Any, ...], dict[str, Any]] = field(
        default_factory=dict[tuple[Any, ...], "dict[str, Any]"]
    )
    centres: dict[int, dict[str, Any]] = field(default_factory=dict[int, "dict[str, Any]"])
    rejected: str | None = None
    aborted: bool = False
    dead_letters: list[tuple[int, str, str]] = field(default_factory=list["tuple[int, str, str]"])
    _recipe: dict[str, Any] | None = None
    _watchers: dict[int, _Watcher] = field(default_factory=dict[int, _Watcher])
    _analyses: set[int] = field(default_factory=set[int])
    _centrings: set[int] = field(default_factory=set[int])

    def take(self, message: Message) -> dict[str, Any] | None:
        """Learn from a message; return the event for programs, or None if it says nothing new.

        What is malformed says nothing: it is none of what the recipe sends.
        """
        try:
            if not is_recipe_message(message.headers):
                return self._take_failure(parse_json(message.body))
            envelope = Envelope.parse(message.body)
            if self._recipe is None:
                self._plan(envelope)
        except MalformedMessage:
            return None
        sender = envelope.path[-1] if envelope.path else 0
        return self._take_event(_event(envelope.node), sender, as_object(envelope.payload))

    @property
    def expected(self) -> int | None:
        """How many image results will come, or None as long as nobody knows."""
        total = 0
        for analysis in self._analyses:
            for count in self._feeds(analysis):
                if count is None:
                    return None
                total += count
        return total

    @property
    def watches_nothing(self) -> bool:
        """Whether it has started, and nothing in its recipe sends anything back."""
        return self._recipe is not None and not (self._watchers or self._analyses or self._centrings)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come that matters."""
        if self.rejected is not None or self.aborted or self.watches_nothing:
            return True
        if self._recipe is None or self._dead_at(self._watchers):
            return self._recipe is not None
        if any(watcher.success is None for watcher in self._watchers.values()):
            return False
        expected = self.expected
        lost = self._dead_at(self._analyses)
        if expected is None or len(self.images) + lost < expected:
            return False
        if not self._is_complete or lost or self._dead_at(self._centrings):
            return True
        return self._centrings <= self.centres.keys()

    @property
    def seems_over(self) -> bool:
        """Whether it is over but for image results, which a lost connection may have kept from us."""
        ended = all(watcher.success is not None for watcher in self._watchers.values())
        return self._recipe is not None and ended and self._centrings <= self.centres.keys()

    def _dead_at(self, nodes: Collection[int]) -> int:
        return sum(node in nodes for node, _, _ in self.dead_letters)

    @property
    def failure(self) -> str | None:
        """Why the job, which is over, has failed; None if it has not."""
        if self.rejected is not None:
            return f"The dispatcher started nothing: {self.rejected}"
        if self.dead_letters:
            _, service, reason = self.dead_letters[0]
            number = len(self.dead_letters)
            what = "A message was" if number == 1 else f"{number} messages were, the first"
            return f"{what} given up by {service}: {reason}"
        if not self._is_complete:
            ended = [watcher for watcher in self._watchers.values() if watcher.success is False]
            seen = sum(watcher.seen or 0 for watcher in ended)
            expected = sum(watcher.expected or 0 for watcher in ended)
            return f"Only {seen} of {expected} images appeared before the file watcher gave up."
        if self.aborted:
            return "The centring gave up: not all images of the grid were analysed in time."
        return None

    @property
    def _is_complete(self) -> bool:
        return all(watcher.success is not False for watcher in self._watchers.values())

    def _take_failure(self, content: Any) -> dict[str, Any] | None:
        letter = as_object(as_object(content).get(DEAD_LETTER_KEY))
        if letter:
            node, service, reason = (letter.get(key) for key in ("node", "service", "reason"))
            self.dead_letters.append((node if isinstance(node, int) else 0, str(service), str(reason)))
            return {"event": "dead-letter", "service": service, "reason": reason}
        reason = as_object(content).get(ERROR_KEY)
        if reason is None:
            return None
        self.rejected = " ".join(str(reason).split())
        return {"event": "rejected", "reason": self.rejected}

    def _take_event(self, event: str | None, sender: int, payload: dict[str, Any]) -> dict[str, Any] | None:
        match event:
            case "started":
                return {"event": "started", "recipe_id": self.recipe_id}
            case "image":
                return self._take_image(sender, payload)
            case "finished":
                return self._take_end(sender, payload)
            case "centred" if sender not in self.centres:
                self.centres[sender] = payload
                return {"event": "centre", "result": payload}
            case "abort":
                self.aborted = True
                return {"event": "abort"}
            case _:
                return None

    def _take_image(self, sender: int, payload: dict[str, Any]) -> dict[str, Any] | None:
        names = ("file", "file-number", "file-pattern-index", "file-list-index", "hdf5-index")
        key = (sender, *(str(payload.get(name)) for name in names))
        if key in self.images:  # delivered twice
            return None
        self.images[key] = payload
        return {"event": "image", "result": payload}

    def _take_end(self, sender: int, payload: dict[str, Any]) -> dict[str, Any] | None:
        watcher = self._watchers.get(sender)
        if watcher is None or watcher.success is not None:
            return None
        watcher.expected = _count(payload, "expected")
        watcher.seen = _count(payload, "seen")
        watcher.success = bool(payload.get("success"))
        return {"event": "finished", "result": payload}

    def _plan(self, envelope: Envelope) -> None:
        """Read from the recipe what will be sent back."""
        for number, _, target in list(_links(envelope.recipe)):
            match _event(envelope.recipe.get(str(target))):
                case "finished":
                    self._watchers[number] = _Watcher(_images_in(envelope.recipe[str(number)]))
                case "image":
                    self._analyses.add(number)
                case "centred":
                    self._centrings.add(number)
                case _:
                    pass
        self._recipe = envelope.recipe
        self.recipe_id = envelope.recipe_id

    def _feeds(self, analysis: int) -> Iterator[int | None]:
        """Yield how many images a per-image analysis gets from each that sends it any."""
        recipe = self._recipe or {}
        for entry in cast("list[Any]", recipe.get("start") or []):
            if isinstance(entry, list) and str(cast("list[Any]", entry)[:1]) == str([analysis]):
                yield 1
        for number, output, target in _links(recipe):
            if target == analysis:
                watcher = self._watchers.get(number)
                yield None if watcher is None else _images_at(output, watcher)


def _event(node: Any) -> str | None:
    """Return the event that a node stands for, if it is one that was added for watching."""
    content = as_object(node)
    if content.get("service") != SERVICE_LABEL:
        return None
    event = as_object(content.get("parameters")).get("event")
    return event if isinstance(event, str) else None


def _links(recipe: Mapping[str, Any]) -> Iterator[tuple[int, str, int]]:
    """Yield every link of a recipe between nodes: from, by which output, to."""
    for key, node in recipe.items():
        outputs = as_object(node).get("output") if key.isdecimal() else None
        named = cast("dict[str, Any]", outputs) if isinstance(outputs, dict) else {"": outputs}
        for output, targets in named.items():
            for target in node_numbers(targets):
                yield int(key), output, target


def _images_in(node: dict[str, Any]) -> int | None:
    """Return how many images a file watcher is to see, if its parameters say so."""
    parameters = as_object(node.get("parameters"))
    if "pattern" in parameters:
        try:
            return max(0, int(parameters["pattern-end"]) - int(parameters["pattern-start"]) + 1)
        except (KeyError, TypeError, ValueError):
            return None
    files = parameters.get("list")
    return len(cast("list[Any]", files)) if isinstance(files, list) else None


def _images_at(output: str, watcher: _Watcher) -> int | None:
    """Return how many images leave a file watcher at an output, as far as is known."""
    total = watcher.expected
    seen = total if watcher.success is None else watcher.seen
    if total is None or seen is None:
        return None
    name, _, step = output.partition("-")
    if output == "every":
        return seen
    if name == "every" and step.isdecimal():
        return -(-seen // max(1, int(step)))
    if name == "select" and step.isdecimal():
        return min(total, int(step)) if seen == total else 0
    if output.isdecimal():
        return int(1 <= int(output) <= seen)
    return {"first": int(seen > 0), "last": int(seen == total > 0)}.get(output, 0)


def _count(payload: Mapping[str, Any], what: str) -> int | None:
    value = payload.get(f"files-{what}", payload.get(f"images-{what}"))
    return value if isinstance(value, int) else None
