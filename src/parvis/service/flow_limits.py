"""How much may be in flight: what the configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from parvis.config import ConfigError

_PREFIX: Final = "parvis.flow."
_MOST: Final = 10**9


@dataclass(frozen=True, slots=True)
class Limits:
    """Messages that were sent and are not handled yet, at most.

    Attributes:
        fan_out: Of one fan-out to one queue.
        recipe: Of one recipe.
        user: Of one user.
    """

    fan_out: int = 5_000
    recipe: int = 10_000
    user: int = 20_000

    @classmethod
    def of(cls, storage: Mapping[str, Any]) -> Limits:
        """Read `parvis.flow.fan_out`, `parvis.flow.recipe` and `parvis.flow.user` from the configuration.

        Raises:
            ConfigError: One of them is no number of messages.
        """
        given = {one.name: storage.get(_PREFIX + one.name) for one in fields(cls)}
        for name, value in given.items():
            if value is not None and (type(value) is not int or not 1 <= value <= _MOST):
                raise ConfigError(
                    f"{_PREFIX}{name} must be a number of messages from 1 to {_MOST}, not {str(value)[:80]!r}"
                )
        return cls(**{name: value for name, value in given.items() if value is not None})
