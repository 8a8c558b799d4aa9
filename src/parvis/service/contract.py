"""What a service says of itself: queue, parameters, payload, outputs."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from parvis.config.secret import masked

if TYPE_CHECKING:
    from parvis.service.base import AnyService


class _Short(reprlib.Repr):
    """Shows values in a line, without the logins in addresses: errors go into logs and dead letters."""

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(masked("", x), level)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 60


class Model(BaseModel):
    """Base of parameters and payloads. What is not declared is kept.

    Unknown keys pass because a payload travels on through services that know more than we do. A field whose
    name on the wire has a `-` declares it as its alias: `Field(alias="file-number")`.
    """

    model_config = ConfigDict(
        populate_by_name=True, serialize_by_alias=True, extra="allow", allow_inf_nan=False
    )


class Anything(Model):
    """A payload or parameters of which nothing is asked."""


Outputs = Mapping[str, type[BaseModel] | None]


@dataclass(frozen=True, slots=True)
class Contract:
    """What a service says of itself.

    Attributes:
        service: Name that people use.
        queue: Queue it listens to, without namespace.
        parameters: Model of what the recipe may say under `parameters`.
        payload: Model of what arrives.
        outputs: Named ways out and the model of what leaves there, None for no particular form. A `#` in a
            name stands for a whole number above zero: `every-#`.
        default_output: The output that a node without named outputs gets, or None.
        node_keys: Keys of a recipe node, beside `parameters`, that the service reads as parameters.
    """

    service: str
    queue: str
    parameters: type[BaseModel]
    payload: type[BaseModel]
    outputs: Outputs
    default_output: str | None
    node_keys: tuple[str, ...]

    @classmethod
    @cache
    def of(cls, service: type[AnyService]) -> Contract:
        """Read the contract of a service class."""
        return cls(
            service=service.name,
            queue=service.queue,
            parameters=service.Parameters,
            payload=service.Payload,
            outputs=service.outputs,
            default_output=service.default_output,
            node_keys=service.node_keys,
        )

    def output(self, name: str) -> str | None:
        """Return the declared name that `name` is an instance of (`every-#` for `every-7`), or None."""
        if name in self.outputs:
            return name
        return next((declared for declared in self.outputs if _matches(declared, name)), None)

    def check_output(self, name: str, payload: Any) -> None:
        """Check that a payload is what the output `name` is declared to carry.

        Raises:
            ValueError: There is no such output, or the payload is something else.
        """
        declared = self.output(name)
        if declared is None:
            raise ValueError(f"{self.service} declares no output {name!r}")
        model = self.outputs[declared]
        if model is None or isinstance(payload, model):
            return
        try:
            model.model_validate(payload.model_dump() if isinstance(payload, BaseModel) else payload)
        except ValidationError as error:
            raise ValueError(f"what {self.service} sends at {name!r}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Say in one line what does not fit: `burst-limit "lots": should be a valid integer`."""
    parts: list[str] = []
    for problem in error.errors(include_url=False)[:5]:
        place = ".".join(str(key) for key in problem["loc"])
        text = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
        shown = "" if problem["type"] == "missing" else f" {_SHORT.repr(problem['input'])}"
        parts.append(f"{place or 'it'}{shown}: {text[:1].lower()}{text[1:]}")
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _matches(declared: str, name: str) -> bool:
    if "#" not in declared:
        return False
    pattern = re.escape(declared).replace(re.escape("#"), "[1-9][0-9]*")
    return re.fullmatch(pattern, name) is not None
