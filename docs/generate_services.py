"""Write `reference/services.md` from the contracts of services: `python docs/generate_services.py`."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from parvis.service.base import AnyService, BatchService
from parvis.service.contract import Anything, Contract, Model
from parvis.service.registry import find_services

TARGET = Path(__file__).parent / "reference" / "services.md"
OURS = "parvis_services"

INTRODUCTION = """\
# Services

What each service that comes with Parvis listens to, takes and sends. This page is made from the contracts in
the code by `python docs/generate_services.py`.

All take [recipe messages](messages.md). *Parameters* stand in the recipe node under `parameters`, and a
message may override them under the key `parameters` of its payload. A parameter or key that a service does
not know is kept and ignored; `parvis recipe check` points it out. In the tables of outputs a `#` stands for
a whole number above zero; what leaves there is described below, in [Payloads](#payloads).

`parvis service` lists the services that are installed, those of other packages, too.
"""

# When something leaves at an output, and what else there is to know of it.
OUTPUTS: dict[str, dict[str, str]] = {
    "CephWriter": {
        "first": "The image 1.",
        "every": "Each image, as soon as the store has confirmed it; they may come out of order.",
        "last": "The image with the number of images that there are to be; if the detector does not say how "
        "many, at the end that with the highest number.",
        "#": "The image with that number, counted from 1.",
        "every-#": "The first image, and from it on each of that number.",
        "select-#": "That many images, evenly spread, the first and the last among them; if the detector "
        "does not say how many there are, at the end.",
        "any": "Once at the end, if there was an image.",
        "finally": "Once at the end, in any case: when the manifest is stored, or after a time-out. "
        "ObjectWatcher takes the payload, and sends what is stored and was not told of.",
        "timeout": "If the series did not begin, or no image came, or the store did not take what was left, "
        "for too long.",
    },
    "FileWatcher": {
        "first": "The first image.",
        "every": "Each image.",
        "last": "The last image.",
        "#": "The image with that number, counted from 1.",
        "every-#": "The first image, and from it on each of that number.",
        "select-#": "That many images, evenly spread, the first and the last among them.",
        "any": "Once at the end, if there was an image.",
        "finally": "Once at the end, in any case.",
        "timeout": "If an image did not come in time.",
        "error": "If an entry of `list` is empty.",
    },
    "Join": {
        "complete": "When all messages that it waits for have come.",
        "timeout": "When the time was over before that. Not connected, it is a failure of the node: what has "
        "come is in the payload of the dead letter, or of what error nodes get.",
        "late": "What comes from a node that is waited for after either. Not connected, it is dropped with a "
        "warning.",
    },
    "ObjectWatcher": {
        "first": "The image at `pattern-start`.",
        "every": "Each image.",
        "last": "The image at `pattern-end`; without one, that with the highest number.",
        "#": "The image with that number, counted from `pattern-start` as 1.",
        "every-#": "The first image, and from it on each of that number.",
        "select-#": "That many numbers of images, evenly spread, the first and the last among them.",
        "any": "Once at the end, if there was an image.",
        "finally": "Once at the end, in any case.",
        "timeout": "If no image came for too long. The payload names the first that is missing.",
        "missing": "Once at the end, if images are missing. FileWatcher takes the payload, and passes over "
        "what the recipe was told of.",
    },
    "PerImageAnalysis": {
        "result": "Once for each image, with what the payload said of the file: keys that begin with `file`.",
        "missing": "In place of it for an image of a store that is not there: expired, or never written. Not "
        "connected, only the log tells. XRayCentring takes it, and need not wait for the image.",
    },
    "XRayCentring": {
        "success": "When all images of the grid are known, whether there is a crystal or not.",
        "abort": "When images are missing and none has come for 15 minutes; at once, if per-image analysis "
        "has said of all of these that they are `missing`. The payload is empty.",
    },
}


def page() -> str:
    """Return the text of the page."""
    services = [point.load() for point in find_services().values() if point.value.startswith(f"{OURS}.")]
    models: dict[str, type[BaseModel]] = {}
    sections = [section(service, models) for service in services]
    for model in list(models.values()):
        models |= {inner.__name__: inner for inner in inner_models(model)}
    payloads = [f"### {name}\n\n{described(model)}" for name, model in sorted(models.items())]
    return "\n".join([INTRODUCTION, *sections, "## Payloads\n", *payloads])


def section(service: type[AnyService], models: dict[str, type[BaseModel]]) -> str:
    """Return what is to be said of one service; the models that it speaks are added to `models`."""
    contract = Contract.of(service)
    parts = [f"## {contract.service}\n", f"{text_of(service)}\n", f"{facts(service)}\n"]
    if contract.parameters is not Anything:
        parts += ["**Parameters**\n", field_table(contract.parameters, contract.node_keys)]
        models |= {inner.__name__: inner for inner in inner_models(contract.parameters)}
    parts.append(f"**Payload**: {link(contract.payload, models)}\n")
    if contract.outputs:
        parts += ["**Outputs**\n", output_table(contract, models)]
    return "\n".join(parts)


def output_table(contract: Contract, models: dict[str, type[BaseModel]]) -> str:
    """Return the table of the outputs of a service."""
    rows: list[tuple[str, ...]] = []
    for name, model in contract.outputs.items():
        when = OUTPUTS[contract.service][name]
        if name == contract.default_output:
            when += " This is the output of a node that names none."
        rows.append((f"`{name}`", link(model, models) if model else "", when))
    return table(("Output", "Payload", "When"), rows)


def facts(service: type[AnyService]) -> str:
    """Return where a service listens, and how it takes messages."""
    said = [f"Queue `{service.queue}`."]
    if issubclass(service, BatchService):
        said.append(
            f"Up to {service.batch_size} messages in one go, gathered for up to {service.batch_wait:g} s."
        )
    else:
        said.append(f"Prefetch {service.prefetch}.")
    if service.exclusive:
        said.append("One instance at a time gets the messages of the queue; others stand by.")
    if service.plain_messages:
        said.append("Takes plain messages, too.")
    if service.fan_outs:
        outputs = ", ".join(f"`{output}`" for output in service.fan_outs)
        said.append(
            f"What leaves at {outputs} is [held back](../explanation/flow-control.md) where it is too much."
        )
    return " ".join(said)


def described(model: type[BaseModel]) -> str:
    """Return what a model stands for, and its fields."""
    return f"{text_of(model)}\n\n{field_table(model)}"


def field_table(model: type[BaseModel], node_keys: Iterable[str] = ()) -> str:
    """Return the table of a model's fields."""
    meanings = attribute_texts(model)
    rows = []
    for name, field in model.model_fields.items():
        meaning = meanings.get(name, "")
        if name in node_keys:
            meaning = f"{meaning} A key of the node, beside `parameters`.".strip()
        rows.append((f"`{field.alias or name}`", type_text(field.annotation), default(field), meaning))
    return table(("Name", "Type", "Default", "Meaning"), rows)


def default(field: FieldInfo) -> str:
    """Return the default of a field, as JSON has it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"


def type_text(annotation: Any) -> str:
    """Return a type in the words of JSON."""
    names = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
        Any: "any",
        type(None): "null",
    }
    if annotation in names:
        return names[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {typing.Union, types.UnionType, typing.Annotated}:
        kinds = inner[:1] if origin is typing.Annotated else inner
        return ", ".join(type_text(each) for each in kinds if each is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin in {list, tuple}:
        return f"list of {type_text(inner[0])}"
    if origin is dict or annotation is dict:
        return "object"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return anchor(annotation)
    raise TypeError(f"no words for the type {annotation}")


def link(model: type[BaseModel], models: dict[str, type[BaseModel]]) -> str:
    """Return a link to a model, and see to it that it is described."""
    if model is Anything:
        return "any"
    models[model.__name__] = model
    return anchor(model)


def anchor(model: type[BaseModel]) -> str:
    """Return a link to where a model is described."""
    return f"[{model.__name__}](#{model.__name__.lower()})"


def inner_models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield the models that the fields of a model are made of."""
    for field in model.model_fields.values():
        for each in (field.annotation, *typing.get_args(field.annotation)):
            if inspect.isclass(each) and issubclass(each, BaseModel):
                yield each


def text_of(thing: type) -> str:
    """Return the description of a class, without its attributes."""
    text = inspect.cleandoc(thing.__doc__ or "").partition("\nAttributes:")[0].strip()
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def attribute_texts(model: type[BaseModel]) -> dict[str, str]:
    """Return what the docstrings of a model and its bases say of the fields."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, Model) or base is Model:
            continue
        _, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts


def table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(heading), None, *rows]
    text = ["|" + "---|" * len(lines[0]) if line is None else f"| {' | '.join(line)} |" for line in lines]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
