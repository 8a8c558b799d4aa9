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
    """A watcher or writer of the recipe: how many images it expects, and how it ended.

    Attributes:
        expected: How many images there are to be; None as long as nobody knows.
        seen: How many there were, at the end.
        success: Whether that were all; None before the end.
        completes: The watcher that it begins after, to send what that one has not; its count is that of both.
        is_needed: Whether it begins whatever came of that one.
    """

    expected: int | None
    seen: int | None = None
    success: bool | None = None
    completes: int | None = None
    is_needed: bool = True


@dataclass
class Job:
    """A job that is being followed.

    Attributes:
        recipe_id: The recipe ID; None before the start.
        images: Results in order of arrival, one an image and node.
        missing: Images that were announced, and are not in their store (any more), one an image and node.
        centres: Results of the centring.
        rejected: Why the dispatcher started nothing, or None.
        aborted: The centring gave up.
        dead_letters: Node, service and reason of each message of the recipe that was set aside.
    """

    recipe_id: str | None = None
    images: dict[tuple[Any, ...], dict[str, Any]] = field(
        default_factory=dict[tuple[Any, ...], "dict[str, Any]"]
    )
    missing: dict[tuple[Any, ...], dict[str, Any]] = field(
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
            feeds = list(self._feeds(analysis))
            counts = [count for count, completes in feeds if not completes]
            if None in counts:
                return None
            # What completes the others counts what these have sent, too.
            known = [count for count, completes in feeds if completes and count is not None]
            total += max(sum(count for count in counts if count is not None), *known, 0)
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
        if any(watcher.success is None and self._begins(watcher) for watcher in self._watchers.values()):
            return False
        expected = self.expected
        lost = self._dead_at(self._analyses) + len(self.missing)
        if expected is None or len(self.images) + lost < expected:
            return False
        if not self._is_complete or lost or self._dead_at(self._centrings):
            return True
        return self._centrings <= self.centres.keys()

    @property
    def seems_over(self) -> bool:
        """Whether it is over but for image results, which a lost connection may have kept from us."""
        watchers = self._watchers.values()
        ended = all(watcher.success is not None or not self._begins(watcher) for watcher in watchers)
        return self._recipe is not None and ended and self._centrings <= self.centres.keys()

    def _begins(self, watcher: _Watcher) -> bool:
        """Whether a watcher has begun, or will: one that is only needed for what is missing may not."""
        before = None if watcher.completes is None else self._watchers.get(watcher.completes)
        return watcher.is_needed or before is None or not before.success

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
            ended = self._failed_watchers()
            seen = sum(watcher.seen or 0 for watcher in ended)
            expected = sum(watcher.expected or 0 for watcher in ended)
            return f"Only {seen} of {expected} images appeared before the watcher gave up."
        if self.missing:
            return f"{len(self.missing)} of the images are not in their store (any more)."
        if self.aborted:
            return "The centring gave up: not all images of the grid were analysed in time."
        return None

    @property
    def _is_complete(self) -> bool:
        return not self._failed_watchers()

    def _failed_watchers(self) -> list[_Watcher]:
        """Those that have not seen all, unless another one has completed it."""
        good = {number for number, watcher in self._watchers.items() if watcher.success}
        for _ in self._watchers:  # from the last one to begin back to the first
            good |= {
                watcher.completes
                for number, watcher in self._watchers.items()
                if number in good and watcher.completes is not None
            }
        return [
            watcher
            for number, watcher in self._watchers.items()
            if watcher.success is False
            and number not in good
            and not any(
                other.completes == number and other.success is False for other in self._watchers.values()
            )
        ]

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
            case "image" | "missing":
                return self._take_image(event, sender, payload)
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

    def _take_image(self, event: str, sender: int, payload: dict[str, Any]) -> dict[str, Any] | None:
        images = self.images if event == "image" else self.missing
        names = ("file", "file-number", "file-pattern-index", "file-list-index", "hdf5-index")
        key = (sender, *(str(payload.get(name)) for name in names))
        if key in images:  # delivered twice
            return None
        images[key] = payload
        return {"event": event, "result": payload}

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
        self._plan_completion(envelope.recipe)
        self._recipe = envelope.recipe
        self.recipe_id = envelope.recipe_id

    def _plan_completion(self, recipe: Mapping[str, Any]) -> None:
        """Find the watchers that send what others have not: by the manifest, or what is missing."""
        for number, output, target in _links(recipe):
            watcher = self._watchers.get(target)
            if watcher is None or number not in self._watchers or number == target:
                continue
            parameters = as_object(as_object(recipe.get(str(target))).get("parameters"))
            if output == "missing" or (output == "finally" and parameters.get("manifest")):
                watcher.completes = number
                watcher.is_needed = output != "missing"

    def _feeds(self, analysis: int) -> Iterator[tuple[int | None, bool]]:
        """Yield how many images a per-image analysis gets from each that sends it any.

        And whether that one completes what others have sent.
        """
        recipe = self._recipe or {}
        for entry in cast("list[Any]", recipe.get("start") or []):
            if isinstance(entry, list) and str(cast("list[Any]", entry)[:1]) == str([analysis]):
                yield 1, False
        for number, output, target in _links(recipe):
            if target == analysis:
                watcher = self._watchers.get(number)
                count = None if watcher is None else _images_at(output, watcher)
                yield count, watcher is not None and watcher.completes is not None


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
    """Return how many images a watcher is to see, if its parameters say so."""
    parameters = as_object(node.get("parameters"))
    if "pattern" in parameters or "objects" in parameters:
        try:
            start: Any = parameters.get("pattern-start", 1 if "objects" in parameters else None)
            return max(0, int(parameters["pattern-end"]) - int(start) + 1)
        except (KeyError, TypeError, ValueError):
            return None
    files = parameters.get("list")
    return len(cast("list[Any]", files)) if isinstance(files, list) else None


def _images_at(output: str, watcher: _Watcher) -> int | None:
    """Return how many images leave a watcher at an output, as far as is known."""
    total = watcher.expected
    seen = total if watcher.success is None else watcher.seen
    if output == "every":
        return seen
    if total is None or seen is None:
        return None
    name, _, step = output.partition("-")
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
