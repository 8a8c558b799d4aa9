"""What a service says of itself: queue, parameters, payload, outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from parvis.service.base import AnyService


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


def _matches(declared: str, name: str) -> bool:
    if "#" not in declared:
        return False
    pattern = re.escape(declared).replace(re.escape("#"), "[1-9][0-9]*")
    return re.fullmatch(pattern, name) is not None
