"""What a site says of its health: keys `parvis.health.…` of the configuration's storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from parvis.config import ConfigError

if TYPE_CHECKING:
    from parvis.config import Config

SERVICES: Final = "parvis.health.services"
FILE_SYSTEMS: Final = "parvis.health.file_systems"
STORES: Final = "parvis.health.stores"
SCHEDULER: Final = "parvis.health.scheduler"
LIMITS: Final = "parvis.health.limits"
QUEUES: Final = "parvis.health.queues"

_UNITS: Final = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a figure is a warning, and from where on an error."""

    warning: float
    error: float


@dataclass(frozen=True, slots=True)
class Least:
    """How much is to be free: bytes, or percent of the whole."""

    amount: float
    is_percent: bool

    def reached(self, free: float, total: float) -> bool:
        """Whether so much is free, of so many bytes in all."""
        return free >= (total * self.amount / 100 if self.is_percent else self.amount)

    def __str__(self) -> str:
        return f"{self.amount:g} %" if self.is_percent else readable_bytes(self.amount)


def texts(config: Config, key: str) -> list[str]:
    """Return a list of texts; one alone may stand without a list.

    Raises:
        ConfigError: It is something else.
    """
    value: Any = config.storage.get(key) or []
    values: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one for one in values):
        raise ConfigError(f"{key} must be a list of texts")
    return values


def limits(config: Config, key: str, known: Mapping[str, Any] | None = None) -> dict[str, Limits]:
    """Return what is a warning and what an error, by name.

    Raises:
        ConfigError: It is no mapping of names to two numbers, or a name is not `known`.
    """
    found: dict[str, Limits] = {}
    for name, value in _mapping(config, key).items():
        if known is not None and name not in known:
            raise ConfigError(f"{key}: there is no figure {name[:40]!r}, only {', '.join(known)}")
        pair = cast("list[Any]", value) if isinstance(value, list) else []
        if len(pair) != 2 or not all(_is_number(one) for one in pair):
            raise ConfigError(f"{key}: {name[:40]} must be two numbers: [warning from, error from]")
        found[name] = Limits(*pair)
    return found


def least_free(config: Config) -> dict[str, Least]:
    """Return how much is to be free of which file system.

    Raises:
        ConfigError: An amount is not like `50 GB` or `5%`.
    """
    return {path: _least(path, value) for path, value in _mapping(config, FILE_SYSTEMS).items()}


def readable_bytes(number: float) -> str:
    """An amount for people, such as `1.5 TB`."""
    for unit in ("PB", "TB", "GB", "MB", "KB"):
        if number >= _UNITS[unit]:
            return f"{number / _UNITS[unit]:.3g} {'kB' if unit == 'KB' else unit}"
    return f"{number:.0f} B"


def _mapping(config: Config, key: str) -> dict[str, Any]:
    value: Any = config.storage.get(key) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{key} must be a mapping")
    return {str(name): entry for name, entry in cast("dict[Any, Any]", value).items()}


def _least(path: str, value: Any) -> Least:
    text = str(value).strip().upper()
    number, unit = text.rstrip("%BKMGTP "), text[len(text.rstrip("%BKMGTP ")) :].strip()
    try:
        amount = float(number)
    except ValueError:
        amount = -1
    if unit not in {"%", *_UNITS} or not 0 < amount < float("inf") or (unit == "%" and amount > 100):
        raise ConfigError(f"{FILE_SYSTEMS}: {path[:80]}: must be like 50 GB or 5%, it is {str(value)[:20]!r}")
    return Least(amount, True) if unit == "%" else Least(amount * _UNITS[unit], False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
