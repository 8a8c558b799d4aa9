"""Whether values fit the models of a service, as far as that can be said before a recipe runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

from pydantic import AliasChoices, AliasPath, BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.fields import FieldInfo

from parvis.recipe.problem import listed, quoted, shown
from parvis.recipe.template import is_open, scan

Values = Mapping[str, Any]
Schema = Mapping[str, Any]

_SAMPLE_DEPTH = 8

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a value does not fit a model.

    Attributes:
        path: Where in the value; empty for all of it.
        text: What is wrong there.
        missing: Something is missing there.
    """

    path: tuple[str | int, ...]
    text: str
    missing: bool = False


def accepted_names(model: type[BaseModel]) -> dict[str, list[str]]:
    """Return the names under which each field of a model is read; the first is the usual one."""
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    return {name: _aliases(name, field, by_name=bool(by_name)) for name, field in model.model_fields.items()}


def misfits(model: type[BaseModel], values: Values) -> list[Misfit]:
    """Return why `values` do not fit `model`. What holds a placeholder is taken to fit, whatever its type."""
    original = values
    open_keys = {key for key, value in values.items() if is_open(value)}
    found = _errors(model, values)
    in_doubt = open_keys & {misfit.path[0] for misfit in found if misfit.path}
    if in_doubt:
        # A model looks at its fields together only when each of them fits.
        values = {**values, **{key: _sample_of(model, key) for key in in_doubt}}
        found = [
            misfit for misfit in _errors(model, values) if not (misfit.path and misfit.path[0] in open_keys)
        ]
    kept = [misfit for misfit in found if misfit.path or not open_keys or _lacks_something(model, values)]
    known = {misfit.path for misfit in kept}
    return [*kept, *(misfit for misfit in _wrong_kinds(model, original) if misfit.path not in known)]


def _wrong_kinds(model: type[BaseModel], values: Values) -> Iterator[Misfit]:
    """What a model would take, or cannot be asked about, and is surely not meant."""
    names = [(name, key) for name, accepted in accepted_names(model).items() for key in accepted]
    for name, key in names:
        value = values.get(key)
        kinds = _kinds(model, name, "validation") - {"null"} if isinstance(value, bool | str) else set[str]()
        if isinstance(value, bool) and kinds == {"number"}:
            # It would count as 0 or 1.
            yield Misfit((key,), f"is {shown(value)}, must be a number")
        elif isinstance(value, str) and kinds and kinds <= {"object", "array"} and _becomes_text(value):
            advice = "write {$REPLACE:name} or {$REPLACE:name[key]} for the object itself"
            # A model may read text all the same.
            if any(misfit.path[:1] == (key,) for misfit in _errors(model, {**values, key: "text"})):
                yield Misfit((key,), f"would be text, must be {_either(kinds)}; {advice}")


def _becomes_text(value: str) -> bool:
    """Whether text holds placeholders, and stays text when they are filled in."""
    found = [placeholder for _, placeholder in scan(value)]
    return bool(found) and not any(placeholder.replace for placeholder in found)


def payload_misfits(sent: type[BaseModel], taken: type[BaseModel]) -> Iterator[str]:
    """Yield why what leaves as `sent` does not fit where `taken` is expected.

    What `sent` does not declare is taken not to be there, what it declares as optional to be there.
    """
    fields = {wire: name for name, field in sent.model_fields.items() for wire in _sent_names(name, field)}
    common: dict[str, Any] = {}
    for name, accepted in accepted_names(taken).items():
        wire = next((each for each in accepted if each in fields), None)
        if wire is None:
            continue
        common[wire] = _sample_of(taken, wire)
        kinds_sent, kinds_taken = (
            _kinds(sent, fields[wire], "serialization"),
            _kinds(taken, name, "validation"),
        )
        if kinds_sent and kinds_taken and not kinds_sent & kinds_taken:
            yield f"{quoted(wire)} is {_either(kinds_sent)} there, and must be {_either(kinds_taken)}"
    lacking = [str(misfit.path[-1]) for misfit in _errors(taken, common) if misfit.missing]
    if lacking:
        carried = [_sent_names(name, field)[0] for name, field in sent.model_fields.items()]
        yield f"it needs {listed(lacking)}; what comes holds {listed(carried, 8) or 'nothing'}"
    elif _lacks_something(taken, common):
        yield "; ".join(misfit.text for misfit in _errors(taken, common) if not misfit.path)


def _lacks_something(model: type[BaseModel], values: Values) -> bool:
    """Whether the model as a whole rejects `values`, and would not if all of its fields were there."""
    if all(misfit.path for misfit in _errors(model, values)):
        return False
    samples = {names[0]: _sample_of(model, names[0]) for names in accepted_names(model).values()}
    given = {
        names[0]: values[each] for names in accepted_names(model).values() for each in names if each in values
    }
    return not _errors(model, samples | given)


def _errors(model: type[BaseModel], values: Any) -> list[Misfit]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        grouped: dict[tuple[tuple[str | int, ...], bool], list[str]] = {}
        for each in error.errors(include_url=False):
            if each["type"] == "extra_forbidden":
                continue  # the checker speaks of all unknown names, and suggests known ones
            path = _path(values, each["loc"], missing=each["type"] == "missing")
            texts = grouped.setdefault((path, each["type"] == "missing"), [])
            text = _text(each["type"], each["msg"])
            if text not in texts:
                texts.append(text)
        return [_misfit(path, missing, texts, values) for (path, missing), texts in grouped.items()]
    except Exception as error:  # noqa: BLE001 - the models are code of others, which may fail in any way
        return [Misfit((), f"the service cannot read this: {type(error).__name__}")]
    return []


def _misfit(path: tuple[str | int, ...], missing: bool, texts: list[str], values: Any) -> Misfit:
    if missing:
        return Misfit(path, "is missing", missing=True)
    wanted = [text.removeprefix("must be ") for text in texts if text.startswith("must be ")]
    others = [text for text in texts if not text.startswith("must be ")]
    says = [f"must be {' or '.join(wanted)}"] if wanted else []
    value = _at(values, path)
    text = "; ".join([*says, *others])
    return Misfit(path, f"is {shown(value)}, {text}" if path and wanted else text)


def _text(kind: str, message: str) -> str:
    expected = _EXPECTED.get(kind.partition("_")[0])
    if expected and kind.endswith(("_type", "_parsing", "_from_float")):
        return f"must be {expected}"
    plain = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return plain.replace("Input should be ", "must be ", 1) if plain.startswith("Input") else plain


def _path(values: Any, place: Sequence[str | int], *, missing: bool) -> tuple[str | int, ...]:
    """Return the part of pydantic's place that leads into `values`: it also names alternatives of a type."""
    path: tuple[str | int, ...] = ()
    for step in place:
        inside = _at(values, (*path, step), default=_NOTHING)
        if inside is not _NOTHING:
            path = (*path, step)
    return (*path, place[-1]) if missing and place else path


_NOTHING = object()


def _at(values: Any, path: Sequence[str | int], default: Any = None) -> Any:
    for step in path:
        if isinstance(values, Mapping) and step in values:
            values = cast("Values", values)[cast("str", step)]
        elif isinstance(values, list) and isinstance(step, int) and step < len(cast("list[Any]", values)):
            values = cast("list[Any]", values)[step]
        else:
            return default
    return values


def _aliases(name: str, field: FieldInfo, *, by_name: bool) -> list[str]:
    alias = field.validation_alias or field.alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias] if alias else []
    found = [str(each.path[0]) if isinstance(each, AliasPath) else each for each in choices]
    return found if found and not by_name else [*found, name]


def _sent_names(name: str, field: FieldInfo) -> list[str]:
    return [each for each in (field.serialization_alias, field.alias, name) if each]


@cache
def _schema(model: type[BaseModel], mode: Literal["validation", "serialization"]) -> Schema:
    try:
        return model.model_json_schema(by_alias=False, mode=mode)
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return {}


def _field_schema(model: type[BaseModel], name: str, mode: Literal["validation", "serialization"]) -> Schema:
    return _schema(model, mode).get("properties", {}).get(name, {})


def _kinds(model: type[BaseModel], name: str, mode: Literal["validation", "serialization"]) -> set[str]:
    """Return the JSON types that a field may have; nothing if that cannot be told."""
    return _kinds_in(_field_schema(model, name, mode), _schema(model, mode))


def _kinds_in(schema: Schema, whole: Schema) -> set[str]:
    schema = _resolved(schema, whole)
    if "format" in schema or ("type" not in schema and "anyOf" not in schema):
        return set()
    if "anyOf" in schema:
        parts = [_kinds_in(each, whole) for each in schema["anyOf"]]
        return set[str]().union(*parts) if all(parts) else set()
    return {"number"} if schema["type"] == "integer" else {str(schema["type"])}


def _resolved(schema: Schema, whole: Schema) -> Schema:
    reference = str(schema.get("$ref", ""))
    return whole.get("$defs", {}).get(reference.rpartition("/")[2], {}) if reference else schema


def _either(kinds: set[str]) -> str:
    words = {
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
        "array": "a list",
        "object": "an object",
    }
    return " or ".join(sorted(words.get(kind, kind) for kind in kinds if kind != "null" or len(kinds) == 1))


def _sample_of(model: type[BaseModel], wire_name: str) -> Any:
    """Return a value that the field read under `wire_name` may have."""
    name = next((name for name, accepted in accepted_names(model).items() if wire_name in accepted), "")
    return _sample(_field_schema(model, name, "validation"), _schema(model, "validation"))


def _sample(schema: Schema, whole: Schema, depth: int = 0) -> Any:
    schema = _resolved(schema, whole)
    if depth > _SAMPLE_DEPTH:
        return None
    if schema.get("examples"):
        return schema["examples"][0]
    if "anyOf" in schema:
        return _sample(schema["anyOf"][0], whole, depth + 1)
    if schema.get("type") == "object":
        inside = schema.get("properties", {})
        names = schema.get("required", [])
        return {name: _sample(inside.get(name, {}), whole, depth + 1) for name in names}
    return schema.get("const", schema.get("enum", [_simple_sample(schema)])[0])


def _simple_sample(schema: Schema) -> Any:
    samples: dict[str, Any] = {
        "integer": schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1),
        "string": "a" * max(1, schema.get("minLength", 1)),
        "boolean": True,
        "array": [],
    }
    kind = "integer" if schema.get("type") == "number" else schema.get("type")
    return samples.get(str(kind))
