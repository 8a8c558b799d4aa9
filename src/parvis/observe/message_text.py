"""A message in words: what a person wants to know of it first, in lines that do a terminal no harm."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from parvis.observe.queue_figures import PeekedMessage
from parvis.observe.wording import age_text, moment_text, size_text
from parvis.recipe.envelope import Envelope, MalformedMessage, envelope_of, parse_json

_LINES: Final = 30
_LINE: Final = 500
_FULL_LINE: Final = 100_000
_DEEPEST: Final = 200
_REASONS: Final = ("parvis-reason", "dlqDeliveryFailureCause")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a message: a title of one word, and lines."""

    title: str
    lines: tuple[str, ...]


def heading(message: PeekedMessage) -> str:
    """One line: place, age, size, identifier."""
    parts = [f"{message.place}", size_text(message.size)]
    if message.sent is not None:
        parts += [f"{moment_text(message.sent)} ({age_text(max(0.0, time.time() - message.sent))} ago)"]
    if message.redelivered:
        parts.append("redelivered")
    if message.message_id:
        parts.append(_escaped(message.message_id, 80))
    return "  ".join(parts)


def summary(message: PeekedMessage) -> str:
    """What a message says, in one line: of a recipe message where it is and its payload, else its body."""
    envelope = _envelope(message)
    if envelope is None:
        return _escaped(" ".join(message.body[:_LINE].decode(errors="replace").split()), _LINE)
    recipe = (envelope.recipe_id or "no recipe ID")[:8]
    payload = json.dumps(envelope.payload, ensure_ascii=False, default=str)
    return _escaped(f"{recipe} node {envelope.pointer} {payload}", _LINE)


def sections(message: PeekedMessage, *, full: bool = False) -> list[Section]:
    """All of a message: why it died, if it did; its way, node and payload, if it is of a recipe; the rest.

    Args:
        message: The message.
        full: Show the recipe too, and leave nothing out of what is long.
    """
    envelope = _envelope(message)
    found: list[Section] = []
    reasons = [message.headers[name] for name in _REASONS if message.headers.get(name)]
    if reasons:
        found.append(Section("reason", tuple(_clip(_lines(reasons[0]), full=full))))
    if envelope is not None:
        found.append(Section("recipe", tuple(_clip(_route(envelope), full=full))))
        found.append(Section("payload", tuple(_clip(_pretty(envelope.payload), full=full))))
    found.append(Section("headers", tuple(_clip(_headers(message.headers), full=full))))
    if envelope is None:
        found.append(Section("body", tuple(_clip(_body(message), full=full))))
    elif full:
        found.append(Section("environment", tuple(_clip(_pretty(envelope.environment), full=True))))
        found.append(Section("graph", tuple(_clip(_pretty(envelope.recipe), full=True))))
    return found


def to_json(message: PeekedMessage) -> dict[str, object]:
    """A message for programs: the body as JSON where it is whole and JSON, else as text."""
    body: object
    try:
        body = parse_json(message.body) if message.size == len(message.body) else None
    except MalformedMessage:
        body = None
    return {
        "queue": message.queue,
        "place": message.place,
        "message_id": message.message_id,
        "sent": message.sent,
        "redelivered": message.redelivered,
        "size": message.size,
        "headers": dict(message.headers),
        "body": message.body.decode(errors="replace") if body is None else body,
        "complete": message.size == len(message.body),
    }


def _envelope(message: PeekedMessage) -> Envelope | None:
    return envelope_of(message.headers, message.body) if len(message.body) == message.size else None


def _route(envelope: Envelope) -> Iterable[str]:
    node = envelope.node
    names = [str(node[key]) for key in ("service", "queue") if node.get(key)]
    yield f"ID    {_escaped(envelope.recipe_id or 'none', _LINE)}"
    yield f"node  {envelope.pointer}  {_escaped('  '.join(names), _LINE)}".rstrip()
    yield f"way   {' → '.join(map(str, [*envelope.path, envelope.pointer]))}"
    if node.get("parameters"):
        yield "parameters"
        yield from (f"  {line}" for line in _pretty(node["parameters"]))


def _headers(headers: Mapping[str, str]) -> Iterable[str]:
    for name, value in sorted(headers.items()):
        first, *rest = _lines(f"{name}: {value}")
        yield first
        yield from (f"    {line}" for line in rest)


def _body(message: PeekedMessage) -> Iterable[str]:
    if len(message.body) == message.size:
        try:
            yield from _pretty(parse_json(message.body))
        except MalformedMessage:
            yield from _lines(message.body.decode(errors="replace"))
        return
    yield from _lines(message.body.decode(errors="replace"))
    yield f"… the first {size_text(len(message.body))} of {size_text(message.size)}"


def _pretty(value: Any) -> Iterable[str]:
    try:
        return _lines(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    except (RecursionError, ValueError):
        return [f"nested more than {_DEEPEST} deep"]


def _lines(text: str) -> list[str]:
    return [_escaped(line, _FULL_LINE) for line in text.split("\n")]


def _clip(lines: Iterable[str], *, full: bool) -> Iterable[str]:
    if full:
        yield from lines
        return
    every = list(lines)
    for line in every[:_LINES]:
        yield line if len(line) <= _LINE else f"{line[:_LINE]}… {len(line) - _LINE} more characters"
    if len(every) > _LINES:
        yield f"… {len(every) - _LINES} more lines"


def _escaped(text: str, limit: int) -> str:
    """The beginning of a text, with what a terminal might obey escaped."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else "    " if c == "\t" else ascii(c)[1:-1] for c in cut)
