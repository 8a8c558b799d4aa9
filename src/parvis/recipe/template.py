"""Filling `{placeholder}` and `{$REPLACE:placeholder}` into a recipe, without attribute access."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, NoReturn, cast

from parvis.recipe.graph import Recipe
from parvis.recipe.jsontext import MAX_DEPTH
from parvis.recipe.problem import (
    Path,
    Problem,
    RecipeError,
    listed,
    place,
    printable,
    quoted,
    shown,
    start_place,
    suggestion,
    value_place,
)

#: How much one recipe may grow to, in characters; a value that is not text counts as `_VALUE_SIZE` of them.
MAX_FILLED = 16 * 2**20
MAX_WIDTH = 200

_VALUE_SIZE = 16

_REPLACE = "$REPLACE:"
_TOKEN = re.compile(r"\{\{|\}\}|(?<!\$)\{([^{}]*)\}")
_BRACE = re.compile(r"[{}]")
_WHOLE = re.compile(r"\{([^{}]*)\}")
_FIELD = re.compile(
    r"(?P<name>[A-Za-z_][A-Za-z0-9_-]*)(?P<keys>(?:\[[^\[\]]*\])*)"
    r"(?P<attribute>\.[A-Za-z_][A-Za-z0-9_.\[\]()]*)?(?P<conversion>![^:]*)?(?::(?P<spec>.*))?"
)
_KEY = re.compile(r"\[([^\[\]]*)\]")
_SPEC = re.compile(r"[<>^]?[+ -]?0?(?P<width>[0-9]{0,4})(?:\.[0-9]{1,2})?[deEfFgGsxX%]?")
_ENVIRONMENT = re.compile(r"\$\{?[A-Za-z_]")


class TemplateError(RecipeError):
    """A placeholder that cannot be filled in."""

    def __init__(self, where: str, text: str) -> None:
        super().__init__([Problem(where, text)])
        self._arguments = (where, text)

    def __reduce__(self) -> tuple[type[TemplateError], tuple[str, str]]:
        return type(self), self._arguments


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A placeholder as it stands in a recipe.

    Attributes:
        text: All of it, with braces.
        name: The name of the parameter.
        keys: The keys and indices behind the name.
        spec: The format, such as `05d`; empty for none.
        replace: It stands for the object itself, not for its text.
        fault: What is wrong with it, or nothing.
        attribute: It reaches for an attribute.
    """

    text: str
    name: str
    keys: tuple[str, ...] = ()
    spec: str = ""
    replace: bool = False
    fault: str = ""
    attribute: bool = False


def fill(value: Any, parameters: Mapping[str, Any], where: str = "") -> Any:
    """Return `value` with every placeholder in its texts, keys included, filled in.

    `{name}` and `{name[key][0]}` become the text of that parameter, `{n:05d}` formats it; a text that is
    nothing but `{$REPLACE:name[key]}` becomes a copy of the object, or None if there is none. What names no
    parameter stays as it is, and so does `${name}`, which services read from the recipe environment; `{{` and
    `}}` become single braces.

    Args:
        value: Plain values: objects, lists, text, numbers.
        parameters: What to fill in.
        where: What to call the place in errors.

    Raises:
        TemplateError: A placeholder is malformed, reaches for an attribute, or leads to nothing in a
            parameter that is there; or the result is too large.
    """
    return _Filler(parameters).fill(value, lambda path: value_place(where, path))


def fill_recipe(recipe: Recipe, parameters: Mapping[str, Any]) -> Recipe:
    """Return the recipe with every placeholder filled in, in its nodes and in the payloads it starts with.

    Raises:
        TemplateError: As `fill`.
        RecipeError: What was filled in does not make a valid recipe.
    """
    filler = _Filler(parameters)
    content = recipe.to_dict()
    for number, node in recipe.nodes.items():
        content[str(number)] = filler.fill(content[str(number)], partial(place, node.place))
    content["start"] = [
        [number, filler.fill(payload, partial(start_place, number))] for number, payload in recipe.start
    ]
    filled = Recipe.from_dict(content)
    filled.validate()
    return filled


def placeholders(value: Any) -> set[str]:
    """Return the names of all parameters that the texts in `value`, keys included, ask for."""
    return {placeholder.name for _, placeholder in scan(value)}


def scan(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Placeholder]]:
    """Yield every placeholder in the texts of `value`, keys included, with the path to the text."""
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value)
        for match in _TOKEN.finditer(value):
            placeholder = _parse(match) if match[1] is not None else None
            if placeholder:
                yield path, placeholder if whole else _in_part(placeholder)
    elif isinstance(value, Mapping):
        for key, entry in cast("Mapping[Any, Any]", value).items():
            yield from ((path, _in_part(found)) for _, found in scan(key) if isinstance(key, str))
            yield from scan(entry, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(cast("list[Any]", value)):
            yield from scan(entry, (*path, index))


def is_open(value: Any) -> bool:
    """Whether `value` is, or holds, text that is only known when the recipe runs."""
    if isinstance(value, str):
        return _ENVIRONMENT.search(value) is not None or next(scan(value), None) is not None
    if isinstance(value, Mapping):
        return any(is_open(entry) for entry in cast("Mapping[Any, Any]", value).values())
    return isinstance(value, list | tuple) and any(is_open(entry) for entry in cast("list[Any]", value))


def unread(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what looks like a placeholder in the texts of `value` and is none, with the path to the text."""
    if isinstance(value, str):
        if fault := _unread(value):
            yield path, fault
    elif isinstance(value, Mapping):
        for key, entry in cast("Mapping[Any, Any]", value).items():
            yield from unread(entry, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(cast("list[Any]", value)):
            yield from unread(entry, (*path, index))


def _unread(text: str) -> str:
    for match in _TOKEN.finditer(text):
        field = match[1] or ""
        if field.split() not in ([], [field]) and _FIELD.fullmatch("".join(field.split())):
            return f"{quoted(match[0])} has a space in it"
    lone = _lone_brace(text)
    return (
        f"{quoted(text)} has a {lone} without its other half; if that is meant, write {lone * 2}"
        if lone
        else ""
    )


def _lone_brace(text: str) -> str:
    """Return the first brace in `text` that has no other half and is not doubled, or nothing."""
    opened: list[int] = []
    lone: list[int] = []
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif opened:
            opened.pop()
        else:
            lone.append(match.start())
    doubled = -1
    lone = sorted([*lone, *opened])
    for at, following in zip(lone, [*lone, -1][1:], strict=True):
        if at == doubled:
            continue
        if following != at + 1 or text[at] != text[following]:
            return text[at]
        doubled = following
    return ""


def _parse(match: re.Match[str]) -> Placeholder | None:
    """Read what stands between braces; None if it does not look like a placeholder."""
    text, field = match[0], match[1]
    replace = field.startswith(_REPLACE)
    parts = _FIELD.fullmatch(field.removeprefix(_REPLACE))
    if parts is None:
        fault = "write {$REPLACE:name} or {$REPLACE:name[key]}"
        return Placeholder(text, field.removeprefix(_REPLACE), replace=True, fault=fault) if replace else None
    spec = parts["spec"] or ""
    return Placeholder(
        text,
        parts["name"],
        tuple(_KEY.findall(parts["keys"])),
        spec,
        replace,
        _fault(parts, spec, replace=replace),
        attribute=parts["attribute"] is not None,
    )


def _fault(parts: re.Match[str], spec: str, *, replace: bool) -> str:
    if parts["attribute"] is not None:
        return "a recipe cannot reach the attributes of a parameter; a key of it is written {name[key]}"
    if replace and (spec or parts["conversion"]):
        return "an object cannot be formatted: write {$REPLACE:name} or {$REPLACE:name[key]}"
    if parts["conversion"] not in (None, "!s"):
        return "the only conversion is !s"
    allowed = _SPEC.fullmatch(spec)
    if allowed is None:
        return f"the format {quoted(spec)} is not known; write for example {{name:05d}} or {{name:.3f}}"
    if int(allowed["width"] or 0) > MAX_WIDTH:
        return f"the format {quoted(spec)} is wider than {MAX_WIDTH} characters"
    return ""


def _in_part(placeholder: Placeholder) -> Placeholder:
    if not placeholder.replace or placeholder.fault:
        return placeholder
    fault = "stands for an object, so it must be the whole of a value, with nothing before or after it"
    return replace(placeholder, fault=fault)


class _Filler:
    """Fills values in, and keeps account of how large the result has become."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._left = MAX_FILLED
        self._place: Callable[[Path], str] = str

    def fill(self, value: Any, place: Callable[[Path], str]) -> Any:
        self._place = place
        return self._value(value, ())

    def _value(self, value: Any, path: tuple[str | int, ...]) -> Any:
        if len(path) > MAX_DEPTH:
            self._fail(path[:1], f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, str):
            whole = _WHOLE.fullmatch(value)
            if whole and whole[1].startswith(_REPLACE):
                return self._object(whole, path)
            return self._text(value, path)
        self._account(_VALUE_SIZE, path)
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[Any, Any]", value), path)
        if isinstance(value, list | tuple):
            entries = cast("list[Any]", value)
            return [self._value(entry, (*path, index)) for index, entry in enumerate(entries)]
        return value

    def _mapping(self, value: Mapping[Any, Any], path: tuple[str | int, ...]) -> dict[Any, Any]:
        filled: dict[Any, Any] = {}
        for key, entry in value.items():
            new = self._text(key, path) if isinstance(key, str) else key
            if new in filled:
                self._fail(path, f"two keys become {shown(new)} when they are filled in")
            filled[new] = self._value(entry, (*path, str(key)))
        return filled

    def _text(self, text: str, path: Path) -> str:
        if "{" not in text and "}" not in text:
            self._account(len(text), path)
            return text
        pieces: list[str] = []
        end = 0
        for match in _TOKEN.finditer(text):
            pieces.append(text[end : match.start()])
            piece = match[0][0] if match[1] is None else self._piece(match, path)
            self._account(match.start() - end + len(piece), path)
            pieces.append(piece)
            end = match.end()
        pieces.append(text[end:])
        self._account(len(text) - end, path)
        return "".join(pieces)

    def _piece(self, match: re.Match[str], path: Path) -> str:
        placeholder = _parse(match)
        if placeholder is None:
            return match[0]
        placeholder = _in_part(placeholder)
        known = placeholder.name in self._parameters
        if placeholder.fault and (known or placeholder.replace or placeholder.attribute):
            self._fail(path, f"{printable(placeholder.text)}: {placeholder.fault}")
        if not known:
            return match[0]
        value = self._look_up(placeholder, path)
        return self._formatted(placeholder, value, path)

    def _formatted(self, placeholder: Placeholder, value: Any, path: Path) -> str:
        spec = placeholder.spec
        if not spec or isinstance(value, str | int | float | Decimal):
            with suppress(ValueError, OverflowError):
                return format(value, spec) if spec else str(value)
        fault = f"the format {quoted(spec)} does not fit {shown(value)}"
        return self._fail(path, f"{printable(placeholder.text)}: {fault}")

    def _object(self, match: re.Match[str], path: tuple[str | int, ...]) -> Any:
        placeholder = _parse(match)
        if placeholder is None or placeholder.fault:
            self._fail(
                path, f"{printable(match[0])}: {placeholder.fault if placeholder else 'not understood'}"
            )
        value: Any = self._parameters.get(placeholder.name)
        for key in placeholder.keys:
            value = _entry(value, key, None)
        return self._copy(value, path, 0)

    def _copy(self, value: Any, path: Path, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self._fail(path, f"what is to stand there is nested more than {MAX_DEPTH} levels deep")
        self._account(len(value) if isinstance(value, str) else _VALUE_SIZE, path)
        if isinstance(value, Mapping):
            entries = cast("Mapping[Any, Any]", value).items()
            return {key: self._copy(entry, path, depth + 1) for key, entry in entries}
        if isinstance(value, list | tuple):
            return [self._copy(entry, path, depth + 1) for entry in cast("list[Any]", value)]
        return value

    def _look_up(self, placeholder: Placeholder, path: Path) -> Any:
        value = self._parameters[placeholder.name]
        reached = placeholder.name
        for key in placeholder.keys:
            entry = _entry(value, key, _NOTHING)
            if entry is _NOTHING:
                self._fail(path, f"{printable(placeholder.text)}: {_lacks(reached, value, key)}")
            value = entry
            reached += f"[{key}]"
        return value

    def _account(self, size: int, path: Path) -> None:
        self._left -= size
        if self._left < 0:
            self._fail(path, f"filled in, the recipe is larger than {MAX_FILLED // 2**20} MiB")

    def _fail(self, path: Path, text: str) -> NoReturn:
        raise TemplateError(self._place(path), text)


_NOTHING = object()


def _entry(value: Any, key: str, default: Any) -> Any:
    """Return what stands under a key of an object, or at an index of a list or text."""
    index = int(key) if key.isascii() and key.isdecimal() and len(key) < 10 else None
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value)
        return entries[key] if key in entries else entries.get(index, default)
    if isinstance(value, Sequence) and index is not None and index < len(cast("Sequence[Any]", value)):
        return cast("Sequence[Any]", value)[index]
    return default


def _lacks(name: str, value: Any, key: str) -> str:
    if isinstance(value, Mapping):
        keys = [str(known) for known in cast("Mapping[Any, Any]", value)]
        has = f"it has {listed(keys, 8)}" if keys else "it is empty"
        return f"{quoted(name)} has no {quoted(key)}{suggestion(key, keys) or ';'} {has}"
    if isinstance(value, list | tuple):
        return f"{quoted(name)} is a list of {len(cast('list[Any]', value))}, it has no entry {quoted(key)}"
    return f"{quoted(name)} is {shown(value)}, it has no {quoted(key)}"
