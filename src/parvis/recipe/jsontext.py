"""The text of a recipe to plain values: strictly, within bounds, with the place of whatever is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn, TypeAlias, cast

from parvis.recipe.problem import Problem, RecipeError, node_place, place, quoted

#: A recipe travels with every message: these bounds are far above any real one.
MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64
MAX_VALUES = 1_000_000

_SMALLEST, _LARGEST = -(2**63), 2**64 - 1

# A place: the place around it and the key or index there, so that going one deeper always costs the same.
_Trail: TypeAlias = "tuple[_Trail, str | int] | None"


def parse(text: str | bytes) -> tuple[Any, list[Problem]]:
    """Read JSON text; return what it says and what is wrong with it without making it unreadable.

    Raises:
        RecipeError: It is not JSON, or beyond the bounds.
    """
    content = _decode(text)
    doubled: list[tuple[dict[str, Any], list[str]]] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            seen: set[str] = set()
            # The object is kept here so that no other object gets its identity.
            doubled.append((built, [key for key, _ in pairs if key in seen or seen.add(key)]))
        return built

    try:
        value = json.loads(content, object_pairs_hook=build, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        _fail(
            f"line {error.lineno}, column {error.colno}", f"not JSON: {error.msg[0].lower()}{error.msg[1:]}"
        )
    except RecursionError:
        _fail("", f"nested more than {MAX_DEPTH} levels deep")
    except _Constant as error:
        _fail("", f"not JSON: {error.args[0]} is not a number that JSON knows")
    except ValueError:
        _fail("", "a number in it has too many digits")
    return value, [*_doubled_keys(value, doubled), *examine(value)]


def examine(content: Any) -> Iterator[Problem]:
    """Yield what cannot be sent of plain values: numbers too large, broken text.

    Raises:
        RecipeError: There is too much of it, or it is nested too deeply.
    """
    for value, trail in _walk(content):
        text = _unsendable(value)
        if text:
            yield Problem(_where(trail), text)


def _unsendable(value: Any) -> str | None:
    texts = cast("dict[Any, Any]", value) if isinstance(value, dict) else [value]
    if not all(_is_utf8(text) for text in texts if isinstance(text, str)):
        return "half of a surrogate pair is not a character"
    if isinstance(value, float):
        return None if math.isfinite(value) else "the number is too large"
    if isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        return "the whole number does not fit in 64 bits; write it as text"
    return None


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(content: Any) -> Iterator[tuple[Any, _Trail]]:
    stack: list[tuple[Any, _Trail, int]] = [(content, None, 0)]
    count = 0
    while stack:
        value, trail, depth = stack.pop()
        yield value, trail
        if not isinstance(value, dict | list | tuple):
            continue
        if depth >= MAX_DEPTH:
            _fail(_where(trail), f"nested more than {MAX_DEPTH} levels deep")
        count += len(cast("dict[Any, Any] | list[Any]", value))
        if count > MAX_VALUES:
            _fail("", f"more than {MAX_VALUES} values")
        stack.extend((entry, (trail, key), depth + 1) for key, entry in _entries(value))


def _entries(value: Any) -> Iterator[tuple[str | int, Any]]:
    pairs = cast("dict[Any, Any]", value).items() if isinstance(value, dict) else enumerate(value)
    for key, entry in pairs:
        yield (key if isinstance(key, int) else str(key)), entry


def _doubled_keys(content: Any, doubled: list[tuple[dict[str, Any], list[str]]]) -> Iterator[Problem]:
    if not doubled:
        return
    trails = {id(value): trail for value, trail in _walk(content)}
    for built, keys in doubled:
        where = _where(trails.get(id(built)))
        for key in dict.fromkeys(keys):
            yield Problem(
                where, f"the key {quoted(key)} stands there more than once; only the last would count"
            )


def _where(trail: _Trail) -> str:
    steps: list[str | int] = []
    while trail is not None:
        trail, key = trail
        steps.append(key)
    steps.reverse()
    if not steps:
        return ""
    node = str(steps[0])
    return place(node_place(int(node)), steps[1:]) if node.isdecimal() else place("recipe", steps)


def _decode(text: str | bytes) -> str:
    if len(text) > MAX_BYTES:
        _fail("", f"larger than {MAX_BYTES // 2**20} MiB")
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        _fail(f"line {line}", "not text in UTF-8")


class _Constant(Exception):
    """NaN or an infinity stands in the text."""


def _refuse_constant(name: str) -> NoReturn:
    raise _Constant(name)


def _fail(where: str, text: str) -> NoReturn:
    raise RecipeError([Problem(where, text)])
